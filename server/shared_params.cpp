#include "server/shared_params.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace server {
namespace {

using engine::TokenId;

constexpr size_t kMaxCacheSalt = 256;
constexpr double kMaxLoraScale = 100;
constexpr int64_t kMaxTokenId = std::numeric_limits<TokenId>::max();

// What switches a feature off wherever it exists: some clients send every field they know.
bool IsNeutral(const Json& value) {
  if (value.is_array() || value.is_object()) return value.empty();
  if (value.is_string()) return value.get_ref<const std::string&>().empty();
  return value == false || value == 0;
}

TokenId ReadTokenId(const Json& value, const std::string& name) {
  if (!value.is_number_integer()) throw InvalidType(name, "an integer", TypeName(value));
  if (value.is_number_unsigned() ? value.get<uint64_t>() > static_cast<uint64_t>(kMaxTokenId)
                                 : value.get<int64_t>() < 0) {
    throw InvalidValue(name,
                       "Invalid value for '" + name + "': " + value.dump() + " is not a token id.");
  }
  return value.get<TokenId>();
}

}  // namespace

void RefuseUnlessNeutral(ParamReader& reader, std::string_view name) {
  const Json* value = reader.Find(name);
  if (value != nullptr && !IsNeutral(*value)) throw NotSupported(reader.Name(name));
}

std::vector<std::string> CheckIgnored(std::vector<std::string> names, bool strict) {
  if (strict && !names.empty()) {
    throw UnsupportedParameter(names.front(), "Unsupported parameter: '" + names.front() +
                                                  "' is unknown or has no effect on this server.");
  }
  return names;
}

std::vector<std::string> CheckUnknown(ParamReader& reader, bool strict) {
  return CheckIgnored(reader.Unknown(), strict);
}

std::vector<std::string> CheckWithoutEffect(ParamReader& reader,
                                            std::initializer_list<std::string_view> names,
                                            bool strict) {
  std::vector<std::string> asked;
  for (const std::string_view name : names) {
    const Json* value = reader.Find(name);
    if (value != nullptr && !IsNeutral(*value)) asked.push_back(reader.Name(name));
  }
  return CheckIgnored(std::move(asked), strict);
}

int32_t ReadPriority(ParamReader& reader) {
  using Limits = std::numeric_limits<int32_t>;
  return static_cast<int32_t>(reader.Integer("priority", Limits::min(), Limits::max()).value_or(0));
}

std::string ReadCacheSalt(ParamReader& reader) {
  std::string salt = reader.String("cache_salt").value_or("");
  if (salt.size() <= kMaxCacheSalt) return salt;
  throw InvalidValue("cache_salt", "Invalid value for 'cache_salt': expected at most " +
                                       std::to_string(kMaxCacheSalt) + " bytes, but got " +
                                       std::to_string(salt.size()) + ".");
}

std::vector<TokenId> ReadTokenIds(const Json& array, const std::string& name) {
  std::vector<TokenId> tokens;
  tokens.reserve(array.size());
  for (const Json& element : array) tokens.push_back(ReadTokenId(element, name));
  return tokens;
}

std::optional<std::vector<LoraChoice>> ReadLora(ParamReader& reader) {
  const Json* list = reader.Array("lora");
  if (list == nullptr) return std::nullopt;
  std::vector<LoraChoice> choices;
  for (size_t i = 0; i < list->size(); ++i) {
    ParamReader entry((*list)[i], "lora[" + std::to_string(i) + "].");
    LoraChoice choice;
    if (const auto id = entry.Integer("id", 0, std::numeric_limits<int32_t>::max())) {
      choice.id = static_cast<uint32_t>(*id);
    } else if (const auto name = entry.String("name")) {
      choice.name = *name;
    } else {
      throw MissingParameter(entry.Name("id"));
    }
    const auto scale = entry.Number("scale", -kMaxLoraScale, kMaxLoraScale);
    if (!scale) throw MissingParameter(entry.Name("scale"));
    choice.scale = static_cast<float>(*scale);
    choices.push_back(std::move(choice));
  }
  return choices;
}

std::vector<CompletionPrompt> ReadTexts(ParamReader& reader, std::string_view literal,
                                        size_t most) {
  const Json* prompt = reader.Find(literal);
  const std::string name(literal);
  if (prompt == nullptr) throw MissingParameter(name);
  constexpr std::string_view kExpected =
      "a string, an array of strings, an array of token ids or an array of such arrays";
  std::vector<CompletionPrompt> prompts;
  if (prompt->is_string()) {
    prompts.emplace_back(prompt->get<std::string>());
    return prompts;
  }
  if (!prompt->is_array()) throw InvalidType(name, kExpected, TypeName(*prompt));
  if (prompt->empty()) throw InvalidValue(name, "Invalid value for '" + name + "': it is empty.");
  if (prompt->front().is_number()) {
    prompts.emplace_back(ReadTokenIds(*prompt, name));
    return prompts;
  }
  if (prompt->size() > most) {
    throw InvalidValue(name, "Invalid value for '" + name + "': expected at most " +
                                 std::to_string(most) + " prompts, but got " +
                                 std::to_string(prompt->size()) + ".");
  }
  for (const Json& element : *prompt) {
    if (element.is_string()) {
      prompts.emplace_back(element.get<std::string>());
    } else if (element.is_array()) {
      prompts.emplace_back(ReadTokenIds(element, name));
    } else {
      throw InvalidType(name, kExpected, TypeName(element));
    }
  }
  return prompts;
}

}  // namespace server
