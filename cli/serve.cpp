#include <pthread.h>
#include <sys/resource.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "cli/command.h"
#include "cli/config_flags.h"
#include "cli/model_path.h"
#include "cli/output_file.h"
#include "config/config.h"
#include "fabric/worker_team.h"
#include "server/app.h"
#include "server/log.h"

namespace cli {
namespace {

constexpr const char* kServeExamples =
    "Without --model the bundled demo model is served. Settings come from, weakest first: "
    "defaults,\n"
    "the TOML file of --config, the environment (TERN_SERVER_PORT=9000), flags.\n"
    "\n"
    "Examples:\n"
    "  tern serve\n"
    "  tern serve --model m.gguf --served-model-name bitnet --port 9000\n"
    "  tern serve --host 0.0.0.0 --api-key-file keys.txt\n"
    "  tern serve --config tern.toml --print-config     what would be used, and where it came "
    "from\n"
    "\n"
    "SIGTERM or SIGINT drains: accepted requests finish within --drain-timeout. A second one cuts\n"
    "what is left. SIGHUP reads the configuration, the key file and the TLS certificate again; "
    "what\n"
    "needs a restart is named in the log.";

struct ServeFlags {
  ConfigFlags config;
  bool print_config = false;
};

// Turns SIGTERM and SIGINT into BeginShutdown() and SIGHUP into a reload, on a thread of its own.
// Without a file to read again SIGHUP, which a closed terminal sends, ends the server too.
//
// The signals are blocked in the constructor, so that every thread started later inherits the mask
// and none is interrupted. SIGUSR1 to this thread alone ends it.
class Signals {
 public:
  Signals() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGTERM);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGHUP);
    sigaddset(&signals_, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    // A client that goes away is seen as an error of write().
    std::signal(SIGPIPE, SIG_IGN);
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  ~Signals() { Stop(); }

  // reload: empty when there is nothing to read again.
  void Forward(server::App* app, std::function<void()> reload) {
    thread_ = std::thread([this, app, reload = std::move(reload)] {
      bool draining = false;
      while (true) {
        int signal = 0;
        if (sigwait(&signals_, &signal) != 0) continue;
        if (stopping_) return;
        if (signal == SIGUSR1) continue;
        if (signal == SIGHUP && reload) {
          reload();
          continue;
        }
        std::cerr << (draining ? "tern: shutting down now; what is left is cut\n"
                               : "tern: draining; accepted requests may finish\n");
        draining = true;
        app->BeginShutdown();
      }
    });
  }

  void Stop() {
    if (!thread_.joinable()) return;
    stopping_ = true;
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }

 private:
  sigset_t signals_;
  std::thread thread_;
  std::atomic<bool> stopping_ = false;
};

bool IsLoopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host.starts_with("127.");
}

std::string UrlOf(const server::ServerOptions& options, uint16_t port) {
  // An address that means "every interface" is none that a client can use.
  std::string host = options.host;
  if (host == "0.0.0.0" || host == "::") host = "127.0.0.1";
  if (host.find(':') != std::string::npos) host = "[" + host + "]";
  const bool tls = !options.tls_certificate_file.empty();
  return (tls ? "https://" : "http://") + host + ":" + std::to_string(port);
}

std::string CurlOf(const std::string& url, const std::string& model, bool with_key) {
  std::string curl = "curl " + url + "/v1/chat/completions -H 'Content-Type: application/json'";
  if (with_key) curl += " -H \"Authorization: Bearer $TERN_API_KEY\"";
  return curl + " -d '{\"model\": \"" + model +
         "\", \"messages\": [{\"role\": \"user\", \"content\": \"Do you like movies?\"}], "
         "\"temperature\": 0}'";
}

