#include "server/http_session.h"

#include <poll.h>

#include <algorithm>
#include <array>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <cmath>
#include <ctime>

#include "fabric/seconds_since.h"
#include "server/error_format.h"
#include "server/log.h"
#include "server/random_id.h"
#include "server/tracer.h"

namespace server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

// Bytes of later requests that are kept while one is served. When a client has sent more, the
// rest stays in the kernel and the client's end is polled for.
constexpr size_t kMaxReadAhead = 64u << 10;
constexpr double kLookSeconds = 1.0;

// After an error with the body unread, so that the answer is not lost to a reset.
constexpr double kLingerSeconds = 2.0;

std::string LowerCase(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return lower;
}

std::string_view View(beast::string_view text) { return {text.data(), text.size()}; }

// As an id for logs: printable, no quotes, not long.
bool IsSaneRequestId(std::string_view id) {
  constexpr size_t kMaxLength = 128;
  return !id.empty() && id.size() <= kMaxLength && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '_' || c == '.' || c == ':';
  });
}

std::string NewRequestId() { return "req_" + RandomHex(16); }

std::string HttpDate() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  std::array<char, 40> text;
  const size_t length = std::strftime(text.data(), text.size(), "%a, %d %b %Y %H:%M:%S GMT", &utc);
  return std::string(text.data(), length);
}

bool IsJsonContent(std::string_view content_type) {
  const std::string type = LowerCase(content_type.substr(0, content_type.find(';')));
  const size_t end = type.find_last_not_of(" \t");
  return end != std::string::npos && type.substr(0, end + 1) == "application/json";
}

// Access-Control-Allow-Origin for a request's Origin: "*", or the origin itself when it is one of
// the list; empty when it is none.
std::string AllowedOrigin(std::string_view allowed, std::string_view origin) {
  if (allowed == "*") return "*";
  while (!allowed.empty()) {
    std::string_view one = allowed.substr(0, allowed.find(','));
    allowed.remove_prefix(std::min(one.size() + 1, allowed.size()));
    while (one.starts_with(' ')) one.remove_prefix(1);
    while (one.ends_with(' ')) one.remove_suffix(1);
    if (!one.empty() && one == origin) return std::string(one);
  }
  return {};
}

size_t CountField(const http::fields& fields, http::field name) {
  const auto range = fields.equal_range(name);
  return static_cast<size_t>(std::distance(range.first, range.second));
}

}  // namespace

// Bytes of one request's body, counted among those of all.
class HttpSession::BodyMemory {
 public:
  explicit BodyMemory(HttpShared& shared) : shared_(shared) {}
  BodyMemory(const BodyMemory&) = delete;
  BodyMemory& operator=(const BodyMemory&) = delete;
  ~BodyMemory() { shared_.body_bytes -= held_; }

  // False when all bodies together would be too large.
  bool Hold(size_t bytes) {
    const uint64_t total = shared_.body_bytes += bytes - held_;
    held_ = bytes;
    // One request that is allowed by itself always fits.
    return total <= shared_.options.max_body_memory_bytes || total == held_;
  }

 private:
  HttpShared& shared_;
  size_t held_ = 0;
};

struct HttpSession::Incoming {
  explicit Incoming(HttpShared& shared) : memory(shared) {}

  Parser parser;
  BodyMemory memory;
  const Router::Route* route = nullptr;
  bool body_pending = true;  // some of the request has not been read
};

HttpSession::HttpSession(asio::ip::tcp::socket socket, HttpShared& shared)
    : shared_(shared),
      transport_(std::move(socket), shared.tls.Current()),
      deadline_(transport_.socket().get_executor()),
      waker_(transport_.socket().get_executor()) {
  ++shared_.connections;
}

HttpSession::~HttpSession() { --shared_.connections; }

