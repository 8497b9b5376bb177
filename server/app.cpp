#include "server/app.h"

#include <algorithm>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "fabric/cpu/isa.h"
#include "server/chat_syntax.h"
#include "server/http_server.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/routes/routes.h"
#include "server/runtime_source.h"

namespace server {
namespace {

using scheduler::ModelRuntime;

// Parse, template and tokenize run here: two long prompts do not hold up a third, short one.
constexpr size_t kWorkers = 3;

// After a cut, for the last words to reach the clients.
constexpr auto kFarewell = std::chrono::seconds(2);

std::vector<ModelRegistry::Named> Named(const std::vector<ModelSpec>& models) {
  std::vector<ModelRegistry::Named> named;
  for (const ModelSpec& model : models) {
    const std::string& name = model.runtime.name;
    if (std::any_of(named.begin(), named.end(),
                    [&](const auto& other) { return other.name == name; })) {
      throw std::invalid_argument("two models are served under the name '" + name + "'");
    }
    named.push_back({name, model.policy});
  }
  return named;
}

// Where memory is limited, automatic KV pools leave each model its share.
std::vector<ModelRuntime::Options> Runtimes(std::vector<ModelSpec> models, uint64_t memory_bytes) {
  std::vector<ModelRuntime::Options> runtimes;
  for (ModelSpec& model : models) {
    if (memory_bytes > 0) model.runtime.engine.memory_share = memory_bytes / models.size();
    runtimes.push_back(std::move(model.runtime));
  }
  return runtimes;
}

ModelLimits LimitsOf(const ServerOptions& options) {
  return {.memory_bytes = options.model_memory_bytes, .max_waiting = options.max_model_waiting};
}

}  // namespace

struct App::Impl {
  ServerOptions options;
  Metrics metrics;
  mutable EnergyMeter energy;
  scheduler::EngineLoop loop;
  RuntimeSource source;
  ModelRegistry registry;
  boost::asio::thread_pool workers{kWorkers};
  StreamStore streams;
  RouteContext context;
  std::optional<HttpServer> http;

  mutable std::mutex mutex;
  std::condition_variable changed;
  ReadyCallback on_ready;
  std::optional<std::pair<bool, std::string>> ready_result;
  int shutdown_requests = 0;
  bool load_failed = false;
  bool ended = false;

  Impl(ServerOptions server_options, const std::vector<ModelSpec>& models, fabric::WorkerTeam& team)
      : options(std::move(server_options)),
        metrics(options.metrics_aliases),
        energy({.root = options.powercap_root}),
        source(Runtimes(models, options.model_memory_bytes), loop, team,
               {.tool_parser = options.tool_parser, .reasoning_parser = options.reasoning_parser}),
        registry(Named(models), LimitsOf(options), source),
        streams({.buffer_bytes = options.stream_buffer_bytes,
                 .seconds = options.stream_ttl_seconds,
                 .streams = options.max_streams}),
        context{.options = options,
                .models = registry,
                .streams = streams,
                .metrics = metrics,
                .workers = workers,
                .heartbeat_age = [this] { return loop.HeartbeatAge(); },
                .snapshot = [this] { return Snapshot(); },
                .draining = [this] { return ShuttingDown(); }} {
    for (const ModelSpec& model : models) metrics.ForModel(model.runtime.name);
    loop.SetStepObserver(
        [this](const ModelRuntime& runtime, const engine::StepStats& stats, uint32_t) {
          metrics.ForModel(runtime.name())->OnStep(stats.tokens);
        });
    Router router;
    AddApiRoutes(context, router);
    AddWebRoutes(router);
    http.emplace(options, std::move(router), [this](const RequestRecord& record) {
      metrics.OnHttpRequest(record.route, record.status, record.seconds);
    });
  }

  bool ShuttingDown() const {
    const std::lock_guard lock(mutex);
    return shutdown_requests > 0;
  }

