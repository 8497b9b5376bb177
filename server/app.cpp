#include "server/app.h"

#include <algorithm>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "server/http_server.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/model_registry.h"
#include "server/routes/routes.h"
#include "server/served_model.h"

namespace server {
namespace {

using scheduler::ModelRuntime;

// Parse, template and tokenize run here: two long prompts do not hold up a third, short one.
constexpr size_t kWorkers = 3;

// After a cut, for the last words to reach the clients.
constexpr auto kFarewell = std::chrono::seconds(2);

std::vector<std::string> Names(const std::vector<ModelRuntime::Options>& models) {
  std::vector<std::string> names;
  for (const ModelRuntime::Options& model : models) {
    if (std::find(names.begin(), names.end(), model.name) != names.end()) {
      throw std::invalid_argument("two models are served under the name '" + model.name + "'");
    }
    names.push_back(model.name);
  }
  return names;
}

}  // namespace

struct App::Impl {
  ServerOptions options;
  std::vector<ModelRuntime::Options> model_options;
  fabric::WorkerTeam& team;
  Metrics metrics;
  ModelRegistry registry;
  scheduler::EngineLoop loop;
  boost::asio::thread_pool workers{kWorkers};
  RouteContext context;
  std::optional<HttpServer> http;
  std::thread loader;

  mutable std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::shared_ptr<ModelRuntime>> runtimes;
  ReadyCallback on_ready;
  std::optional<std::pair<bool, std::string>> ready_result;
  int shutdown_requests = 0;
  bool load_failed = false;
  bool ended = false;

  Impl(ServerOptions server_options, std::vector<ModelRuntime::Options> models,
       fabric::WorkerTeam& worker_team)
      : options(std::move(server_options)),
        model_options(std::move(models)),
        team(worker_team),
        metrics(options.metrics_aliases),
        registry(Names(model_options)),
        context{.options = options,
                .models = registry,
                .metrics = metrics,
                .workers = workers,
                .heartbeat_age = [this] { return loop.HeartbeatAge(); },
                .snapshot = [this] { return Snapshot(); },
                .draining = [this] { return ShuttingDown(); }} {
    for (const ModelRuntime::Options& model : model_options) metrics.ForModel(model.name);
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
    const std::vector<ModelRegistry::Status> statuses = registry.Statuses();
    const std::lock_guard lock(mutex);
    for (const ModelRegistry::Status& status : statuses) {
      MetricsSnapshot::Model model;
      model.name = status.name;
      model.load_progress = status.progress;
      for (const auto& runtime : runtimes) {
        if (runtime->name() != status.name) continue;
        model.ready = true;
        model.stats = loop.Stats(*runtime);
        model.block_size = std::as_const(*runtime).engine().kv_geometry().block_size;
        model.prefix_cache =
            runtime->options().scheduler.prefix_cache != scheduler::PrefixCacheMode::kOff;
      }
      snapshot.models.push_back(std::move(model));
    }
    return snapshot;
  }

  void Load(const ModelRuntime::Options& model) {
    const auto begin = Clock::now();
    auto runtime = ModelRuntime::Load(model, team, [&](const engine::LoadProgress& progress) {
      registry.SetProgress(model.name, progress.fraction);
    });
    const std::chrono::duration<double> seconds = Clock::now() - begin;
    LogInfo("model " + model.name + " loaded from " + model.path + " in " +
            std::to_string(seconds.count()) + " s");
    RestorePrefixes(*runtime);
    const std::lock_guard lock(mutex);
    if (shutdown_requests > 0 && http->active_requests() == 0) return;
    loop.Attach(runtime);
    runtimes.push_back(runtime);
    registry.SetReady(model.name, std::make_shared<RuntimeModel>(loop, runtime));
  }

  // A cache that cannot be kept is no reason not to serve.
  void RestorePrefixes(ModelRuntime& runtime) {
    const std::string& file = runtime.options().scheduler.prefix_cache_file;
    if (file.empty()) return;
    try {
      const uint32_t blocks = runtime.RestorePrefixes(file);
      LogInfo("prefix cache: " + std::to_string(blocks) + " blocks from " + file);
    } catch (const std::exception& error) {
      LogWarning(error.what());
    }
  }

  void SavePrefixes(ModelRuntime& runtime) {
    const std::string& file = runtime.options().scheduler.prefix_cache_file;
    if (file.empty()) return;
    try {
      const uint32_t blocks = runtime.SavePrefixes(file);
      LogInfo("prefix cache: " + std::to_string(blocks) + " blocks to " + file);
    } catch (const std::exception& error) {
      LogWarning(error.what());
    }
  }

  void LoadAll() {
    for (const ModelRuntime::Options& model : model_options) {
      if (ShuttingDown()) return;
      try {
        Load(model);
      } catch (const std::bad_alloc&) {
        return Fail(model, "not enough memory to load " + model.path + " with its KV pool.");
      } catch (const std::exception& error) {
        return Fail(model, error.what());
      }
    }
    Announce(true, "");
  }

  void Fail(const ModelRuntime::Options& model, const std::string& message) {
    registry.SetFailed(model.name, message);
    LogError("model " + model.name + ": " + message);
    Announce(false, message);
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
    const auto timeout = std::chrono::duration<double>(options.drain_timeout_seconds);
    if (idle_before(Clock::now() + std::chrono::duration_cast<Clock::duration>(timeout), 1)) {
      return true;
    }
    DetachAll();
    constexpr int kForEver = 1 << 30;
    idle_before(Clock::now() + kFarewell, kForEver);
    return false;
  }

  void DetachAll() {
    std::vector<std::shared_ptr<ModelRuntime>> attached;
    {
      const std::lock_guard lock(mutex);
      attached = std::exchange(runtimes, {});
    }
    for (const auto& runtime : attached) {
      loop.Detach(runtime);
      SavePrefixes(*runtime);
    }
  }

  // Threads end in the order in which they use each other: workers, HTTP, engine. No event may come
  // any more when the connections go, and they still refer to the loop.
  void End() {
    if (std::exchange(ended, true)) return;
    if (loader.joinable()) loader.join();
    DetachAll();
    workers.join();
    http->Stop();
  }
};

App::App(ServerOptions options, std::vector<ModelRuntime::Options> models, fabric::WorkerTeam& team)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(models), team)) {}

App::~App() {
  BeginShutdown();
  impl_->End();
}

void App::Start() {
  impl_->http->Start();
  const bool tls = !impl_->options.tls_certificate_file.empty();
  LogInfo("listening on " + std::string(tls ? "https://" : "http://") + impl_->options.host + ":" +
          std::to_string(port()));
  impl_->loader = std::thread([this] { impl_->LoadAll(); });
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

void App::Reload() { impl_->http->Reload(); }

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