asio::awaitable<void> HttpSession::Run() {
  error_code ignored;
  asio::ip::tcp::socket& socket = transport_.socket();
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  if (const auto peer = socket.remote_endpoint(ignored); !ignored) {
    client_ = peer.address().to_string();
  }
  bool going_on = co_await Handshake();
  for (bool first = true; going_on; first = false) {
    if (!co_await AwaitFirstByte(first)) break;
    going_on = co_await ServeOne();
  }
  if (transport_.encrypted() && !gone_) {
    ArmDeadline(kLingerSeconds);
    co_await transport_.EndWriting();
    DisarmDeadline();
  }
  socket.close(ignored);
}

asio::awaitable<void> HttpSession::TurnAway() {
  request_.request_id = NewRequestId();
  if (!co_await Handshake()) co_return;
  const ApiError error = Overloaded("Too many connections.");
  co_await ReplyError(error);
  if (!gone_) co_await LingeringClose();
}

asio::awaitable<bool> HttpSession::Handshake() {
  if (!transport_.encrypted()) co_return true;
  ArmDeadline(shared_.options.header_timeout_seconds);
  const error_code error = co_await transport_.Handshake();
  DisarmDeadline();
  if (error) gone_ = true;
  co_return !error;
}

// While it waits here the connection may be given up for a new one.
asio::awaitable<bool> HttpSession::AwaitFirstByte(bool first_request) {
  if (buffer_.size() > 0) co_return true;
  const ServerOptions& options = shared_.options;
  ArmDeadline(first_request ? options.header_timeout_seconds : options.idle_timeout_seconds);
  idle_ = true;
  const auto place = shared_.idle.Add([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    asio::post(self->transport_.socket().get_executor(), [self] {
      if (self->idle_) self->transport_.Cancel();
    });
  });
  const error_code error = co_await ReadMore();
  idle_ = false;
  shared_.idle.Remove(place);
  DisarmDeadline();
  co_return !error;
}

asio::awaitable<error_code> HttpSession::ReadMore() {
  constexpr size_t kRead = 16u << 10;
  const auto [error, count] = co_await transport_.ReadSome(buffer_.prepare(kRead));
  if (!error) buffer_.commit(count);
  co_return error;
}

asio::awaitable<error_code> HttpSession::ParseHeader(Parser& parser) {
  bool begun = false;
  for (;;) {
    // Empty lines before a request, as some old clients send after a body (RFC 9112, 2.2).
    while (!begun && buffer_.size() >= 2 &&
           std::string_view(static_cast<const char*>(buffer_.data().data()), 2) == "\r\n") {
      buffer_.consume(2);
    }
    if (buffer_.size() > 0) {
      error_code error;
      buffer_.consume(parser.put(buffer_.data(), error));
      begun = true;
      if (error && error != http::error::need_more) co_return error;
      if (parser.is_header_done()) co_return error_code();
    }
    if (const error_code error = co_await ReadMore()) co_return error;
  }
}

// Counts what all connections hold of bodies, so that many large ones cannot take all memory.
asio::awaitable<error_code> HttpSession::ParseBody(Parser& parser, BodyMemory& memory) {
  while (!parser.is_done()) {
    error_code error;
    if (buffer_.size() > 0) buffer_.consume(parser.put(buffer_.data(), error));
    if (error && error != http::error::need_more) co_return error;
    if (parser.is_done()) break;
    if (!memory.Hold(parser.get().body().size())) co_return asio::error::no_buffer_space;
    if (error == http::error::need_more || buffer_.size() == 0) {
      if (const error_code failed = co_await ReadMore()) co_return failed;
    }
  }
  co_return error_code();
}

asio::awaitable<bool> HttpSession::ServeOne() {
  request_ = HttpRequest{};
  request_.arrival = Clock::now();
  request_.use = std::make_shared<RequestUse>();
  request_.request_id = NewRequestId();
  http_1_0_ = head_request_ = keep_alive_ = gone_ = replied_ = streaming_ = complete_ = false;
  status_ = 0;
  Incoming incoming(shared_);
  std::optional<ApiError> error = co_await ReadHeader(incoming);
  if (gone_) co_return false;

  ++shared_.active_requests;
  const std::shared_ptr<void> active(nullptr, [this](void*) { --shared_.active_requests; });
  HttpResponse preflight;
  if (!error) error = FindRoute(incoming, &preflight);
  if (!error) error = co_await ReadBody(incoming);
  if (gone_) co_return false;

  if (error) {
    keep_alive_ = keep_alive_ && !incoming.body_pending;
    co_await ReplyError(*error);
  } else if (incoming.route == nullptr) {
    co_await Reply(preflight);
  } else {
    co_await RunHandler(*incoming.route);
  }
  Record(incoming);
  if (incoming.body_pending && !gone_) co_await LingeringClose();
  co_return keep_alive_ && !gone_;
}

