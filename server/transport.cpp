#include "server/transport.h"

#include <openssl/ssl.h>

#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

namespace server {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {}  // namespace

Transport::Transport(asio::ip::tcp::socket socket, std::shared_ptr<asio::ssl::context> tls)
    : socket_(std::move(socket)), context_(std::move(tls)) {
  if (context_ != nullptr) stream_.emplace(socket_, *context_);
}

asio::awaitable<error_code> Transport::Handshake() {
  if (!stream_) co_return error_code();
  const auto [error] = co_await stream_->async_handshake(asio::ssl::stream_base::server, kAsTuple);
  co_return error;
}

asio::awaitable<error_code> Transport::HandshakeWith(const std::string& host, bool verify) {
  error_code no_address;
  asio::ip::make_address(host, no_address);
  // Names only: an address is none that a server could choose a certificate by (RFC 6066, 3).
  if (no_address) SSL_set_tlsext_host_name(stream_->native_handle(), host.c_str());
  if (verify) stream_->set_verify_callback(asio::ssl::host_name_verification(host));
  const auto [error] = co_await stream_->async_handshake(asio::ssl::stream_base::client, kAsTuple);
  co_return error;
}

asio::awaitable<Transport::Result> Transport::ReadSome(asio::mutable_buffer buffer) {
  if (!stream_) {
    const auto [error, count] = co_await socket_.async_read_some(buffer, kAsTuple);
    co_return Result{error, count};
  }
  const auto [error, count] = co_await stream_->async_read_some(buffer, kAsTuple);
  co_return Result{error, count};
}

asio::awaitable<Transport::Result> Transport::WriteSome(asio::const_buffer buffer) {
  if (!stream_) {
    const auto [error, count] = co_await socket_.async_write_some(buffer, kAsTuple);
    co_return Result{error, count};
  }
  const auto [error, count] = co_await stream_->async_write_some(buffer, kAsTuple);
  co_return Result{error, count};
}

asio::awaitable<void> Transport::EndWriting() {
  // Sends close_notify and then waits for the peer's, which the caller's deadline bounds.
  if (stream_) co_await stream_->async_shutdown(kAsTuple);
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

void Transport::Cancel() {
  error_code ignored;
  socket_.cancel(ignored);
}

}  // namespace server
