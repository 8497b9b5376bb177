#include "server/openai_schema.h"

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "server/api_error.h"
#include "server/choice_text.h"
#include "server/param_reader.h"
#include "server/shared_params.h"
#include "server/structured_output.h"
#include "server/tool_request.h"

namespace server {
namespace {

using engine::TokenId;
using engine::text::Array;
using engine::text::Object;
using engine::text::Value;

constexpr size_t kMaxStopStrings = 16;
// Each of up to 512 choices has automata of its own for its stop strings.
constexpr size_t kMaxStopCharacters = 1024;
constexpr size_t kMaxStopTokens = 1024;
constexpr int64_t kMaxChoices = 128;
constexpr int64_t kMaxLogprobs = 20;
constexpr size_t kMaxPrompts = 256;
constexpr size_t kMaxDryBreakers = 64;
// Longer ones are in no token.
constexpr size_t kMaxDryBreakerBytes = 256;

// Each would change the output, so ignoring it would be a lie.
constexpr std::array<std::string_view, 10> kUnsupported = {"functions",
                                                           "audio",
                                                           "prediction",
                                                           "chat_template",
                                                           "allowed_token_ids",
                                                           "bad_words",
                                                           "prompt_logprobs",
                                                           "logits_processors",
                                                           "truncate_prompt_tokens",
                                                           "documents"};

void RefuseTrue(ParamReader& reader, std::string_view name) {
  if (reader.Bool(name).value_or(false)) throw NotSupported(reader.Name(name));
}

void AddUnknown(ParamReader& reader, const SchemaOptions& options,
                std::vector<std::string>* ignored) {
  for (std::string& name : CheckUnknown(reader, options.strict)) {
    ignored->push_back(std::move(name));
  }
}

// Where there are no functions, "none" and "auto" ask for nothing.
void RefuseChoice(ParamReader& reader, std::string_view name) {
  const Json* value = reader.Find(name);
  if (value == nullptr) return;
  if (value->is_string() && (*value == "none" || *value == "auto")) return;
  throw NotSupported(reader.Name(name));
}

// Where there is no conversation, there is nobody to call functions for.
void RefuseTools(ParamReader& reader) {
  RefuseUnlessNeutral(reader, "tools");
  RefuseChoice(reader, "tool_choice");
}

void RefuseModalities(ParamReader& reader) {
  const Json* modalities = reader.Array("modalities");
  if (modalities == nullptr) return;
  for (const Json& modality : *modalities) {
    if (modality != "text") throw NotSupported("modalities");
  }
}

// What only llama-server's own endpoints know.
void RefuseForeign(ParamReader& reader) {
  for (const std::string_view name : {"n_predict", "samplers"}) RefuseUnlessNeutral(reader, name);
}

void RefuseUnsupported(ParamReader& reader) {
  for (const std::string_view name : kUnsupported) RefuseUnlessNeutral(reader, name);
  // Even an empty object asks for a search.
  if (reader.Find("web_search_options") != nullptr) throw NotSupported("web_search_options");
  RefuseChoice(reader, "function_call");
  RefuseModalities(reader);
  RefuseTrue(reader, "use_beam_search");
  RefuseTrue(reader, "include_stop_str_in_output");
}

std::vector<engine::LogitBias> ReadLogitBias(ParamReader& reader) {
  std::vector<engine::LogitBias> biases;
  const Json* map = reader.Object("logit_bias");
  if (map == nullptr) return biases;
  for (const auto& [key, value] : map->items()) {
    const std::string name = "logit_bias." + key;
    const bool digits =
        !key.empty() && key.size() <= 9 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!digits) {
      throw InvalidValue("logit_bias",
                         "Invalid key in 'logit_bias': '" + key + "' is not a token id.");
    }
    if (!value.is_number()) throw InvalidType(name, "a number", TypeName(value));
    const auto bias = value.get<double>();
    if (!(bias >= -100 && bias <= 100)) {
      throw InvalidValue(name, "Invalid value for '" + name +
                                   "': expected a number from -100 to 100, but got " +
                                   value.dump() + ".");
    }
    biases.push_back({static_cast<TokenId>(std::stol(key)), static_cast<float>(bias)});
  }
  return biases;
}

std::vector<std::string> ReadStop(ParamReader& reader) {
  std::vector<std::string> stop;
  const Json* value = reader.Find("stop");
  if (value == nullptr) return stop;
  const auto add = [&](const Json& element) {
    if (!element.is_string())
      throw InvalidType("stop", "a string or an array of strings", TypeName(element));
    const auto& text = element.get_ref<const std::string&>();
    if (CountCodePoints(text) > kMaxStopCharacters) {
      throw InvalidValue("stop", "Invalid value for 'stop': expected strings of at most " +
                                     std::to_string(kMaxStopCharacters) + " characters.");
    }
    // An empty stop string would end every answer at once; other servers skip it too.
    if (!text.empty()) stop.push_back(text);
  };
  if (!value->is_array()) {
    add(*value);
    return stop;
  }
  if (value->size() > kMaxStopStrings) {
    throw InvalidValue("stop", "Invalid value for 'stop': expected at most " +
                                   std::to_string(kMaxStopStrings) + " strings, but got " +
                                   std::to_string(value->size()) + ".");
  }
  for (const Json& element : *value) add(element);
  return stop;
}

void ReadDry(ParamReader& reader, engine::SamplingParams* sampling) {
  constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
  if (const auto value = reader.Number("dry_multiplier", 0, 100)) {
    sampling->dry_multiplier = static_cast<float>(*value);
  }
  if (const auto value = reader.Number("dry_base", 1, 100)) {
    sampling->dry_base = static_cast<float>(*value);
  }
  if (const auto value = reader.Integer("dry_allowed_length", 0, kInt32Max)) {
    sampling->dry_allowed_length = static_cast<uint32_t>(*value);
  }
  if (const auto value = reader.Integer("dry_penalty_last_n", -1, kInt32Max)) {
    sampling->dry_penalty_last_n = static_cast<int32_t>(*value);
  }
}

void ReadMirostat(ParamReader& reader, engine::SamplingParams* sampling) {
  const int64_t version = reader.Integer("mirostat", 0, 2).value_or(0);
  if (version == 1) {
    throw UnsupportedParameter(
        "mirostat", "Unsupported parameter: 'mirostat' is supported in version 2 only, not 1.");
  }
  sampling->mirostat = static_cast<int32_t>(version);
  if (const auto value = reader.Number("mirostat_tau", 0, 20, true)) {
    sampling->mirostat_tau = static_cast<float>(*value);
  }
  if (const auto value = reader.Number("mirostat_eta", 0, 1)) {
    sampling->mirostat_eta = static_cast<float>(*value);
  }
}

// Strings that end a repetition for DRY.
std::vector<std::string> ReadDryBreakers(ParamReader& reader) {
  std::vector<std::string> breakers = {"\n", ":", "\"", "*"};
  const Json* list = reader.Array("dry_sequence_breakers");
  if (list == nullptr) return breakers;
  breakers.clear();
  if (list->size() > kMaxDryBreakers) {
    throw InvalidValue("dry_sequence_breakers",
                       "Invalid value for 'dry_sequence_breakers': expected at most " +
                           std::to_string(kMaxDryBreakers) + " strings, but got " +
                           std::to_string(list->size()) + ".");
  }
  for (const Json& element : *list) {
    if (!element.is_string()) {
      throw InvalidType("dry_sequence_breakers", "an array of strings", TypeName(element));
    }
    const auto& text = element.get_ref<const std::string&>();
    if (!text.empty() && text.size() <= kMaxDryBreakerBytes) breakers.push_back(text);
  }
  return breakers;
}

void ReadSampling(ParamReader& reader, engine::SamplingParams* sampling) {
  const auto number = [&](std::string_view name, double low, double high, float* field,
                          bool exclusive_low = false) {
    if (const auto value = reader.Number(name, low, high, exclusive_low)) {
      *field = static_cast<float>(*value);
    }
  };
  number("temperature", 0, 2, &sampling->temperature);
  number("top_p", 0, 1, &sampling->top_p, true);
  number("min_p", 0, 1, &sampling->min_p);
  number("presence_penalty", -2, 2, &sampling->presence_penalty);
  number("frequency_penalty", -2, 2, &sampling->frequency_penalty);
  number("repetition_penalty", 0, 2, &sampling->repetition_penalty, true);
  constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
  // -1 is what other servers call "all".
  const int64_t top_k = reader.Integer("top_k", -1, kInt32Max).value_or(0);
  sampling->top_k = static_cast<int32_t>(std::max<int64_t>(top_k, 0));
  sampling->seed = reader.Integer("seed", std::numeric_limits<int64_t>::min(),
                                  std::numeric_limits<int64_t>::max());
  sampling->ignore_eos = reader.Bool("ignore_eos").value_or(false);
  sampling->min_tokens =
      static_cast<uint32_t>(reader.Integer("min_tokens", 0, kInt32Max).value_or(0));
  sampling->logit_bias = ReadLogitBias(reader);
  number("typical_p", 0, 1, &sampling->typical_p, true);
  number("xtc_probability", 0, 1, &sampling->xtc_probability);
  number("xtc_threshold", 0, 1, &sampling->xtc_threshold);
  // -1 is llama-server's "off".
  number("top_n_sigma", -1, 100, &sampling->top_n_sigma);
  sampling->top_n_sigma = std::max(sampling->top_n_sigma, 0.0F);
  ReadDry(reader, sampling);
  ReadMirostat(reader, sampling);
}

void ReadStream(ParamReader& reader, GenerationParams* params) {
  params->stream = reader.Bool("stream").value_or(false);
  const Json* stream_options = reader.Object("stream_options");
  if (stream_options == nullptr) return;
  if (!params->stream) {
    throw InvalidValue("stream_options",
                       "The 'stream_options' parameter is only allowed when 'stream' is enabled.");
  }
  ParamReader inner(*stream_options, "stream_options.", &reader);
  params->include_usage = inner.Bool("include_usage").value_or(false);
}

// Ours: {"usage": true, "layers": true}.
void ReadTern(ParamReader& reader, GenerationParams* params) {
  const Json* tern = reader.Object("tern");
  if (tern == nullptr) return;
  ParamReader inner(*tern, "tern.", &reader);
  params->cost_usage = inner.Bool("usage").value_or(false);
  params->cost_layers = inner.Bool("layers").value_or(false);
}

// lowest_max_tokens: 0 where scoring a prompt without an answer makes sense.
GenerationParams ReadCommon(ParamReader& reader, int64_t lowest_max_tokens) {
  GenerationParams params;
  params.model = reader.String("model").value_or("");
  ReadSampling(reader, &params.sampling);
  params.dry_breakers = ReadDryBreakers(reader);
  params.choices = static_cast<uint32_t>(reader.Integer("n", 1, kMaxChoices).value_or(1));
  constexpr int64_t kUint32Max = std::numeric_limits<uint32_t>::max();
  const auto max_tokens = reader.Integer("max_tokens", lowest_max_tokens, kUint32Max);
  const auto newer = reader.Integer("max_completion_tokens", lowest_max_tokens, kUint32Max);
  if (newer || max_tokens) params.max_tokens = static_cast<uint32_t>(newer ? *newer : *max_tokens);
  params.stop = ReadStop(reader);
  if (const Json* ids = reader.Array("stop_token_ids")) {
    if (ids->size() > kMaxStopTokens) {
      throw InvalidValue("stop_token_ids", "Invalid value for 'stop_token_ids': expected at most " +
                                               std::to_string(kMaxStopTokens) +
                                               " token ids, but got " +
                                               std::to_string(ids->size()) + ".");
    }
    params.stop_token_ids = ReadTokenIds(*ids, "stop_token_ids");
  }
  ReadStream(reader, &params);
  params.skip_special_tokens = reader.Bool("skip_special_tokens").value_or(true);
  params.priority = ReadPriority(reader);
  params.cache_salt = ReadCacheSalt(reader);
  params.lora = ReadLora(reader);
  params.grammar = ReadGrammar(reader);
  if (const auto best_of = reader.Integer("best_of", 1, kMaxChoices);
      best_of && *best_of != params.choices) {
    throw UnsupportedParameter("best_of", "Unsupported parameter: 'best_of' must equal 'n'.");
  }
  return params;
}

// The text of `content`: a string, null, or text parts joined by newlines.
Value ReadContent(const Json* content, const std::string& name, bool required) {
  if (content == nullptr) {
    if (required) throw MissingParameter(name);
    return Value("");
  }
  if (content->is_string()) return ToValue(*content);
  if (!content->is_array()) {
    throw InvalidType(name, "a string or an array of content parts", TypeName(*content));
  }
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    ParamReader part((*content)[i], name + "[" + std::to_string(i) + "].");
    const std::string type = part.RequiredString("type");
    if (type != "text" && type != "refusal") {
      throw UnsupportedParameter(part.Name("type"), "Content parts of type '" + type +
                                                        "' are not supported, only 'text'.");
    }
    const std::string piece = part.RequiredString(type);
    if (i > 0) text += '\n';
    text += piece;
  }
  return Value(std::move(text));
}

