#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "server/auth.h"
#include "server/router.h"
#include "server/server_options.h"
#include "server/tls_context.h"
#include "server/tracer.h"

namespace server {

// What happened to one request, for metrics.
struct RequestRecord {
  std::string route;  // the route's pattern; "other" when none matched: bounded cardinality
  int status = 0;
  double seconds = 0;
  bool client_gone = false;
};

// The connections that wait for a request, the longest-waiting first: they are given up when a new
// one comes and there are too many.
//
// Threads: any.
class IdleConnections {
 public:
  using Place = std::list<std::function<void()>>::iterator;

  // give_up: closes the connection if it still waits; called at most once, without locks held.
  Place Add(std::function<void()> give_up);
  void Remove(Place place);
  // False when none waits.
  bool GiveUpOne();

 private:
  std::mutex mutex_;
  std::list<std::function<void()>> waiting_;
};

// What the sessions of one server share.
struct HttpShared {
  HttpShared(ServerOptions server_options, Router routes,
             std::function<void(const RequestRecord&)> observer)
      : options(std::move(server_options)),
        router(std::move(routes)),
        authenticator(options.api_keys),
        tls(options.tls_certificate_file, options.tls_key_file),
        tracer(MakeTracer(options)),
        on_request(std::move(observer)) {}

  ServerOptions options;
  Router router;
  Authenticator authenticator;
  TlsContext tls;
  std::shared_ptr<Tracer> tracer;
  std::function<void(const RequestRecord&)> on_request;
  IdleConnections idle;
  std::atomic<uint64_t> body_bytes{0};  // of requests that are read or answered
  std::atomic<bool> draining{false};
  std::atomic<uint32_t> connections{0};
  std::atomic<uint32_t> active_requests{0};  // whose header has arrived and whose answer is not out
};

// Accepts connections and runs one coroutine for each on a few threads.
//
// Threads: all functions from any thread, Start() and Stop() once.
class HttpServer {
 public:
  HttpServer(ServerOptions options, Router router,
             std::function<void(const RequestRecord&)> on_request);
  ~HttpServer();

  // Binds and starts the threads. Throws std::runtime_error naming host, port and the reason.
  void Start();
  uint16_t port() const;

  // As App::Reload().
  void Reload(const ServerOptions& options);

  // From now on requests for work get 503 shutting_down and every connection closes after its
  // answer. Health and metrics are still answered; requests that have begun go on.
  void BeginDrain();
  uint32_t active_requests() const;
  uint32_t connections() const;
  // nullopt when no traces are exported.
  std::optional<SpanExporter::Stats> trace_stats() const;
  // What each API key has used.
  std::vector<Authenticator::KeyUse> key_uses() const;

  // Closes every connection and joins the threads. Handlers end where they wait.
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace server
