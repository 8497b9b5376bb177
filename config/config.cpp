#include "config/config.h"

#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <cctype>
#include <filesystem>
#include <optional>
#include <set>
#include <sstream>
#include <system_error>
#include <utility>

#include "config/option_table.h"

namespace config {
namespace {

std::string Key(const OptionInfo& info) {
  return std::string(info.section) + "." + std::string(info.name);
}

// "TERN_SERVER_PORT".
std::string VariableName(const OptionInfo& info) {
  std::string name = "TERN_" + std::string(info.section) + "_" + std::string(info.name);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  return name;
}

// The long form: "-t,--threads" -> "--threads".
std::string FlagName(const OptionInfo& info) {
  return std::string(info.flag.substr(info.flag.find("--")));
}

const Option* FindOption(std::string_view section, std::string_view name) {
  for (const Option& option : OptionTable()) {
    if (option.info.section == section && option.info.name == name) return &option;
  }
  return nullptr;
}

bool IsSection(std::string_view name) {
  return std::any_of(OptionTable().begin(), OptionTable().end(),
                     [&](const Option& option) { return option.info.section == name; });
}

// Levenshtein distance, to suggest the key that was meant.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitute = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substitute});
    }
  }
  return row[b.size()];
}

// " (did you mean X?)", or nothing when no candidate is close.
std::string Suggestion(const std::string& unknown, const std::vector<std::string>& candidates) {
  const std::string* best = nullptr;
  size_t best_distance = 4;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(unknown, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = &candidate;
    }
  }
  return best == nullptr ? "" : " (did you mean " + *best + "?)";
}

// The option that a model's own setting is about; nullptr for "pinned" and for what is none.
const Option* OptionOfModelSetting(const std::string& key) {
  if (key == "load") return FindOption("server", "model_load");
  if (key == "idle_unload") return FindOption("server", "model_idle_unload");
  const size_t dot = key.find('.');
  const std::string section = key.substr(0, dot);
  // The threads are the team's, which all models share.
  if (dot == std::string::npos || key == "engine.threads") return nullptr;
  if (section != "engine" && section != "scheduler" && section != "fabric") return nullptr;
  return FindOption(section, key.substr(dot + 1));
}

constexpr char kPinned[] = "pinned";

std::optional<OptionKind> ModelSettingKind(const std::string& key) {
  if (key == kPinned) return OptionKind::kBoolean;
  const Option* option = OptionOfModelSetting(key);
  return option == nullptr ? std::nullopt : std::optional(option->info.kind);
}

std::vector<std::string> ModelSettingKeys() {
  std::vector<std::string> keys = {kPinned, "load", "idle_unload", "path", "id"};
  for (const Option& option : OptionTable()) {
    if (OptionOfModelSetting(Key(option.info)) != nullptr) keys.push_back(Key(option.info));
  }
  return keys;
}

void Apply(const ModelSetting& setting, Config* config) {
  try {
    if (setting.key == kPinned) {
      const std::string& value = setting.values.at(0);
      if (value != "true" && value != "false") {
        throw std::invalid_argument("must be true or false, not \"" + value + "\"");
      }
      config->policy.pinned = value == "true";
    } else {
      OptionOfModelSetting(setting.key)->set(*config, setting.values);
    }
  } catch (const std::invalid_argument& error) {
    throw ConfigError(setting.origin + ": " + setting.key + " of a model " + error.what() + ".");
  }
}

class Loader {
 public:
  Loaded Run(const Inputs& inputs) {
    ApplyTelemetryEnvironment(inputs.environment);
    if (!inputs.file.empty()) ApplyFile(inputs.file);
    ApplyEnvironment(inputs.environment);
    ApplyFlags(inputs.flags);
    if (inputs.default_model) NameDefaultModel(inputs.default_model);
    Finish();
    return std::move(loaded_);
  }

 private:
  // `subject` opens the error's sentence; `origin` is what --print-config shows.
  void Set(const Option& option, const std::vector<std::string>& values, const std::string& subject,
           const std::string& origin) {
    try {
      option.set(loaded_.config, values);
    } catch (const std::invalid_argument& error) {
      throw ConfigError(subject + " " + error.what() + ".");
    }
    loaded_.origins[Key(option.info)] = origin;
    // A key file and keys given one by one replace each other; only the last one is the origin.
    if (option.info.name == "api_key_file") loaded_.origins.erase("server.api_keys");
    if (option.info.name == "api_keys") loaded_.origins.erase("server.api_key_file");
  }