asio::awaitable<std::optional<ApiError>> HttpSession::ReadHeader(Incoming& incoming) {
  const ServerOptions& options = shared_.options;
  auto& parser = incoming.parser;
  parser.header_limit(options.max_header_bytes);
  parser.body_limit(options.max_body_bytes);
  ArmDeadline(options.header_timeout_seconds);
  const error_code error = co_await ParseHeader(parser);
  DisarmDeadline();
  ReadHead(parser.get());
  if (timed_out_) co_return RequestTimeout();
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    // The request line is parsed first: without a target it is that line which is too long.
    if (parser.get().target().empty()) co_return UriTooLong(options.max_uri_bytes);
    co_return HeadersTooLarge("The request headers are larger than the limit of " +
                              std::to_string(options.max_header_bytes) + " bytes.");
  }
  if (error == http::error::body_limit) co_return RequestTooLarge(options.max_body_bytes);
  if (error && error.category() == make_error_code(http::error::bad_method).category() &&
      error != http::error::end_of_stream && error != http::error::partial_message) {
    co_return BadRequest("The request is not valid HTTP/1.1: " + error.message() + ".");
  }
  if (error) {
    gone_ = true;
    co_return std::nullopt;
  }
  http_1_0_ = parser.get().version() == 10;
  keep_alive_ = parser.get().keep_alive();
  incoming.body_pending = !parser.is_done();
  if (auto refused = CheckHeader(incoming)) {
    // What follows on this connection cannot be trusted to be a request.
    keep_alive_ = false;
    co_return refused;
  }
  co_return std::nullopt;
}

// What has arrived of a head, whole or not: an error, too, has the shape of its path's protocol,
// the client's id, and what its browser wants.
void HttpSession::ReadHead(const http::request_header<>& message) {
  ReadTarget(View(message.target()));
  request_.method = View(message.method_string());
  head_request_ = request_.method == "HEAD";
  for (const auto& field : message) {
    request_.headers.emplace_back(LowerCase(View(field.name_string())), View(field.value()));
  }
  if (const auto id = request_.Header("x-request-id"); IsSaneRequestId(id)) {
    request_.request_id = id;
  }
  request_.trace = Tracer::Begin(shared_.tracer, request_.headers);
}

// Refuses what two HTTP implementations could read as different requests (RFC 9112, 6.3 and 11.2).
std::optional<ApiError> HttpSession::CheckHeader(const Incoming& incoming) const {
  const ServerOptions& options = shared_.options;
  const auto& message = incoming.parser.get();
  if (message.target().size() > options.max_uri_bytes) return UriTooLong(options.max_uri_bytes);
  if (request_.headers.size() > options.max_header_lines) {
    return HeadersTooLarge("The request has more than " + std::to_string(options.max_header_lines) +
                           " header lines.");
  }
  const size_t lengths = CountField(message, http::field::content_length);
  const size_t encodings = CountField(message, http::field::transfer_encoding);
  if (lengths > 1 || View(message[http::field::content_length]).find(',') != std::string::npos) {
    return BadRequest("The request has more than one Content-Length.");
  }
  if (lengths > 0 && encodings > 0) {
    return BadRequest("The request has both Content-Length and Transfer-Encoding.");
  }
  if (encodings > 0 && (http_1_0_ || encodings > 1 ||
                        LowerCase(View(message[http::field::transfer_encoding])) != "chunked")) {
    return BadRequest("The only supported Transfer-Encoding is 'chunked', in HTTP/1.1.");
  }
  const size_t hosts = CountField(message, http::field::host);
  if (hosts > 1 || (hosts == 0 && !http_1_0_)) {
    return BadRequest("An HTTP/1.1 request needs exactly one Host header.");
  }
  return std::nullopt;
}

