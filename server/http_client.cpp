#include "server/http_client.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "server/transport.h"

namespace server {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
using asio::ip::tcp;
using boost::system::error_code;

std::shared_ptr<ssl::context> MakeContext(const HttpClient::Options& options) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_client);
  context->set_options(ssl::context::no_tlsv1 | ssl::context::no_tlsv1_1);
  error_code error;
  if (!options.verify) {
    context->set_verify_mode(ssl::verify_none);
    return context;
  }
  context->set_verify_mode(ssl::verify_peer);
  if (options.ca_file.empty()) {
    context->set_default_verify_paths(error);
  } else {
    context->load_verify_file(options.ca_file, error);
  }
  if (error) {
    throw std::runtime_error("cannot use the certificate authorities " + options.ca_file + ": " +
                             error.message());
  }
  return context;
}

struct Connection {
  explicit Connection(tcp::socket socket, std::shared_ptr<ssl::context> tls)
      : transport(std::move(socket), std::move(tls)) {}
  Transport transport;
  beast::flat_buffer buffer;
};

std::string ToText(const ClientRequest& request) {
  std::string text = request.method + " " + request.url.path +
                     " HTTP/1.1\r\nHost: " + request.url.Authority() +
                     "\r\nContent-Length: " + std::to_string(request.body.size()) + "\r\n";
  for (const auto& [name, value] : request.headers) {
    text.append(name).append(": ").append(value).append("\r\n");
  }
  return text.append("\r\n").append(request.body);
}

HeaderList ToList(const http::fields& fields) {
  HeaderList list;
  for (const auto& field : fields) {
    std::string name(field.name_string().data(), field.name_string().size());
    for (char& c : name) {
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
    }
    list.emplace_back(std::move(name), std::string(field.value().data(), field.value().size()));
  }
  return list;
}

}  // namespace

ClientUrl ClientUrl::Parse(const std::string& text) {
  const auto refuse = [&] {
    throw std::invalid_argument("must be a URL such as http://127.0.0.1:8080, not \"" + text +
                                "\"");
  };
  ClientUrl url;
  size_t begin = 0;
  if (text.starts_with("https://")) {
    begin = 8;
    url.tls = true;
    url.port = 443;
  } else if (text.starts_with("http://")) {
    begin = 7;
  } else {
    refuse();
  }
  for (const char c : text) {
    if (c <= ' ' || c == 0x7F) refuse();
  }
  const size_t end = std::min(text.find_first_of("/?#", begin), text.size());
  std::string authority = text.substr(begin, end - begin);
  const std::string rest = text.substr(end, text.find('#', end) - end);
  url.path = rest.starts_with('/') ? rest : "/" + rest;
  // "[::1]:8080": the colon of the port comes after the bracket.
  const size_t bracket = authority.find(']');
  const size_t colon = authority.find(':', bracket == std::string::npos ? 0 : bracket);
  if (colon != std::string::npos) {
    const std::string port = authority.substr(colon + 1);
    const char* last = port.data() + port.size();
    const auto [stop, error] = std::from_chars(port.data(), last, url.port);
    if (error != std::errc() || stop != last || url.port == 0) refuse();
    authority.resize(colon);
  }
  if (authority.starts_with('[') && authority.ends_with(']')) {
    authority = authority.substr(1, authority.size() - 2);
  }
  // Names and passwords in a URL would end up in logs.
  if (authority.empty() || authority.find('@') != std::string::npos) refuse();
  url.host = authority;
  return url;
}

std::string ClientUrl::Authority() const {
  const bool bare = host.find(':') == std::string::npos;
  return (bare ? host : "[" + host + "]") + ":" + std::to_string(port);
}

struct HttpClient::Impl {
  class Exchange;

  asio::io_context io{1};
  std::shared_ptr<ssl::context> tls;
  bool verify;
  std::map<std::string, std::vector<std::unique_ptr<Connection>>> idle;

  explicit Impl(const Options& options) : tls(MakeContext(options)), verify(options.verify) {}

  static std::string PlaceOf(const ClientUrl& url) {
    return (url.tls ? "https://" : "http://") + url.Authority();
  }
  std::unique_ptr<Connection> TakeIdle(const ClientUrl& url) {
    const auto found = idle.find(PlaceOf(url));
    if (found == idle.end() || found->second.empty()) return nullptr;
    auto connection = std::move(found->second.back());
    found->second.pop_back();
    return connection;
  }
};

// One request and its answer. Coroutines are members without arguments: GCC 12 destroys temporary
// arguments of an awaited call twice.
class HttpClient::Impl::Exchange : public std::enable_shared_from_this<Exchange> {
 public:
  Exchange(Impl& impl, ClientRequest request, std::shared_ptr<ClientEvents> events)
      : impl_(impl),
        request_(std::move(request)),
        events_(std::move(events)),
        deadline_(impl.io),
        resolver_(impl.io) {}

  void Begin() {
    asio::co_spawn(
        impl_.io, [self = shared_from_this()]() -> asio::awaitable<void> { return self->Serve(); },
        asio::detached);
  }

 private:
  asio::awaitable<void> Serve() {
    const auto self = shared_from_this();
    ArmDeadline();
    connection_ = impl_.TakeIdle(request_.url);
    const bool reused = connection_ != nullptr;
    if (!reused) co_await Connect();
    if (!failure_) co_await Talk();
    // The other side may have closed a connection that had nothing to do.
    if (failure_ && reused && !heard_ && !timed_out_) {
      failure_.reset();
      connection_.reset();
      co_await Connect();
      if (!failure_) co_await Talk();
    }
    deadline_.cancel();
    if (!failure_ && keep_) {
      impl_.idle[PlaceOf(request_.url)].push_back(std::move(connection_));
    }
    connection_.reset();
    events_->OnEnd(failure_ ? &*failure_ : nullptr);
  }