  void ApplyFile(const std::string& path);
  void ApplyTable(const std::string& path, const std::string& section, const toml::table& table);
  void ApplyModels(const std::string& path, const toml::array& models);
  void AddModelSettings(const std::string& path, const std::string& name, const toml::node& node,
                        std::vector<ModelSetting>* settings);
  void ApplyTelemetryEnvironment(
      const std::vector<std::pair<std::string, std::string>>& environment);
  void ApplyEnvironment(const std::vector<std::pair<std::string, std::string>>& environment);
  void ApplyFlags(const std::vector<FlagValue>& flags);
  void Finish();
  void NameDefaultModel(const std::function<std::string()>& path);
  void CheckModelNames();
  void GiveSettingsToModels();
  void Check(const Config& config, const std::vector<ModelSetting>& own) const;
  void CheckSharedFiles() const;
  void CheckTls() const;

  Loaded loaded_;
};

std::string Location(const std::string& path, const toml::node& node) {
  return path + ":" + std::to_string(node.source().begin.line);
}

[[noreturn]] void RefuseToml(const std::string& where, const std::string& key,
                             const std::string& expected) {
  throw ConfigError(where + ": " + key + " must be " + expected + ".");
}

std::string ScalarText(const toml::node& node, OptionKind kind, const std::string& where,
                       const std::string& key) {
  switch (kind) {
    case OptionKind::kBoolean:
      if (const auto value = node.value_exact<bool>()) return *value ? "true" : "false";
      RefuseToml(where, key, "true or false");
    case OptionKind::kInteger:
      if (const auto value = node.value_exact<int64_t>()) return std::to_string(*value);
      RefuseToml(where, key, "an integer");
    case OptionKind::kReal: {
      const auto value = node.is_number() ? node.value<double>() : std::nullopt;
      if (!value) RefuseToml(where, key, "a number");
      std::ostringstream text;
      text.precision(17);
      text << *value;
      return text.str();
    }
    case OptionKind::kBytes:
      if (const auto value = node.value_exact<int64_t>()) return std::to_string(*value);
      if (const auto value = node.value_exact<std::string>()) return *value;
      RefuseToml(where, key, "a number of bytes or a text such as \"4GiB\"");
    case OptionKind::kText:
    case OptionKind::kTextList:
      if (const auto value = node.value_exact<std::string>()) return *value;
      RefuseToml(where, key, "a text in quotes");
  }
  return "";
}

std::vector<std::string> TomlValues(const toml::node& node, OptionKind kind,
                                    const std::string& path, const std::string& key) {
  if (kind != OptionKind::kTextList) return {ScalarText(node, kind, Location(path, node), key)};
  const toml::array* array = node.as_array();
  if (array == nullptr) RefuseToml(Location(path, node), key, "a list of texts");
  std::vector<std::string> values;
  for (const toml::node& element : *array) {
    values.push_back(ScalarText(element, kind, Location(path, element), key));
  }
  return values;
}

// What is wrong with a top-level name of the file.
std::string WhyNoSection(const std::string& name, const toml::node& node) {
  if (name == "models") return "each model has a table of its own, [[models]], not [models].";
  std::set<std::string> sections;
  for (const Option& option : OptionTable()) {
    sections.emplace(option.info.section);
    if (node.is_table() || option.info.name != name) continue;
    return "\"" + name + "\" stands outside of its section [" + std::string(option.info.section) +
           "].";
  }
  return "unknown section \"" + name + "\"" + Suggestion(name, {sections.begin(), sections.end()}) +
         ".";
}

// What is wrong with a key that is none of one model's.
std::string WhyNoModelSetting(const std::string& key) {
  const size_t dot = key.find('.');
  if (dot != std::string::npos && FindOption(key.substr(0, dot), key.substr(dot + 1)) != nullptr) {
    return "\"" + key + "\" is of all models together and stands in [" + key.substr(0, dot) + "].";
  }
  return "unknown setting \"" + key + "\" of a model" + Suggestion(key, ModelSettingKeys()) + ".";
}