Value ReadMessage(const Json& message, size_t index) {
  ParamReader reader(message, "messages[" + std::to_string(index) + "].");
  const std::string role = reader.RequiredString("role");
  constexpr std::array<std::string_view, 6> kRoles = {"system",    "developer", "user",
                                                      "assistant", "tool",      "function"};
  if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end()) {
    throw InvalidValue(reader.Name("role"),
                       "Invalid value for '" + reader.Name("role") + "': '" + role + "'.");
  }
  Object object;
  // Templates know the older name.
  object.Set("role", Value(role == "developer" ? "system" : role));
  object.Set("content",
             ReadContent(reader.Find("content"), reader.Name("content"), role != "assistant"));
  for (const auto& [key, value] : message.items()) {
    if (key != "role" && key != "content" && !value.is_null()) object.Set(key, ToValue(value));
  }
  return Value(std::move(object));
}

ChatPrompt ReadChatPrompt(ParamReader& reader) {
  ChatPrompt prompt;
  const Json* messages = reader.Array("messages");
  if (messages == nullptr) throw MissingParameter("messages");
  if (messages->empty()) {
    throw InvalidValue("messages", "Invalid value for 'messages': expected at least one message.");
  }
  std::set<std::string> call_ids;
  for (size_t i = 0; i < messages->size(); ++i) {
    prompt.messages.push_back(ReadMessage((*messages)[i], i));
    CheckToolMessage((*messages)[i], "messages[" + std::to_string(i) + "]", &call_ids);
  }
  auto tools = ReadTools(reader);
  if (!tools.functions.empty()) prompt.tools = std::make_shared<ToolRequest>(std::move(tools));
  prompt.reasoning_effort = reader.String("reasoning_effort").value_or("");
  prompt.enable_thinking = reader.Bool("enable_thinking");
  prompt.add_generation_prompt = reader.Bool("add_generation_prompt").value_or(true);
  prompt.continue_final_message = reader.Bool("continue_final_message").value_or(false);
  if (prompt.continue_final_message) {
    if (reader.Bool("add_generation_prompt").value_or(false)) {
      throw InvalidValue(
          "continue_final_message",
          "'continue_final_message' and 'add_generation_prompt' exclude each other.");
    }
    prompt.add_generation_prompt = false;
  }
  if (const Json* variables = reader.Object("chat_template_kwargs")) {
    constexpr std::array<std::string_view, 6> kReserved = {
        "messages", "add_generation_prompt", "bos_token", "eos_token", "tools", "chat_template"};
    for (const auto& [key, value] : variables->items()) {
      if (std::find(kReserved.begin(), kReserved.end(), key) != kReserved.end()) {
        throw InvalidValue("chat_template_kwargs",
                           "'chat_template_kwargs' cannot set '" + key + "'.");
      }
      prompt.template_variables.Set(key, ToValue(value));
    }
  }
  return prompt;
}

