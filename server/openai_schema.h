#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "engine/sampling_params.h"
#include "engine/text/value.h"
#include "engine/token.h"
#include "server/json.h"

namespace server {

struct GrammarRequest;
struct ToolRequest;

// One entry of `lora`: an adapter by id or by name.
struct LoraChoice {
  std::optional<uint32_t> id;
  std::string name;  // when there is no id
  float scale = 0;
};

// What chat and text completions have in common. Ranges are checked, but for what depends on the
// model: token ids (logit_bias, stop_token_ids) and lengths.
struct GenerationParams {
  std::string model;  // empty = the default model
  engine::SamplingParams sampling;
  uint32_t choices = 1;                // n
  std::optional<uint32_t> max_tokens;  // absent = what the context leaves
  std::vector<std::string> stop;       // 0..16, none empty
  std::vector<engine::TokenId> stop_token_ids;
  std::vector<std::string> dry_breakers;  // a token that contains one ends a repetition
  bool stream = false;
  bool include_usage = false;
  bool cost_usage = false;   // tern.usage: usage.tern says what the request has cost
  bool cost_layers = false;  // tern.layers: with the skip rate of each layer
  bool skip_special_tokens = true;
  int32_t priority = 0;
  std::string cache_salt;
  std::shared_ptr<const GrammarRequest> grammar;  // nullptr = any text
  std::optional<std::vector<LoraChoice>> lora;    // absent = the adapters' own scales
  bool strict = false;                            // nothing may be ignored
  std::vector<std::string> ignored;               // names that are unknown or have no effect
};

// A list of messages and how the model's template shall see it.
struct ChatPrompt {
  engine::text::Array messages;  // objects; content is a string; tool calls are checked
  engine::text::Object template_variables;
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  std::shared_ptr<const ToolRequest> tools;  // nullptr = none
  std::string reasoning_effort;              // empty = the template's own
  std::optional<bool> enable_thinking;       // absent = the template's own
};

// Where the model's thoughts go.
enum class ReasoningPlace {
  kOwn,      // reasoning_content
  kContent,  // the content, as the model writes them
  kNowhere,
};

struct ChatRequest {
  GenerationParams params;
  ChatPrompt prompt;
  ReasoningPlace reasoning = ReasoningPlace::kOwn;
};

// Text, or token ids that are taken as they are.
using CompletionPrompt = std::variant<std::string, std::vector<engine::TokenId>>;

struct CompletionRequest {
  GenerationParams params;
  std::vector<CompletionPrompt> prompts;  // at least one
  bool echo = false;
  bool add_special_tokens = true;
  std::optional<std::string> suffix;  // the text that comes after what is to be filled in
};

// Another file, as context of what is to be filled in.
struct InfillFile {
  std::string name;
  std::string text;
};

struct InfillRequest {
  GenerationParams params;
  std::string prefix;
  std::string suffix;
  std::string prompt;  // the beginning of the middle
  std::vector<InfillFile> extra;
  bool prompt_only = false;  // n_predict 0: only to have the prompt in the prefix cache
};

struct TokenizeRequest {
  std::string model;
  std::variant<std::string, ChatPrompt> input;
  bool add_special = true;
  bool parse_special = true;
  bool with_pieces = false;
  std::vector<std::string> ignored;  // parameters that had no effect
};

struct DetokenizeRequest {
  std::string model;
  std::vector<engine::TokenId> tokens;
  bool special = true;
  std::vector<std::string> ignored;
};

struct SchemaOptions {
  bool strict = false;  // refuse parameters that are unknown or have no effect
};

// Errors: ApiError 400. A parameter that would change the output but is not implemented is
// unsupported_parameter, never ignored.
ChatRequest ParseChatRequest(const Json& body, const SchemaOptions& options);
CompletionRequest ParseCompletionRequest(const Json& body, const SchemaOptions& options);
// llama-server's /infill. What only tunes that server's loop (samplers, cache_prompt, t_max_*) has
// no effect.
InfillRequest ParseInfillRequest(const Json& body, const SchemaOptions& options);
TokenizeRequest ParseTokenizeRequest(const Json& body, const SchemaOptions& options);
DetokenizeRequest ParseDetokenizeRequest(const Json& body, const SchemaOptions& options);
// Only messages, template variables and model: /apply-template.
ChatRequest ParseTemplateRequest(const Json& body, const SchemaOptions& options);

}  // namespace server
