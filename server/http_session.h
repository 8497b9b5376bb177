#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "server/api_error.h"
#include "server/http_exchange.h"
#include "server/http_server.h"
#include "server/transport.h"

namespace server {

// One connection: reads requests one after the other, checks them, and hands them to their routes.
//
// Threads: everything runs on the socket's strand.
class HttpSession : public HttpExchange, public std::enable_shared_from_this<HttpSession> {
 public:
  // shared outlives the session.
  HttpSession(boost::asio::ip::tcp::socket socket, HttpShared& shared);
  ~HttpSession() override;

  // Until the connection ends. The caller keeps a shared_ptr for that long.
  boost::asio::awaitable<void> Run();
  // Instead of Run(): answers 503 without reading a request.
  boost::asio::awaitable<void> TurnAway();

  boost::asio::awaitable<bool> Reply(const HttpResponse& response) override;
  boost::asio::awaitable<bool> StartStream(const HttpResponse& head) override;
  boost::asio::awaitable<bool> Write(std::string_view text) override;
  boost::asio::awaitable<bool> FinishStream() override;
  bool streaming() const override { return streaming_; }
  boost::asio::awaitable<Wake> WaitFor(WakeSource& source, double seconds) override;

 private:
  struct Incoming;  // a request while it is read
  class BodyMemory;
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  // Each is true when the connection goes on.
  boost::asio::awaitable<bool> Handshake();
  boost::asio::awaitable<bool> AwaitFirstByte(bool first_request);
  boost::asio::awaitable<bool> ServeOne();

  boost::asio::awaitable<boost::system::error_code> ReadMore();
  boost::asio::awaitable<boost::system::error_code> ParseHeader(Parser& parser);
  boost::asio::awaitable<boost::system::error_code> ParseBody(Parser& parser, BodyMemory& memory);
  boost::asio::awaitable<std::optional<ApiError>> ReadHeader(Incoming& incoming);
  boost::asio::awaitable<std::optional<ApiError>> ReadBody(Incoming& incoming);
  std::optional<ApiError> CheckHeader(const Incoming& incoming) const;
  std::string WantedHeaders() const;
  void AddRateLimits(const std::function<void(std::string_view, std::string_view)>& add) const;
  std::optional<ApiError> Authorise(const Router::Route& route);
  bool ReadTarget(std::string_view target);
  void ReadHead(const boost::beast::http::request_header<>& message);
  std::optional<ApiError> FindRoute(Incoming& incoming, HttpResponse* preflight);
  boost::asio::awaitable<void> RunHandler(const Router::Route& route);
  boost::asio::awaitable<bool> ReplyError(const ApiError& error);
  void Record(const Incoming& incoming);
  void ExportSpan(const Incoming& incoming) const;
  bool left_early() const { return gone_ && !complete_; }

  std::string FormatHead(const HttpResponse& response, std::optional<size_t> content_length) const;
  boost::asio::awaitable<bool> SendAll(std::string_view text);
  boost::asio::awaitable<void> LingeringClose();

  // At most one deadline at a time: when it passes, the pending operation is cancelled.
  void ArmDeadline(double seconds);
  void DisarmDeadline();

  // Watching for the end of the client while a handler waits.
  void ArmWatch();
  boost::asio::awaitable<void> Watch();
  boost::asio::awaitable<void> EndWatch();
  bool PeerHungUp() const;

  HttpShared& shared_;
  Transport transport_;
  boost::beast::flat_buffer buffer_;  // bytes read and not yet used, of this and later requests
  boost::asio::steady_timer deadline_;
  boost::asio::steady_timer waker_;
  uint64_t deadline_epoch_ = 0;
  bool timed_out_ = false;
  bool idle_ = false;
  bool watching_ = false;

  HttpRequest request_;  // the current one
  std::string client_;   // address, for the log
  bool http_1_0_ = false;
  bool head_request_ = false;
  bool keep_alive_ = false;
  bool gone_ = false;
  bool replied_ = false;
  bool streaming_ = false;
  bool complete_ = false;  // all of the answer was sent: who leaves now has it
  int status_ = 0;
};

}  // namespace server
