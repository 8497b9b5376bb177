#include "config/config.h"

#include <toml++/toml.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>

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

class Loader {
 public:
  Loaded Run(const Inputs& inputs) {
    if (!inputs.file.empty()) ApplyFile(inputs.file);
    ApplyEnvironment(inputs.environment);
    ApplyFlags(inputs.flags);
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
  void ApplyEnvironment(const std::vector<std::pair<std::string, std::string>>& environment);
  void ApplyFlags(const std::vector<FlagValue>& flags);
  void Finish();
  void CheckModelNames();

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

void Loader::ApplyFile(const std::string& path) {
  toml::table document;
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
    if (section == "model" && node.is_array()) {
      ApplyModels(path, *node.as_array());
    } else if (node.is_table() && IsSection(section)) {
      ApplyTable(path, section, *node.as_table());
    } else {
      std::set<std::string> sections;
      for (const Option& option : OptionTable()) sections.emplace(option.info.section);
      throw ConfigError(Location(path, node) + ": unknown section \"" + section + "\"" +
                        Suggestion(section, {sections.begin(), sections.end()}) + ".");
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

// [[model]] tables, one per model, with `path` and perhaps `name`.
void Loader::ApplyModels(const std::string& path, const toml::array& models) {
  std::vector<std::string> paths, names;
  for (const toml::node& node : models) {
    const toml::table* table = node.as_table();
    if (table == nullptr) RefuseToml(Location(path, node), "[[model]]", "a table");
    std::string name;
    for (const auto& [key, value] : *table) {
      if (key.str() != "path" && key.str() != "name") {
        throw ConfigError(Location(path, value) + ": unknown key \"" + std::string(key.str()) +
                          "\" in [[model]], which has path and name.");
      }
    }
    const toml::node* file = table->get("path");
    if (file == nullptr) RefuseToml(Location(path, node), "model.path", "given in every [[model]]");
    paths.push_back(ScalarText(*file, OptionKind::kText, Location(path, *file), "model.path"));
    if (const toml::node* given = table->get("name")) {
      name = ScalarText(*given, OptionKind::kText, Location(path, *given), "model.name");
    }
    names.push_back(name);
  }
  const std::string where = Location(path, models);
  Set(*FindOption("model", "path"), paths, where + ": model.path", where);
  Set(*FindOption("model", "name"), names, where + ": model.name", where);
}

std::vector<std::string> SplitAtCommas(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  // One empty part, which is refused: a secret that was not filled in must not open the server.
  if (parts.empty()) parts.emplace_back();
  return parts;
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

void Loader::CheckModelNames() {
  std::set<std::string> names;
  for (ModelEntry& model : loaded_.config.models) {
    if (model.name.empty()) {
      const size_t slash = model.path.find_last_of('/');
      model.name = slash == std::string::npos ? model.path : model.path.substr(slash + 1);
      if (model.name.ends_with(".gguf")) model.name.resize(model.name.size() - 5);
    }
    if (!names.insert(model.name).second) {
      throw ConfigError("Two models have the name \"" + model.name +
                        "\"; give each its own with --served-model-name or [[model]] name.");
    }
  }
}

// What one option alone cannot show.
void Loader::Finish() {
  Config& config = loaded_.config;
  const auto origin = [&](const std::string& key) {
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
  if (!config.engine.lora.empty() && config.models.size() > 1) {
    throw ConfigError("engine.lora (from " + origin("engine.lora") +
                      ") needs a server of one model, but " + std::to_string(config.models.size()) +
                      " are given; an adapter fits one model only.");
  }
  if (!config.scheduler.prefix_cache_file.empty() && config.models.size() > 1) {
    throw ConfigError("scheduler.prefix_cache_file (from " + origin("scheduler.prefix_cache_file") +
                      ") needs a server of one model, but " + std::to_string(config.models.size()) +
                      " are given.");
  }
  // The workspace holds exactly what one step may compute.
  if (batch_tokens > 0) config.engine.max_batch_tokens = batch_tokens;
  CheckModelNames();
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

Loaded Load(const Inputs& inputs) { return Loader().Run(inputs); }

std::string ToToml(const Loaded& loaded) {
  std::string text;
  for (const ModelEntry& model : loaded.config.models) {
    text += "[[model]]\npath = " + Quoted(model.path) + "\nname = " + Quoted(model.name) + "\n\n";
  }
  if (loaded.config.models.empty()) text += "# no [[model]]: the bundled model is served\n\n";
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
    } else if (option.info.name != "api_key_file") {
      text +=
          std::string(option.info.name) + " = " + option.get(loaded.config) + "  # " + from + "\n";
    }
  }
  return text;
}

std::vector<std::pair<std::string, std::string>> TernEnvironment() {
  std::vector<std::pair<std::string, std::string>> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const size_t equals = text.find('=');
    if (!text.starts_with("TERN_") || equals == std::string_view::npos) continue;
    variables.emplace_back(text.substr(0, equals), text.substr(equals + 1));
  }
  return variables;
}

}  // namespace config