// False when it has a malformed escape.
bool HttpSession::ReadTarget(std::string_view target) {
  // Absolute form, as sent to proxies.
  if (target.starts_with("http://") || target.starts_with("https://")) {
    const size_t path = target.find('/', target.find("//") + 2);
    target = path == std::string_view::npos ? "/" : target.substr(path);
  }
  target = target.substr(0, target.find('#'));
  const size_t question = target.find('?');
  if (question != std::string_view::npos) request_.query = target.substr(question + 1);
  return PercentDecode(target.substr(0, question), &request_.path);
}

std::optional<ApiError> HttpSession::FindRoute(Incoming& incoming, HttpResponse* preflight) {
  if (!ReadTarget(View(incoming.parser.get().target()))) {
    return BadRequest("The request URL has a malformed percent escape.");
  }

  const Router::Match match = shared_.router.Find(request_.method, request_.path);
  std::string allow;
  for (const std::string& method : match.allowed) allow += (allow.empty() ? "" : ", ") + method;
  if (request_.method == "OPTIONS" && (!match.allowed.empty() || request_.path == "*")) {
    preflight->status = 204;
    preflight->content_type.clear();
    if (!allow.empty()) preflight->headers.emplace_back("Allow", allow);
    if (!shared_.options.cors_origin.empty()) {
      preflight->headers.emplace_back("Access-Control-Allow-Methods", allow);
      preflight->headers.emplace_back("Access-Control-Allow-Headers", WantedHeaders());
      preflight->headers.emplace_back("Access-Control-Max-Age", "86400");
    }
    return std::nullopt;
  }
  if (match.allowed.empty()) return UnknownUrl(request_.method, request_.path);
  if (match.route == nullptr) {
    ApiError error = MethodNotAllowed(request_.method, request_.path);
    error.allow = allow;
    return error;
  }
  incoming.route = match.route;
  if (auto refused = Authorise(*match.route)) return refused;
  if (match.route->json && shared_.draining) return ShuttingDown();
  if (match.route->json && !IsJsonContent(request_.Header("content-type"))) {
    return UnsupportedMediaType(request_.Header("content-type"));
  }
  if (const auto encoding = request_.Header("content-encoding");
      !encoding.empty() && LowerCase(encoding) != "identity") {
    return UnsupportedEncoding(encoding);
  }
  return std::nullopt;
}

// A browser names the headers that it will send: `*` does not cover Authorization everywhere.
std::string HttpSession::WantedHeaders() const {
  const std::string_view wanted = request_.Header("access-control-request-headers");
  return wanted.empty() ? "*, Authorization" : std::string(wanted);
}

// Who asks, whether they may, and whether their budget allows it.
std::optional<ApiError> HttpSession::Authorise(const Router::Route& route) {
  if (route.access == Router::Access::kOpen) return std::nullopt;
  auto client = shared_.authenticator.Check(request_);
  if (!client) return InvalidApiKey();
  request_.key_name = client->name;
  if (route.access == Router::Access::kAdmin && !client->admin) return AdminOnly();
  if (!route.json || client->budget == nullptr) return std::nullopt;
  request_.budget = client->budget;
  if (const auto refusal = client->budget->Enter(Clock::now())) {
    return RateLimited(*refusal, client->name);
  }
  request_.use = std::make_shared<RequestUse>(std::move(client->budget));
  return std::nullopt;
}

