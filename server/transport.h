#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>

namespace server {

// Awaited operations give their error as a value instead of throwing it.
inline constexpr auto kAsTuple = boost::asio::as_tuple(boost::asio::use_awaitable);

// The bytes of one connection, plain or encrypted.
//
// Threads: the strand of the socket. One read and one write may be under way at a time.
class Transport {
 public:
  struct Result {
    boost::system::error_code error;
    size_t count = 0;
  };

  // tls: nullptr for a plain connection; kept for as long as the connection lives, so that a reload
  // of the certificate touches new connections only.
  Transport(boost::asio::ip::tcp::socket socket, std::shared_ptr<boost::asio::ssl::context> tls);

  boost::asio::ip::tcp::socket& socket() { return socket_; }
  const boost::asio::ip::tcp::socket& socket() const { return socket_; }
  bool encrypted() const { return stream_.has_value(); }

  // As the server. Nothing to do on a plain connection.
  boost::asio::awaitable<boost::system::error_code> Handshake();
  // As a client of `host`, whose name the certificate must have when it is verified. REQUIRES: an
  // encrypted connection.
  boost::asio::awaitable<boost::system::error_code> HandshakeWith(const std::string& host,
                                                                  bool verify);
  // At least one byte, or an error; boost::asio::error::eof when the peer has ended.
  boost::asio::awaitable<Result> ReadSome(boost::asio::mutable_buffer buffer);
  boost::asio::awaitable<Result> WriteSome(boost::asio::const_buffer buffer);
  // No more is written: tells the peer so.
  boost::asio::awaitable<void> EndWriting();
  // What is under way ends with operation_aborted.
  void Cancel();

 private:
  boost::asio::ip::tcp::socket socket_;
  std::shared_ptr<boost::asio::ssl::context> context_;
  std::optional<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> stream_;
};

}  // namespace server