std::vector<server::ModelSpec> ModelsOf(const config::Config& config) {
  std::vector<server::ModelSpec> models;
  for (const config::ModelEntry& model : config.models) {
    const config::Config own = config::ConfigOf(config, model);
    models.push_back({.runtime = {.name = model.name,
                                  .path = model.path,
                                  .fabric = own.fabric,
                                  .engine = own.engine,
                                  .scheduler = own.scheduler},
                      .policy = own.policy});
  }
  return models;
}

void Warn(const server::ServerOptions& options) {
  if (!IsLoopback(options.host) && options.api_keys.empty()) {
    std::cerr << "tern: warning: listening on " << options.host
              << " without an API key; anyone who reaches this port can use the model "
                 "(--api-key-file)\n";
  }
}

// Paths that were mistyped are told before anything is said to listen.
void CheckFiles(const config::Config& config) {
  for (const config::ModelEntry& model : config.models) {
    const config::Config own = config::ConfigOf(config, model);
    // Written when the server ends: too late to learn that it cannot be.
    const std::string& cache = own.scheduler.prefix_cache_file;
    if (!cache.empty()) CheckOutputFile(cache, {model.path});
    if (own.policy.lazy || std::ifstream(model.path)) continue;
    throw std::runtime_error("cannot open the model " + model.path + ": " + std::strerror(errno));
  }
}

// Every connection is a descriptor, and the usual soft limit of 1024 is below what is served.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

// Reads the configuration again and hands over what a running server can take. What is wrong with
// it changes nothing; what needs a restart is named.
void Reload(const ServeFlags& flags, config::Config* current, server::App* app) {
  try {
    const config::Loaded fresh = flags.config.Load(BundledModelPath);
    for (const config::Change& change : config::Changes(*current, fresh.config)) {
      if (change.live) {
        server::LogInfo("reloaded " + change.key + " = " + change.value);
      } else {
        server::LogWarning(change.key + " has changed, which needs a restart");
      }
    }
    current->server.TakeLiveValues(fresh.config.server);
  } catch (const std::exception& error) {
    server::LogError(std::string("the configuration is kept as it was: ") + error.what());
  }
  app->Reload(current->server);
}

int RunServe(const ServeFlags& flags) {
  const config::Loaded loaded = flags.config.Load(BundledModelPath);
  const config::Config& config = loaded.config;
  if (flags.print_config) {
    std::cout << config::ToToml(loaded) << std::flush;
    return kSuccess;
  }
  CheckFiles(config);
  Warn(config.server);
  if (config.server.log_json) server::UseJsonLog();
  RaiseDescriptorLimit();
  Signals signals;
  fabric::WorkerTeam team(config.threads);
  server::App app(config.server, ModelsOf(config), team);
  const std::string model = config.models.front().name;
  app.OnReady([&](bool ok, const std::string& message) {
    if (!ok) {
      std::cerr << "tern: " << message << "\n";
      return;
    }
    const std::string url = UrlOf(config.server, app.port());
    // One write: other threads log to the same stream.
    std::cerr << "tern: ready at " + url + " (model " + model + ")\n" +
                     CurlOf(url, model, !config.server.api_keys.empty()) + "\n";
  });
  app.Start();
  config::Config current = config;
  const bool reloads = !flags.config.file().empty() || !config.server.api_key_file.empty() ||
                       !config.server.tls_certificate_file.empty();
  signals.Forward(&app, reloads ? [&] { Reload(flags, &current, &app); } : std::function<void()>());
  const int result = app.Wait();
  signals.Stop();
  return result;
}

}  // namespace

void AddServe(CLI::App& root, Run* run) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = root.add_subcommand("serve", "Serve models over HTTP (OpenAI's API)");
  command->footer(kServeExamples);
  command->add_flag("--print-config", flags->print_config,
                    "print the effective settings as TOML and end");
  flags->config.AddTo(*command, {"model", "server", "scheduler", "engine", "fabric"});
  command->callback([flags, run] { *run = [flags] { return RunServe(*flags); }; });
}

}  // namespace cli