asio::awaitable<std::optional<ApiError>> HttpSession::ReadBody(Incoming& incoming) {
  auto& parser = incoming.parser;
  if (parser.is_done()) co_return std::nullopt;
  if (const std::string expect = LowerCase(request_.Header("expect")); !expect.empty()) {
    if (expect != "100-continue") {
      keep_alive_ = false;
      co_return ApiError(417, "invalid_request_error", "", "Unknown expectation.");
    }
    if (buffer_.size() == 0 && !http_1_0_) {
      if (!co_await SendAll("HTTP/1.1 100 Continue\r\n\r\n")) co_return std::nullopt;
    }
  }
  ArmDeadline(shared_.options.body_timeout_seconds);
  const error_code error = co_await ParseBody(parser, incoming.memory);
  DisarmDeadline();
  if (timed_out_) co_return RequestTimeout();
  if (error == asio::error::no_buffer_space) {
    co_return Overloaded("The server holds too many large requests. Try again soon.");
  }
  if (error == http::error::body_limit) co_return RequestTooLarge(shared_.options.max_body_bytes);
  if (error && error.category() == make_error_code(http::error::bad_method).category() &&
      error != http::error::end_of_stream && error != http::error::partial_message) {
    co_return BadRequest("The request body is not valid HTTP/1.1: " + error.message() + ".");
  }
  if (error) {
    gone_ = true;
    co_return std::nullopt;
  }
  incoming.body_pending = false;
  request_.body = std::move(parser.get().body());
  co_return std::nullopt;
}

asio::awaitable<void> HttpSession::RunHandler(const Router::Route& route) {
  std::optional<ApiError> error;
  try {
    co_await route.handler(request_, *this);
  } catch (const ApiError& thrown) {
    error = thrown;
  } catch (const std::exception& thrown) {
    LogError("request id=" + request_.request_id + " failed: " + thrown.what());
    error = InternalError("The server had an error while processing your request.");
  }
  co_await EndWatch();
  if (gone_) co_return;
  if (error && !replied_) {
    co_await ReplyError(*error);
  } else if (error || !replied_) {
    // The answer is broken off; only the end of the connection can say so.
    keep_alive_ = false;
  }
}

asio::awaitable<bool> HttpSession::ReplyError(const ApiError& error) {
  const HttpResponse response = ErrorResponseTo(request_, error);
  co_return co_await Reply(response);
}

void HttpSession::Record(const Incoming& incoming) {
  const double seconds = fabric::SecondsSince(request_.arrival);
  if (shared_.on_request) {
    shared_.on_request({incoming.route == nullptr ? "other" : incoming.route->path, status_,
                        seconds, left_early()});
  }
  const bool probe = incoming.route != nullptr && !incoming.route->json;
  const bool fine = status_ == 200 || status_ == 304;
  if (shared_.options.log_requests && !(probe && fine)) {
    LogRequest({.request_id = request_.request_id,
                .method = request_.method,
                .path = request_.path,
                .key_name = request_.key_name,
                .client = client_,
                .status = status_,
                .seconds = seconds,
                .client_gone = left_early(),
                .prompt_tokens = request_.use->prompt_tokens(),
                .completion_tokens = request_.use->completion_tokens(),
                .trace = request_.trace == nullptr ? nullptr : &request_.trace->context()});
  }
  if (request_.trace != nullptr && request_.trace->recorded() && !(probe && fine)) {
    ExportSpan(incoming);
  }
  // An idle connection must not go on counting as one of its key's concurrent requests.
  request_.use.reset();
  request_.trace.reset();
}

// Named and described by OpenTelemetry's conventions for HTTP servers.
void HttpSession::ExportSpan(const Incoming& incoming) const {
  const std::string route = incoming.route == nullptr ? "" : incoming.route->path;
  Span span =
      request_.trace->RequestSpan(route.empty() ? request_.method : request_.method + " " + route,
                                  SteadySeconds(request_.arrival), SteadySeconds(Clock::now()));
  const auto add = [&span](const char* key, SpanValue value) {
    span.attributes.emplace_back(key, std::move(value));
  };
  add("http.request.method", request_.method);
  if (!route.empty()) add("http.route", route);
  add("url.path", request_.path);
  add("url.scheme", std::string(transport_.encrypted() ? "https" : "http"));
  add("network.protocol.version", std::string(http_1_0_ ? "1.0" : "1.1"));
  add("client.address", client_);
  if (const auto agent = request_.Header("user-agent"); !agent.empty()) {
    add("user_agent.original", std::string(agent));
  }
  add("tern.request_id", request_.request_id);
  if (!request_.key_name.empty()) add("tern.key", request_.key_name);
  if (left_early()) add("tern.client_gone", true);
  constexpr int kServerErrors = 500;
  if (status_ > 0) add("http.response.status_code", int64_t{status_});
  if (status_ >= kServerErrors) {
    add("error.type", std::to_string(status_));
    span.failed = true;
    span.failure = std::string(StatusText(status_));
  }
  request_.trace->Export(std::move(span));
}