void Loader::ApplyFile(const std::string& path) {
  toml::table document;
  // The parser takes it for an empty file. A container's mount of a file that is not there is one.
  std::error_code unknown;
  if (std::filesystem::is_directory(path, unknown)) {
    throw ConfigError(path + ": is a folder, expected a TOML file.");
  }
  try {
    document = toml::parse_file(path);
  } catch (const toml::parse_error& error) {
    // Line 0: the file could not be opened.
    const auto line = error.source().begin.line;
    throw ConfigError(path + (line == 0 ? "" : ":" + std::to_string(line)) + ": " +
                      std::string(error.description()) + ".");
  }
  for (const auto& [key, node] : document) {
    const std::string section(key.str());
    if ((section == "models" || section == "model") && node.is_array()) {
      ApplyModels(path, *node.as_array());
    } else if (node.is_table() && IsSection(section)) {
      ApplyTable(path, section, *node.as_table());
    } else {
      throw ConfigError(Location(path, node) + ": " + WhyNoSection(section, node));
    }
  }
}

void Loader::ApplyTable(const std::string& path, const std::string& section,
                        const toml::table& table) {
  std::vector<std::string> known;
  for (const Option& option : OptionTable()) {
    if (option.info.section == section) known.emplace_back(option.info.name);
  }
  for (const auto& [key, node] : table) {
    const std::string name(key.str());
    if (FindOption(section, name) == nullptr) {
      throw ConfigError(path + ":" + std::to_string(key.source().begin.line) + ": unknown key \"" +
                        name + "\" in [" + section + "]" + Suggestion(name, known) + ".");
    }
  }
  // In the table's order, which options that depend on each other rely on.
  for (const std::string& name : known) {
    const toml::node* node = table.get(name);
    if (node == nullptr) continue;
    const Option& option = *FindOption(section, name);
    const std::string where = Location(path, *node);
    const std::string key = section + "." + name;
    Set(option, TomlValues(*node, option.info.kind, path, key), where + ": " + key, where);
  }
}

// [[models]] tables, one per model: `path`, perhaps `id`, and settings of its own. [[model]] and
// `name` are the same.
void Loader::ApplyModels(const std::string& path, const toml::array& models) {
  std::vector<std::string> paths, names;
  std::vector<std::vector<ModelSetting>> settings;
  for (const toml::node& node : models) {
    const toml::table* table = node.as_table();
    if (table == nullptr) RefuseToml(Location(path, node), "[[models]]", "a table");
    paths.emplace_back();
    names.emplace_back();
    settings.emplace_back();
    for (const auto& [key, value] : *table) {
      const std::string name(key.str());
      if (name == "path") {
        paths.back() = ScalarText(value, OptionKind::kText, Location(path, value), "models.path");
      } else if (name == "id" || name == "name") {
        names.back() = ScalarText(value, OptionKind::kText, Location(path, value), "models.id");
      } else {
        AddModelSettings(path, name, value, &settings.back());
      }
    }
    if (paths.back().empty()) {
      RefuseToml(Location(path, node), "models.path", "given in every [[models]]");
    }
  }
  const std::string where = Location(path, models);
  Set(*FindOption("model", "path"), paths, where + ": models.path", where);
  Set(*FindOption("model", "name"), names, where + ": models.id", where);
  for (size_t i = 0; i < settings.size(); ++i) {
    loaded_.config.models[i].settings = std::move(settings[i]);
  }
}

// `load = "lazy"`, or the table `engine` of `engine.kv_bytes = "1GiB"`.
void Loader::AddModelSettings(const std::string& path, const std::string& name,
                              const toml::node& node, std::vector<ModelSetting>* settings) {
  const auto add = [&](const std::string& key, const toml::node& value) {
    const std::string where = Location(path, value);
    const std::optional<OptionKind> kind = ModelSettingKind(key);
    if (!kind) {
      throw ConfigError(where + ": " + WhyNoModelSetting(key));
    }
    settings->push_back({key, TomlValues(value, *kind, path, "models." + key), where});
  };
  const toml::table* table = node.as_table();
  if (table == nullptr) return add(name, node);
  for (const auto& [key, value] : *table) add(name + "." + std::string(key.str()), value);
}

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  // One empty part, which is refused: a secret that was not filled in must not open the server.
  if (parts.empty()) parts.emplace_back();
  return parts;
}

