#pragma once

#include <functional>
#include <map>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/engine_options.h"
#include "fabric/fabric_options.h"
#include "scheduler/scheduler_options.h"
#include "server/server_options.h"

namespace config {

// A setting that cannot be used. One sentence that names where it was given (file and line,
// environment variable or flag), what was expected and what was found.
class ConfigError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// An option that one model has otherwise than the rest.
struct ModelSetting {
  std::string key;  // "engine.kv_bytes", "load"
  std::vector<std::string> values;
  std::string origin;  // "tern.toml:7"
};

// One model to serve. An empty name means the file's name without ".gguf"; an empty path, the
// bundled model.
struct ModelEntry {
  std::string path;
  std::string name;
  std::vector<ModelSetting> settings = {};
};

// Every option of Tern. The folders below own their options; this only puts them together.
struct Config {
  server::ServerOptions server;
  scheduler::SchedulerOptions scheduler;
  engine::EngineOptions engine;
  fabric::FabricOptions fabric;
  server::ModelPolicy policy;               // of models that have none of their own
  std::vector<ModelEntry> models;           // empty: the bundled model
  std::vector<std::string> model_settings;  // "NAME:KEY=VALUE", until Load() gives them to models
  int threads = 0;                          // of the worker team; 0 = the CPUs this process may use
};

enum class OptionKind { kBoolean, kInteger, kReal, kText, kBytes, kTextList };

// What a front end must know to offer an option. The same option is `section.name` in the TOML
// file, TERN_<SECTION>_<NAME> in the environment and `flag` on the command line.
struct OptionInfo {
  std::string_view section;
  std::string_view name;
  std::string_view flag;  // "--port"; may list a short form too: "-t,--threads"
  OptionKind kind;
  std::string_view value_name;  // "PORT", for help
  std::string_view help;
};

// In the order in which help and docs show them.
std::span<const OptionInfo> Options();

// The default as help shows it: without quotes; empty for lists and for texts that are empty.
std::string DefaultOf(const OptionInfo& info);

// An option given on the command line. Booleans carry "true" or "false"; a list carries one value
// per time the flag was given.
struct FlagValue {
  std::string_view flag;  // OptionInfo::flag
  std::vector<std::string> values;
};

// Where settings come from, weakest first: defaults, OpenTelemetry's variables, file, environment,
// flags.
struct Inputs {
  std::string file = {};  // TOML; empty = none
  std::vector<std::pair<std::string, std::string>> environment = {};
  std::vector<FlagValue> flags = {};
  // The path of the model that is served where none is named; asked for only then. Without it such
  // a configuration has no model, or one without a path.
  std::function<std::string()> default_model = {};
};

struct Loaded {
  Config config;
  // "server.port" -> "tern.toml:3", "TERN_SERVER_PORT" or "--port"; absent = the default.
  std::map<std::string, std::string> origins;
};

// Errors: ConfigError. Unknown keys of the file are errors, and so are unknown TERN_* variables of
// a known section; other variables are ignored.
Loaded Load(const Inputs& inputs);

// The configuration that holds for one model: its own settings over the others. Errors:
// ConfigError.
Config ConfigOf(const Config& config, const ModelEntry& model);

// An option whose value differs between two configurations.
struct Change {
  std::string key;    // "server.ping"
  std::string value;  // the new one, as TOML
  bool live = false;  // a running server can take it over
};
std::vector<Change> Changes(const Config& before, const Config& after);

// The effective settings as TOML that Load() reads back, each with its origin as a comment. API
// keys are counted, not shown.
std::string ToToml(const Loaded& loaded);

// The process's environment variables that begin with TERN_, and those of OpenTelemetry that
// Load() knows.
std::vector<std::pair<std::string, std::string>> TernEnvironment();

}  // namespace config