// The names of llama-server and Groq, of vLLM, and of SGLang.
ReasoningPlace ReadReasoningPlace(ParamReader& reader) {
  const std::string format = reader.String("reasoning_format").value_or("auto");
  const bool included = reader.Bool("include_reasoning").value_or(true);
  const bool separate = reader.Bool("separate_reasoning").value_or(true);
  if (format == "hidden" || !included) return ReasoningPlace::kNowhere;
  if (format == "none" || format == "raw" || !separate) return ReasoningPlace::kContent;
  if (format == "auto" || format == "deepseek" || format == "parsed") return ReasoningPlace::kOwn;
  throw InvalidValue("reasoning_format",
                     "Invalid value for 'reasoning_format': expected 'auto', 'none' or 'hidden', "
                     "but got '" +
                         format + "'.");
}

std::vector<InfillFile> ReadInfillFiles(ParamReader& reader) {
  std::vector<InfillFile> files;
  const Json* list = reader.Array("input_extra");
  if (list == nullptr) return files;
  for (size_t i = 0; i < list->size(); ++i) {
    ParamReader entry((*list)[i], "input_extra[" + std::to_string(i) + "].");
    const std::string text = entry.RequiredString("text");
    files.push_back({.name = entry.String("filename").value_or("file"), .text = text});
  }
  return files;
}

}  // namespace

