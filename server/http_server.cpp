#include "server/http_server.h"

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

#include "server/api_key_options.h"
#include "server/http_session.h"
#include "server/log.h"
#include "server/transport.h"

namespace server {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Connections beyond the limit that are told so at the same time; more are closed without a word.
constexpr uint32_t kMaxRefusals = 64;

// A taken function leaves an empty one in its place, so that places stay valid.
IdleConnections::Place IdleConnections::Add(std::function<void()> give_up) {
  const std::lock_guard lock(mutex_);
  return waiting_.insert(waiting_.end(), std::move(give_up));
}

void IdleConnections::Remove(Place place) {
  const std::lock_guard lock(mutex_);
  waiting_.erase(place);
}

bool IdleConnections::GiveUpOne() {
  std::function<void()> give_up;
  {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(waiting_.begin(), waiting_.end(),
                                    [](const auto& entry) { return entry != nullptr; });
    if (found == waiting_.end()) return false;
    give_up = std::exchange(*found, nullptr);
  }
  give_up();
  return true;
}

struct HttpServer::Impl {
  HttpShared shared;
  std::unique_ptr<asio::io_context> io = std::make_unique<asio::io_context>();
  std::optional<tcp::acceptor> acceptor{asio::make_strand(*io)};
  std::vector<std::thread> threads;
  uint16_t port = 0;

  Impl(ServerOptions options, Router router, std::function<void(const RequestRecord&)> on_request)
      : shared(std::move(options), std::move(router), std::move(on_request)) {}

  void Bind() {
    const auto endpoints = tcp::resolver(*io).resolve(
        shared.options.host, std::to_string(shared.options.port), tcp::resolver::passive);
    const tcp::endpoint endpoint = endpoints.begin()->endpoint();
    acceptor->open(endpoint.protocol());
    acceptor->set_option(tcp::acceptor::reuse_address(true));
    acceptor->bind(endpoint);
    acceptor->listen(asio::socket_base::max_listen_connections);
    port = acceptor->local_endpoint().port();
  }

  asio::awaitable<void> Accept() {
    for (;;) {
      tcp::socket socket(asio::make_strand(*io));
      const auto [error] = co_await acceptor->async_accept(socket, kAsTuple);
      if (error == asio::error::operation_aborted) co_return;
      if (error) {
        // Out of descriptors, mostly: others will close theirs.
        asio::steady_timer pause(co_await asio::this_coro::executor, std::chrono::milliseconds(50));
        co_await pause.async_wait(kAsTuple);
        continue;
      }
      const auto executor = socket.get_executor();
      const uint32_t open = shared.connections;
      if (open >= shared.options.max_connections + kMaxRefusals) continue;  // closes it
      auto session = std::make_shared<HttpSession>(std::move(socket), shared);
      const bool refuse = open >= shared.options.max_connections && !shared.idle.GiveUpOne();
      asio::co_spawn(executor, RunSession(std::move(session), refuse), asio::detached);
    }
  }

  static asio::awaitable<void> RunSession(std::shared_ptr<HttpSession> session, bool refuse) {
    try {
      if (refuse) {
        co_await session->TurnAway();
      } else {
        co_await session->Run();
      }
    } catch (const std::exception& error) {
      LogError(std::string("connection failed: ") + error.what());
    }
  }
};

HttpServer::HttpServer(ServerOptions options, Router router,
                       std::function<void(const RequestRecord&)> on_request)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(router), std::move(on_request))) {}

HttpServer::~HttpServer() { Stop(); }

void HttpServer::Start() {
  const ServerOptions& options = impl_->shared.options;
  try {
    impl_->Bind();
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error("cannot listen on " + options.host + ":" +
                             std::to_string(options.port) + ": " + error.code().message());
  }
  asio::co_spawn(impl_->acceptor->get_executor(), impl_->Accept(), asio::detached);
  constexpr int kDefaultThreads = 2;
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int count = options.threads > 0 ? options.threads : std::min(kDefaultThreads, cores);
  for (int i = 0; i < count; ++i) impl_->threads.emplace_back([this] { impl_->io->run(); });
}

uint16_t HttpServer::port() const { return impl_->port; }

void HttpServer::Reload(const ServerOptions& options) {
  HttpShared& shared = impl_->shared;
  shared.options.TakeLiveValues(options);
  const std::string& key_file = shared.options.api_key_file;
  try {
    if (!key_file.empty()) {
      const std::vector<ApiKey> keys = ReadApiKeyFile(key_file);
      shared.authenticator.Replace(keys);
      LogInfo("reloaded " + std::to_string(keys.size()) + " API keys from " + key_file);
    }
  } catch (const std::invalid_argument& error) {
    LogError(std::string("API keys are kept as they were: the key file ") + error.what());
  }
  try {
    shared.tls.Reload();
    if (shared.tls.Current() != nullptr) LogInfo("reloaded the TLS certificate");
  } catch (const std::runtime_error& error) {
    LogError(std::string("the TLS certificate is kept as it was: ") + error.what());
  }
}

void HttpServer::BeginDrain() { impl_->shared.draining = true; }

uint32_t HttpServer::active_requests() const { return impl_->shared.active_requests; }

uint32_t HttpServer::connections() const { return impl_->shared.connections; }

std::optional<SpanExporter::Stats> HttpServer::trace_stats() const {
  const SpanExporter* exporter = impl_->shared.tracer->exporter();
  if (exporter == nullptr) return std::nullopt;
  return exporter->stats();
}

std::vector<Authenticator::KeyUse> HttpServer::key_uses() const {
  return impl_->shared.authenticator.Uses();
}

void HttpServer::Stop() {
  if (impl_->io == nullptr) return;
  impl_->io->stop();
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->threads.clear();
  // Connections end with the coroutines that serve them, which the context owns.
  impl_->acceptor.reset();
  impl_->io.reset();
}

}  // namespace server