// Which of OpenTelemetry's variables we obey, as options of [server].
constexpr std::pair<std::string_view, std::string_view> kTelemetryVariables[] = {
    {"OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint"},
    {"OTEL_EXPORTER_OTLP_HEADERS", "otlp_headers"},
    {"OTEL_SERVICE_NAME", "trace_service"},
};

// They come from the platform, for whatever runs there: weaker than all that is said to Tern.
void Loader::ApplyTelemetryEnvironment(
    const std::vector<std::pair<std::string, std::string>>& environment) {
  for (const auto& [variable, value] : environment) {
    for (const auto& [name, option] : kTelemetryVariables) {
      if (variable != name || value.empty()) continue;
      const bool list = option == "otlp_headers";
      Set(*FindOption("server", option),
          list ? SplitAtCommas(value) : std::vector<std::string>{value}, variable, variable);
    }
  }
}

void Loader::ApplyEnvironment(const std::vector<std::pair<std::string, std::string>>& environment) {
  std::map<std::string, std::string> given(environment.begin(), environment.end());
  std::vector<std::string> known;
  for (const Option& option : OptionTable()) {
    const std::string variable = VariableName(option.info);
    known.push_back(variable);
    const auto found = given.find(variable);
    if (found == given.end()) continue;
    const bool list = option.info.kind == OptionKind::kTextList;
    Set(option, list ? SplitAtCommas(found->second) : std::vector<std::string>{found->second},
        variable, variable);
    given.erase(found);
  }
  for (const auto& [variable, value] : given) {
    if (!variable.starts_with("TERN_")) continue;
    std::string section = variable.substr(5, variable.find('_', 5) - 5);
    std::transform(section.begin(), section.end(), section.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    if (!IsSection(section)) continue;
    throw ConfigError("The environment variable " + variable + " is no option of section \"" +
                      section + "\"" + Suggestion(variable, known) + ".");
  }
}

void Loader::ApplyFlags(const std::vector<FlagValue>& flags) {
  for (const Option& option : OptionTable()) {
    const auto found = std::find_if(flags.begin(), flags.end(), [&](const FlagValue& flag) {
      return flag.flag == option.info.flag;
    });
    if (found == flags.end()) continue;
    const std::string name = FlagName(option.info);
    Set(option, found->values, name, name);
  }
}

void Loader::NameDefaultModel(const std::function<std::string()>& path) {
  std::vector<ModelEntry>& models = loaded_.config.models;
  if (models.empty()) models.emplace_back();
  if (models.front().path.empty()) models.front().path = path();
}

void Loader::CheckModelNames() {
  std::set<std::string> names;
  for (ModelEntry& model : loaded_.config.models) {
    if (model.name.empty()) {
      const size_t slash = model.path.find_last_of('/');
      model.name = slash == std::string::npos ? model.path : model.path.substr(slash + 1);
      if (model.name.ends_with(".gguf")) model.name.resize(model.name.size() - 5);
    }
    if (!names.insert(model.name).second) {
      throw ConfigError(
          "Two models have the name \"" + model.name +
          "\"; give each its own with --served-model-name or the id of its [[models]].");
    }
  }
}

// "NAME:KEY=VALUE", to the model of that name.
void Loader::GiveSettingsToModels() {
  const auto found = loaded_.origins.find("model.set");
  const std::string origin = found == loaded_.origins.end() ? "" : found->second;
  for (const std::string& text : std::exchange(loaded_.config.model_settings, {})) {
    const size_t equals = text.find('=');
    const size_t colon = text.substr(0, equals).rfind(':');
    if (equals == std::string::npos || colon == std::string::npos) {
      throw ConfigError(origin + " must be NAME:KEY=VALUE, not \"" + text + "\".");
    }
    const std::string name = text.substr(0, colon);
    const std::string key = text.substr(colon + 1, equals - colon - 1);
    std::vector<ModelEntry>& models = loaded_.config.models;
    const auto model = std::find_if(models.begin(), models.end(),
                                    [&](const ModelEntry& entry) { return entry.name == name; });
    if (model == models.end()) {
      throw ConfigError(origin + " names the model \"" + name + "\", which is not served.");
    }
    const std::optional<OptionKind> kind = ModelSettingKind(key);
    if (!kind) {
      throw ConfigError(origin + ": " + WhyNoModelSetting(key));
    }
    ModelSetting setting{key, {text.substr(equals + 1)}, origin};
    const auto earlier = std::find_if(model->settings.begin(), model->settings.end(),
                                      [&](const ModelSetting& other) { return other.key == key; });
    if (earlier == model->settings.end()) {
      model->settings.push_back(std::move(setting));
    } else if (*kind == OptionKind::kTextList && earlier->origin == origin) {
      earlier->values.push_back(setting.values.front());
    } else {
      *earlier = std::move(setting);
    }
  }
}

// What one option alone cannot show. own: the settings that one model has itself.
void Loader::Check(const Config& config, const std::vector<ModelSetting>& own) const {
  const auto origin = [&](const std::string& key) {
    for (const ModelSetting& setting : own) {
      if (setting.key == key) return setting.origin;
    }
    const auto found = loaded_.origins.find(key);
    return found == loaded_.origins.end() ? "the default" : found->second;
  };
  if (config.engine.kv_block_size % 16 != 0) {
    throw ConfigError("engine.kv_block_size must be a multiple of 16, not " +
                      std::to_string(config.engine.kv_block_size) + " (from " +
                      origin("engine.kv_block_size") + ").");
  }
  const uint32_t batch_tokens = config.scheduler.max_batch_tokens;
  if (batch_tokens > 0 && config.scheduler.max_sequences > batch_tokens) {
    throw ConfigError("scheduler.max_sequences (" + std::to_string(config.scheduler.max_sequences) +
                      ", from " + origin("scheduler.max_sequences") +
                      ") must not exceed scheduler.max_batch_tokens (" +
                      std::to_string(config.scheduler.max_batch_tokens) + ", from " +
                      origin("scheduler.max_batch_tokens") +
                      "), because each running sequence takes a token per step.");
  }
  if (config.scheduler.speculation == scheduler::Speculation::kModel &&
      config.scheduler.draft_model.empty()) {
    throw ConfigError("scheduler.speculate = \"model\" (from " + origin("scheduler.speculate") +
                      ") needs a scheduler.draft_model.");
  }
}

// What is of one model cannot be given for all of several.
void Loader::CheckSharedFiles() const {
  const Config& config = loaded_.config;
  if (config.models.size() < 2) return;
  const std::string instead = ") needs a server of one model, but " +
                              std::to_string(config.models.size()) +
                              " are given; set it in its [[models]] or with --model-set";
  if (!config.engine.lora.empty()) {
    throw ConfigError("engine.lora (from " + loaded_.origins.at("engine.lora") + instead +
                      ", for an adapter fits one model only.");
  }
  if (!config.scheduler.draft_model.empty()) {
    throw ConfigError("scheduler.draft_model (from " + loaded_.origins.at("scheduler.draft_model") +
                      instead + ", for a draft model has the vocabulary of one model.");
  }
  if (!config.scheduler.prefix_cache_file.empty()) {
    throw ConfigError("scheduler.prefix_cache_file (from " +
                      loaded_.origins.at("scheduler.prefix_cache_file") + instead + ".");
  }
}

void Loader::CheckTls() const {
  const server::ServerOptions& server = loaded_.config.server;
  const bool certificate = !server.tls_certificate_file.empty();
  if (certificate == !server.tls_key_file.empty()) return;
  const std::string given = certificate ? "server.tls_certificate" : "server.tls_key";
  throw ConfigError(given + " (from " + loaded_.origins.at(given) + ") needs " +
                    (certificate ? "server.tls_key" : "server.tls_certificate") +
                    ": TLS takes a certificate and its private key.");
}

void Loader::Finish() {
  Config& config = loaded_.config;
  Check(config, {});
  CheckTls();
  CheckSharedFiles();
  // The workspace holds exactly what one step may compute.
  const uint32_t batch_tokens = config.scheduler.max_batch_tokens;
  if (batch_tokens > 0) config.engine.max_batch_tokens = batch_tokens;
  CheckModelNames();
  GiveSettingsToModels();
  std::set<std::string> files;
  for (const ModelEntry& model : config.models) {
    const Config own = ConfigOf(config, model);
    Check(own, model.settings);
    const std::string& file = own.scheduler.prefix_cache_file;
    if (!file.empty() && !files.insert(file).second) {
      throw ConfigError("Two models have the scheduler.prefix_cache_file \"" + file +
                        "\"; give each its own.");
    }
  }
}

}  // namespace