  MetricsSnapshot Snapshot() const {
    MetricsSnapshot snapshot;
    snapshot.heartbeat_age_seconds = loop.HeartbeatAge();
    snapshot.http_connections = http->connections();
    snapshot.http_active_requests = http->active_requests();
    snapshot.draining = ShuttingDown();
    snapshot.model_memory_limit = registry.memory_limit();
    snapshot.traces = http->trace_stats();
    snapshot.energy = energy.Read();
    snapshot.kernels = fabric::IsaName(fabric::ActiveIsa());
    if (options.metrics_keys) snapshot.keys = http->key_uses();
    for (ModelRegistry::Status& status : registry.Statuses()) {
      RuntimeSource::View view = source.Look(snapshot.models.size());
      snapshot.models.push_back({.name = status.name,
                                 .ready = status.state == ModelRegistry::State::kReady,
                                 .loaded = view.loaded,
                                 .status = std::move(status),
                                 .stats = std::move(view.stats),
                                 .block_size = view.block_size,
                                 .prefix_cache = view.prefix_cache,
                                 .speculation = view.speculation,
                                 .max_sequences = view.max_sequences});
    }
    return snapshot;
  }

  void Announce(bool ok, const std::string& message) {
    ReadyCallback callback;
    {
      const std::lock_guard lock(mutex);
      load_failed = !ok;
      ready_result = {ok, message};
      callback = on_ready;
    }
    if (callback) callback(ok, message);
    if (!ok) RequestShutdown();
  }

  void RequestShutdown() {
    http->BeginDrain();
    registry.BeginDrain();
    const std::lock_guard lock(mutex);
    ++shutdown_requests;
    changed.notify_all();
  }

  // True when every request got its whole answer.
  bool Drain() {
    const auto idle_before = [this](Clock::time_point deadline, int patience) {
      std::unique_lock lock(mutex);
      while (http->active_requests() > 0) {
        if (Clock::now() >= deadline || shutdown_requests > patience) return false;
        changed.wait_for(lock, std::chrono::milliseconds(10));
      }
      return true;
    };
    const auto timeout =
        std::chrono::duration<double>(static_cast<double>(options.drain_timeout_seconds));
    if (idle_before(Clock::now() + std::chrono::duration_cast<Clock::duration>(timeout), 1)) {
      return true;
    }
    registry.Cut();
    constexpr int kForEver = 1 << 30;
    idle_before(Clock::now() + kFarewell, kForEver);
    return false;
  }

  // Threads end in the order in which they use each other: workers, HTTP, engine. No event may come
  // any more when the connections go, and they still refer to the loop.
  void End() {
    if (std::exchange(ended, true)) return;
    registry.Stop();
    workers.join();
    streams.Clear();
    http->Stop();
  }
};

App::App(ServerOptions options, std::vector<ModelSpec> models, fabric::WorkerTeam& team)
    : impl_(std::make_unique<Impl>(std::move(options), models, team)) {}

App::~App() {
  BeginShutdown();
  impl_->End();
}

void App::Start() {
  impl_->http->Start();
  const bool tls = !impl_->options.tls_certificate_file.empty();
  LogInfo("listening on " + std::string(tls ? "https://" : "http://") + impl_->options.host + ":" +
          std::to_string(port()));
  if (!impl_->energy.readable()) {
    LogInfo("energy is not measured: " + impl_->energy.problem());
  }
  impl_->registry.Start(
      [impl = impl_.get()](bool ok, const std::string& error) { impl->Announce(ok, error); });
}

uint16_t App::port() const { return impl_->http->port(); }

void App::OnReady(ReadyCallback callback) {
  std::optional<std::pair<bool, std::string>> result;
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->on_ready = callback;
    result = impl_->ready_result;
  }
  if (result && callback) callback(result->first, result->second);
}

void App::Reload(const ServerOptions& options) {
  impl_->options.TakeLiveValues(options);
  impl_->http->Reload(options);
}

void App::BeginShutdown() { impl_->RequestShutdown(); }

int App::Wait() {
  {
    std::unique_lock lock(impl_->mutex);
    impl_->changed.wait(lock, [this] { return impl_->shutdown_requests > 0; });
  }
  LogInfo("shutting down: " + std::to_string(impl_->http->active_requests()) +
          " requests are finishing");
  const bool complete = impl_->Drain();
  if (!complete) LogWarning("requests were cut at shutdown");
  impl_->End();
  const std::lock_guard lock(impl_->mutex);
  return complete && !impl_->load_failed ? 0 : 1;
}

}  // namespace server