ChatRequest ParseChatRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  RefuseUnsupported(reader);
  RefuseForeign(reader);
  RefuseUnlessNeutral(reader, "suffix");
  ChatRequest request;
  request.prompt = ReadChatPrompt(reader);
  request.params = ReadCommon(reader, 1);
  ReadTern(reader, &request.params);
  request.params.strict = options.strict;
  request.reasoning = ReadReasoningPlace(reader);
  const bool logprobs = reader.Bool("logprobs").value_or(false);
  const auto top = reader.Integer("top_logprobs", 0, kMaxLogprobs);
  if (top && *top > 0 && !logprobs) {
    throw InvalidValue("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.");
  }
  if (logprobs) request.params.sampling.logprobs = static_cast<int32_t>(top.value_or(0));
  RefuseTrue(reader, "echo");
  AddUnknown(reader, options, &request.params.ignored);
  return request;
}

CompletionRequest ParseCompletionRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  RefuseUnsupported(reader);
  RefuseForeign(reader);
  RefuseTools(reader);
  CompletionRequest request;
  request.prompts = ReadTexts(reader, "prompt", kMaxPrompts);
  request.echo = reader.Bool("echo").value_or(false);
  // Some clients send an empty one.
  request.suffix = reader.String("suffix");
  if (request.suffix && request.suffix->empty()) request.suffix.reset();
  if (request.suffix && request.echo) {
    throw InvalidValue("suffix", "'suffix' and 'echo' exclude each other.");
  }
  request.params = ReadCommon(reader, request.echo ? 0 : 1);
  ReadTern(reader, &request.params);
  if (const auto top = reader.Integer("logprobs", 0, kMaxLogprobs)) {
    request.params.sampling.logprobs = static_cast<int32_t>(*top);
  }
  request.add_special_tokens = reader.Bool("add_special_tokens").value_or(true);
  AddUnknown(reader, options, &request.params.ignored);
  return request;
}