std::span<const OptionInfo> Options() {
  static const std::vector<OptionInfo> infos = [] {
    std::vector<OptionInfo> list;
    for (const Option& option : OptionTable()) list.push_back(option.info);
    return list;
  }();
  return infos;
}

std::string DefaultOf(const OptionInfo& info) {
  if (info.kind == OptionKind::kTextList) return {};
  const auto table = OptionTable();
  const auto option = std::find_if(table.begin(), table.end(), [&](const Option& candidate) {
    return candidate.info.flag == info.flag;
  });
  assert(option != table.end());
  std::string text = option->get(Config());
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  if (text.starts_with('"')) text = text.substr(1, text.size() - 2);
  return text;
}

Loaded Load(const Inputs& inputs) { return Loader().Run(inputs); }

Config ConfigOf(const Config& config, const ModelEntry& model) {
  Config own = config;
  for (const ModelSetting& setting : model.settings) Apply(setting, &own);
  if (own.scheduler.max_batch_tokens > 0) {
    own.engine.max_batch_tokens = own.scheduler.max_batch_tokens;
  }
  return own;
}

namespace {

std::string ModelToToml(const Config& config, const ModelEntry& model) {
  std::string text =
      "[[models]]\nid = " + Quoted(model.name) + "\npath = " + Quoted(model.path) + "\n";
  const Config own = ConfigOf(config, model);
  for (const ModelSetting& setting : model.settings) {
    const Option* option = OptionOfModelSetting(setting.key);
    const std::string value =
        option != nullptr ? option->get(own) : (own.policy.pinned ? "true" : "false");
    text += setting.key + " = " + value + "  # " + setting.origin + "\n";
  }
  return text + "\n";
}

}  // namespace