asio::awaitable<bool> HttpSession::Reply(const HttpResponse& response) {
  replied_ = true;
  status_ = response.status;
  if (response.close || shared_.draining) keep_alive_ = false;
  std::string text = FormatHead(response, response.body.size());
  if (!head_request_) text += response.body;
  complete_ = co_await SendAll(text);
  co_return complete_;
}

asio::awaitable<bool> HttpSession::StartStream(const HttpResponse& head) {
  replied_ = streaming_ = true;
  status_ = head.status;
  if (http_1_0_ || shared_.draining) keep_alive_ = false;
  const std::string text = FormatHead(head, std::nullopt);
  const bool sent = co_await SendAll(text);
  complete_ = sent && head_request_;
  co_return sent && !head_request_;  // who asks for the head alone takes no piece
}

asio::awaitable<bool> HttpSession::Write(std::string_view text) {
  if (head_request_) co_return false;
  if (text.empty()) co_return !gone_;
  if (http_1_0_) co_return co_await SendAll(text);
  std::array<char, 20> size;
  const auto end = std::to_chars(size.data(), size.data() + size.size(), text.size(), 16).ptr;
  std::string chunk(size.data(), end);
  chunk.append("\r\n").append(text).append("\r\n");
  co_return co_await SendAll(chunk);
}

asio::awaitable<bool> HttpSession::FinishStream() {
  if (head_request_) co_return complete_;
  // Not in one expression: for `member = condition ? value : co_await ...` UBSan reports a null
  // `this` with GCC 12.
  const bool ended = http_1_0_ || co_await SendAll("0\r\n\r\n");
  complete_ = ended && !gone_;
  co_return complete_;
}

std::string HttpSession::FormatHead(const HttpResponse& response,
                                    std::optional<size_t> content_length) const {
  std::string head = "HTTP/1.1 " + std::to_string(response.status) + " ";
  head += StatusText(response.status);
  const auto add = [&head](std::string_view name, std::string_view value) {
    head.append("\r\n").append(name).append(": ").append(value);
  };
  add("Date", HttpDate());
  add("x-request-id", request_.request_id);
  if (request_.trace != nullptr) {
    const TraceContext& context = request_.trace->context();
    add("traceparent", FormatTraceparent(context));
    if (!context.state.empty()) add("tracestate", context.state);
  }
  if (!response.content_type.empty()) add("Content-Type", response.content_type);
  for (const auto& [name, value] : response.headers) add(name, value);
  const bool bodiless = response.status == 204 || response.status == 304;
  if (content_length && !bodiless) add("Content-Length", std::to_string(*content_length));
  if (!content_length && !http_1_0_) add("Transfer-Encoding", "chunked");
  if (!keep_alive_) {
    add("Connection", "close");
  } else if (http_1_0_) {
    add("Connection", "keep-alive");
  }
  AddRateLimits(add);
  if (const std::string& allowed = shared_.options.cors_origin; !allowed.empty()) {
    if (allowed != "*") add("Vary", "Origin");
    if (const std::string origin = AllowedOrigin(allowed, request_.Header("origin"));
        !origin.empty()) {
      add("Access-Control-Allow-Origin", origin);
      add("Access-Control-Expose-Headers", "*, x-request-id, retry-after");
    }
  }
  head += "\r\n\r\n";
  return head;
}