InfillRequest ParseInfillRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  RefuseUnsupported(reader);
  RefuseTools(reader);
  InfillRequest request;
  request.prefix = reader.RequiredString("input_prefix");
  request.suffix = reader.RequiredString("input_suffix");
  request.prompt = reader.String("prompt").value_or("");
  request.extra = ReadInfillFiles(reader);
  request.params = ReadCommon(reader, 1);
  if (request.params.choices > 1) throw NotSupported("n");
  constexpr int64_t kInt32Max = std::numeric_limits<int32_t>::max();
  if (const auto most = reader.Integer("n_predict", -1, kInt32Max)) {
    request.prompt_only = *most == 0;
    request.params.max_tokens.reset();
    if (*most >= 0) request.params.max_tokens = static_cast<uint32_t>(std::max<int64_t>(*most, 1));
  }
  AddUnknown(reader, options, &request.params.ignored);
  return request;
}

TokenizeRequest ParseTokenizeRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  TokenizeRequest request;
  request.model = reader.String("model").value_or("");
  // "prompt" is vLLM's name and "content" llama-server's.
  auto text = reader.String("prompt");
  auto content = reader.String("content");
  if (reader.Find("messages") != nullptr) {
    request.input = ReadChatPrompt(reader);
  } else if (text || content) {
    request.input = text ? std::move(*text) : std::move(*content);
  } else {
    throw MissingParameter("prompt");
  }
  const bool add_special = reader.Bool("add_special_tokens").value_or(text.has_value());
  request.add_special = reader.Bool("add_special").value_or(add_special);
  request.parse_special = reader.Bool("parse_special").value_or(true);
  const bool pieces = reader.Bool("with_pieces").value_or(false);
  request.with_pieces = reader.Bool("return_token_strs").value_or(pieces);
  request.ignored = CheckUnknown(reader, options.strict);
  return request;
}

DetokenizeRequest ParseDetokenizeRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  DetokenizeRequest request;
  request.model = reader.String("model").value_or("");
  const Json* tokens = reader.Array("tokens");
  if (tokens == nullptr) throw MissingParameter("tokens");
  request.tokens = ReadTokenIds(*tokens, "tokens");
  request.special = !reader.Bool("skip_special_tokens").value_or(false);
  request.ignored = CheckUnknown(reader, options.strict);
  return request;
}

ChatRequest ParseTemplateRequest(const Json& body, const SchemaOptions& options) {
  ParamReader reader(body);
  ChatRequest request;
  request.params.model = reader.String("model").value_or("");
  request.prompt = ReadChatPrompt(reader);
  request.params.ignored = CheckUnknown(reader, options.strict);
  return request;
}

}  // namespace server
