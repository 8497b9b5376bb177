#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fabric/worker_team.h"
#include "scheduler/model_runtime.h"
#include "server/model_registry.h"
#include "server/server_options.h"

namespace server {

// One model to serve.
struct ModelSpec {
  scheduler::ModelRuntime::Options runtime;
  ModelPolicy policy;
};

// The HTTP server with its models: wires listener, engine loop, runtimes and metrics.
//
// Use:      construct, Start() (listens at once; /live answers, /ready says "loading" until every
//           model that is not lazy is loaded in the background), then Wait().
// Signals:  none are touched here; the composition root calls BeginShutdown() from its handler
//           thread.
// Threads:  BeginShutdown() and port() from any thread.
class App {
 public:
  App(ServerOptions options, std::vector<ModelSpec> models, fabric::WorkerTeam& team);
  ~App();

  // Binds and starts the threads. Throws std::runtime_error naming host, port and the system's
  // reason.
  void Start();
  uint16_t port() const;

  // Called once when every model of the start is loaded (true), or with the sentence when one
  // failed (false).
  using ReadyCallback = std::function<void(bool ok, const std::string& message)>;
  void OnReady(ReadyCallback callback);

  // Takes over the live values of `options`, and reads API keys and TLS certificate again, from the
  // files that the options of the start name. Files that cannot be used are logged and leave the
  // old ones in place.
  void Reload(const ServerOptions& options);

  // Stops accepting, refuses new requests with 503 shutting_down, lets the accepted ones finish
  // within drain_timeout_seconds, then ends. A second call cancels what is left.
  void BeginShutdown();
  // Until shut down. Returns 0, or 1 when a model failed to load or requests had to be cut.
  int Wait();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace server