// As OpenAI's, for keys that have limits.
void HttpSession::AddRateLimits(
    const std::function<void(std::string_view, std::string_view)>& add) const {
  const KeyBudget* budget = request_.budget.get();
  if (budget == nullptr) return;
  const auto now = Clock::now();
  const auto tell = [&](const std::string& what, const KeyBudget::Remaining& remaining) {
    if (remaining.allowed == 0) return;
    add("x-ratelimit-limit-" + what, std::to_string(remaining.allowed));
    add("x-ratelimit-remaining-" + what, std::to_string(remaining.left));
    add("x-ratelimit-reset-" + what,
        std::to_string(static_cast<int64_t>(std::ceil(remaining.full_after_seconds))) + "s");
  };
  tell("requests", budget->RequestsLeft(now));
  tell("tokens", budget->TokensLeft(now));
}

asio::awaitable<bool> HttpSession::SendAll(std::string_view text) {
  while (!text.empty() && !gone_) {
    ArmDeadline(shared_.options.write_timeout_seconds);
    const auto [error, count] =
        co_await transport_.WriteSome(asio::buffer(text.data(), text.size()));
    DisarmDeadline();
    if (error) gone_ = true;
    text.remove_prefix(count);
  }
  co_return !gone_;
}

asio::awaitable<void> HttpSession::LingeringClose() {
  ArmDeadline(kLingerSeconds);
  co_await transport_.EndWriting();
  std::array<char, 4096> discarded;
  while (!timed_out_) {
    const auto [error, count] =
        co_await transport_.socket().async_read_some(asio::buffer(discarded), kAsTuple);
    if (error) break;
  }
  DisarmDeadline();
  gone_ = true;
}

void HttpSession::ArmDeadline(double seconds) {
  timed_out_ = false;
  deadline_.expires_after(Seconds(seconds));
  deadline_.async_wait([self = shared_from_this(), epoch = ++deadline_epoch_](error_code error) {
    if (error || epoch != self->deadline_epoch_) return;
    self->timed_out_ = true;
    self->transport_.Cancel();
  });
}

void HttpSession::DisarmDeadline() {
  ++deadline_epoch_;
  deadline_.cancel();
}

// Looks by itself every second, too: a notification may be lost when memory is short.
asio::awaitable<HttpExchange::Wake> HttpSession::WaitFor(WakeSource& source, double seconds) {
  if (gone_) co_return Wake::kGone;
  if (source.ready()) co_return Wake::kReady;
  source.SetNotify([weak = weak_from_this()] {
    const auto self = weak.lock();
    if (self == nullptr) return;
    asio::post(self->transport_.socket().get_executor(), [self] { self->waker_.cancel(); });
  });
  const auto until = Clock::now() + Seconds(seconds);
  for (;;) {
    if (gone_) co_return Wake::kGone;
    if (source.ready()) co_return Wake::kReady;
    const auto now = Clock::now();
    if (now >= until) co_return Wake::kTimeout;
    ArmWatch();
    waker_.expires_at(std::min(until, now + Seconds(kLookSeconds)));
    co_await waker_.async_wait(kAsTuple);
    if (!watching_ && PeerHungUp()) gone_ = true;
  }
}

void HttpSession::ArmWatch() {
  if (watching_ || gone_ || buffer_.size() >= kMaxReadAhead) return;
  watching_ = true;
  asio::co_spawn(transport_.socket().get_executor(), Watch(), asio::detached);
}

// Takes what the client sends meanwhile; its end is an error.
asio::awaitable<void> HttpSession::Watch() {
  const auto self = shared_from_this();
  const error_code error = co_await ReadMore();
  watching_ = false;
  if (error && error != asio::error::operation_aborted) gone_ = true;
  waker_.cancel();
}

// The bytes of the next request are the reader's: nobody else may read.
asio::awaitable<void> HttpSession::EndWatch() {
  while (watching_) {
    transport_.Cancel();
    waker_.expires_at(Clock::time_point::max());
    co_await waker_.async_wait(kAsTuple);
  }
}

bool HttpSession::PeerHungUp() const {
  pollfd poll_fd{.fd = const_cast<asio::ip::tcp::socket&>(transport_.socket()).native_handle(),
                 .events = POLLRDHUP,
                 .revents = 0};
  return ::poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace server
