#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "server/auth.h"
#include "server/router.h"
#include "server/server_options.h"

namespace server {

// What happened to one request, for metrics.
struct RequestRecord {
  std::string route;  // the route's pattern; "other" when none matched: bounded cardinality
  int status = 0;
  double seconds = 0;
  bool client_gone = false;
};

// What the sessions of one server share.
struct HttpShared {
  ServerOptions options;
  Router router;
  Authenticator authenticator;
  std::function<void(const RequestRecord&)> on_request;
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

  // From now on requests for work get 503 shutting_down and every connection closes after its
  // answer. Health and metrics are still answered; requests that have begun go on.
  void BeginDrain();
  uint32_t active_requests() const;
  uint32_t connections() const;

  // Closes every connection and joins the threads. Handlers end where they wait.
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace server