std::string ToToml(const Loaded& loaded) {
  std::string text;
  for (const ModelEntry& model : loaded.config.models) text += ModelToToml(loaded.config, model);
  if (loaded.config.models.empty()) text += "# no [[models]]: the bundled model is served\n\n";
  std::string_view section = "model";
  for (const Option& option : OptionTable()) {
    if (option.info.section == "model") continue;
    if (option.info.section != section) {
      text += (section == "model" ? "[" : "\n[") + std::string(option.info.section) + "]\n";
      section = option.info.section;
    }
    const auto origin = loaded.origins.find(Key(option.info));
    const std::string from = origin == loaded.origins.end() ? "default" : origin->second;
    if (option.info.name == "api_keys") {
      text += "# api_keys: " + std::to_string(loaded.config.server.api_keys.size()) +
              " set, not shown\n";
    } else if (option.info.name == "otlp_headers") {
      text += "# otlp_headers: " + std::to_string(loaded.config.server.otlp_headers.size()) +
              " set, not shown\n";
    } else if (option.info.name != "api_key_file" || !loaded.config.server.api_key_file.empty()) {
      text +=
          std::string(option.info.name) + " = " + option.get(loaded.config) + "  # " + from + "\n";
    }
  }
  return text;
}

// Those of the members of ServerOptions that are LiveValues.
constexpr std::string_view kLiveOptions[] = {
    "strict_params", "log_requests", "header_timeout", "body_timeout",    "idle_timeout",
    "write_timeout", "ping",         "drain_timeout",  "heartbeat_limit",
};

std::vector<Change> Changes(const Config& before, const Config& after) {
  std::vector<Change> changes;
  for (const Option& option : OptionTable()) {
    const auto& text = option.exact ? option.exact : option.get;
    if (text(after) == text(before)) continue;
    const bool live = option.info.section == "server" &&
                      std::find(std::begin(kLiveOptions), std::end(kLiveOptions),
                                option.info.name) != std::end(kLiveOptions);
    changes.push_back({Key(option.info), option.get(after), live});
  }
  return changes;
}

std::vector<std::pair<std::string, std::string>> TernEnvironment() {
  std::vector<std::pair<std::string, std::string>> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    const std::string_view name = text.substr(0, equals);
    const bool telemetry =
        std::any_of(std::begin(kTelemetryVariables), std::end(kTelemetryVariables),
                    [&](const auto& known) { return known.first == name; });
    if (equals == std::string_view::npos || !(name.starts_with("TERN_") || telemetry)) continue;
    variables.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return variables;
}

}  // namespace config