  void ArmDeadline() {
    deadline_.expires_after(Seconds(request_.timeout_seconds));
    deadline_.async_wait([weak = weak_from_this()](error_code error) {
      const auto self = weak.lock();
      if (error || self == nullptr) return;
      self->timed_out_ = true;
      self->resolver_.cancel();
      if (self->socket_ != nullptr) self->socket_->cancel(error);
      if (self->connection_ != nullptr) self->connection_->transport.Cancel();
    });
  }

  void Fail(ClientFailure::Kind kind, const std::string& message) {
    if (timed_out_) {
      failure_ = {ClientFailure::Kind::kTimeout,
                  request_.url.Authority() + " did not answer in time"};
    } else {
      failure_ = {kind, message};
    }
  }

  asio::awaitable<void> Connect() {
    const ClientUrl& url = request_.url;
    const std::string port = std::to_string(url.port);
    const auto [unknown, endpoints] = co_await resolver_.async_resolve(url.host, port, kAsTuple);
    if (unknown) {
      Fail(ClientFailure::Kind::kConnect, "cannot resolve " + url.host + ": " + unknown.message());
      co_return;
    }
    tcp::socket socket(impl_.io);
    socket_ = &socket;
    const auto [error, endpoint] = co_await asio::async_connect(socket, endpoints, kAsTuple);
    socket_ = nullptr;
    if (error) {
      Fail(ClientFailure::Kind::kConnect,
           "cannot connect to " + url.Authority() + ": " + error.message());
      co_return;
    }
    error_code ignored;
    socket.set_option(tcp::no_delay(true), ignored);
    connection_ = std::make_unique<Connection>(std::move(socket), url.tls ? impl_.tls : nullptr);
    if (!url.tls) co_return;
    const error_code refused =
        co_await connection_->transport.HandshakeWith(url.host, impl_.verify);
    if (refused) {
      Fail(ClientFailure::Kind::kTls,
           "TLS with " + url.Authority() + " failed: " + refused.message());
    }
  }

  asio::awaitable<void> Talk() {
    text_ = ToText(request_);
    std::string_view rest = text_;
    while (!rest.empty()) {
      const auto [error, count] =
          co_await connection_->transport.WriteSome(asio::buffer(rest.data(), rest.size()));
      if (error) {
        Fail(ClientFailure::Kind::kClosed, "the connection broke: " + error.message());
        co_return;
      }
      rest.remove_prefix(count);
    }
    co_await ReadAnswer();
  }

  asio::awaitable<void> ReadAnswer() {
    Parser parser;
    parser.body_limit(boost::none);
    parser.eager(true);
    bool told_head = false;
    beast::flat_buffer& buffer = connection_->buffer;
    for (;;) {
      error_code error;
      if (buffer.size() > 0) buffer.consume(parser.put(buffer.data(), error));
      if (error && error != http::error::need_more) {
        Fail(ClientFailure::Kind::kProtocol, "the answer is no HTTP: " + error.message());
        co_return;
      }
      if (!told_head && parser.is_header_done()) {
        told_head = true;
        events_->OnHead(static_cast<int>(parser.get().result_int()), ToList(parser.get()));
      }
      if (std::string& body = parser.get().body(); !body.empty()) {
        events_->OnBody(body);
        body.clear();
      }
      if (parser.is_done()) break;
      constexpr size_t kRead = 16u << 10;
      const auto [failed, count] = co_await connection_->transport.ReadSome(buffer.prepare(kRead));
      if (!failed) {
        heard_ = true;
        buffer.commit(count);
        continue;
      }
      // An answer without a length ends with the connection.
      error_code incomplete;
      if (parser.is_header_done() && parser.need_eof()) parser.put_eof(incomplete);
      if (parser.is_done()) break;
      Fail(ClientFailure::Kind::kClosed,
           request_.url.Authority() + " closed the connection before its answer was complete");
      co_return;
    }
    keep_ = parser.get().keep_alive() && !parser.need_eof();
  }

  using Parser = http::response_parser<http::string_body>;

  Impl& impl_;
  ClientRequest request_;
  std::shared_ptr<ClientEvents> events_;
  asio::steady_timer deadline_;
  tcp::resolver resolver_;
  tcp::socket* socket_ = nullptr;  // while it connects
  std::unique_ptr<Connection> connection_;
  std::string text_;
  std::optional<ClientFailure> failure_;
  bool timed_out_ = false;
  bool heard_ = false;  // a byte of the answer has come
  bool keep_ = false;
};

HttpClient::HttpClient(const Options& options) : impl_(std::make_unique<Impl>(options)) {}

HttpClient::~HttpClient() = default;

void HttpClient::Start(ClientRequest request, std::shared_ptr<ClientEvents> events) {
  std::make_shared<Impl::Exchange>(*impl_, std::move(request), std::move(events))->Begin();
}

void HttpClient::At(Clock::time_point when, std::function<void()> callback) {
  auto timer = std::make_shared<asio::steady_timer>(impl_->io, when);
  timer->async_wait([timer, callback = std::move(callback)](error_code error) {
    if (!error) callback();
  });
}

void HttpClient::Run() {
  if (stopped_) return;
  impl_->io.run();
  // Ready for more, unless it was stopped.
  if (!stopped_) impl_->io.restart();
}

void HttpClient::Stop() {
  stopped_ = true;
  impl_->io.stop();
}

}  // namespace server
