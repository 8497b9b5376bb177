#include "server/openai_response.h"

#include <nlohmann/json.hpp>

#include "engine/text/detokenizer.h"
#include "server/random_id.h"

namespace server {
namespace {

Json CostJson(const Usage& usage) {
  const CostUsage& cost = *usage.cost;
  Json json = {{"bytes_per_token", cost.bytes_per_token},
               {"skip_rate", cost.skip_rate},
               {"fabric_seconds", cost.fabric_seconds},
               {"host_seconds", cost.host_seconds},
               {"energy_proxy_joules", cost.energy_proxy_joules},
               {"first_token_seconds", usage.first_token_seconds},
               {"decode_seconds", usage.decode_seconds}};
  if (cost.layer_skip_rates) json["layer_skip_rates"] = *cost.layer_skip_rates;
  return json;
}

Json UsageJson(const Usage& usage) {
  Json json = {{"prompt_tokens", usage.prompt_tokens},
               {"completion_tokens", usage.completion_tokens},
               {"total_tokens", usage.prompt_tokens + usage.completion_tokens},
               {"prompt_tokens_details", {{"cached_tokens", usage.cached_tokens}}},
               {"completion_tokens_details", {{"reasoning_tokens", usage.reasoning_tokens}}}};
  if (usage.cost) json["tern"] = CostJson(usage);
  return json;
}

// The SDKs put calls together by index: the first fragment of each has its id, type and name.
Json DeltaOf(const AnswerPart& part) {
  switch (part.kind) {
    case AnswerPart::Kind::kContent:
      return {{"content", part.text}};
    case AnswerPart::Kind::kReasoning:
      return {{"reasoning_content", part.text}};
    case AnswerPart::Kind::kCall: {
      Json call = {{"index", part.call}, {"id", part.id}, {"type", "function"}};
      call["function"] = {{"name", part.text}, {"arguments", ""}};
      return {{"tool_calls", Json::array({std::move(call)})}};
    }
    case AnswerPart::Kind::kArguments: {
      Json call = {{"index", part.call}};
      call["function"] = {{"arguments", part.text}};
      return {{"tool_calls", Json::array({std::move(call)})}};
    }
  }
  return Json::object();
}

Json MessageOf(const FinishedChoice& choice) {
  Json message;
  message["role"] = "assistant";
  const bool only_calls = choice.text.empty() && !choice.calls.empty();
  message["content"] = only_calls ? Json(nullptr) : Json(choice.text);
  message["refusal"] = nullptr;
  if (!choice.reasoning.empty()) message["reasoning_content"] = choice.reasoning;
  for (const FinishedChoice::Call& call : choice.calls) {
    Json json = {{"id", call.id}, {"type", "function"}};
    json["function"] = {{"name", call.name}, {"arguments", call.arguments}};
    message["tool_calls"].push_back(std::move(json));
  }
  return message;
}

Json LogprobJson(const engine::TokenLogprob& logprob, const engine::text::Tokenizer& tokenizer) {
  const std::string bytes = tokenizer.TokenBytes(logprob.token, true);
  Json entry;
  entry["token"] = engine::text::SanitizeUtf8(bytes);
  entry["logprob"] = logprob.logprob;
  entry["bytes"] = Json::array();
  for (const char byte : bytes) entry["bytes"].push_back(static_cast<unsigned char>(byte));
  return entry;
}

}  // namespace

Json LogprobsJson(const std::vector<ReportedToken>& tokens,
                  const engine::text::Tokenizer& tokenizer) {
  Json list = Json::array();
  for (const ReportedToken& token : tokens) {
    Json entry = LogprobJson(token.logprob, tokenizer);
    entry["top_logprobs"] = Json::array();
    for (const engine::TokenLogprob& top : token.top) {
      entry["top_logprobs"].push_back(LogprobJson(top, tokenizer));
    }
    list.push_back(std::move(entry));
  }
  return list;
}

std::string_view ApiFinishReason(scheduler::FinishReason reason, bool calls) {
  if (reason == scheduler::FinishReason::kLength) return "length";
  return calls ? "tool_calls" : "stop";
}

void FinishedChoice::Add(AnswerPart part) {
  switch (part.kind) {
    case AnswerPart::Kind::kContent:
      text += part.text;
      break;
    case AnswerPart::Kind::kReasoning:
      reasoning += part.text;
      break;
    case AnswerPart::Kind::kCall:
      calls.push_back({part.id, part.text, {}});
      break;
    case AnswerPart::Kind::kArguments:
      calls[part.call].arguments += part.text;
      break;
  }
  const bool goes_on = !parts.empty() && parts.back().kind == part.kind &&
                       part.kind != AnswerPart::Kind::kCall && parts.back().call == part.call;
  if (goes_on) {
    parts.back().text += part.text;
    std::move(part.tokens.begin(), part.tokens.end(), std::back_inserter(parts.back().tokens));
  } else {
    parts.push_back(std::move(part));
  }
}

std::string NewResponseId(ApiKind kind) {
  return (kind == ApiKind::kChat ? "chatcmpl-" : "cmpl-") + RandomHex(32);
}

ResponseFormat::ResponseFormat(ApiKind kind, std::string id, std::string model, int64_t created,
                               bool logprobs, const engine::text::Tokenizer& tokenizer)
    : kind_(kind),
      id_(std::move(id)),
      model_(std::move(model)),
      created_(created),
      logprobs_(logprobs),
      tokenizer_(tokenizer) {}

Json ResponseFormat::Envelope(bool chunk) const {
  Json envelope;
  envelope["id"] = id_;
  if (kind_ == ApiKind::kText) {
    envelope["object"] = "text_completion";
  } else {
    envelope["object"] = chunk ? "chat.completion.chunk" : "chat.completion";
  }
  envelope["created"] = created_;
  envelope["model"] = model_;
  return envelope;
}

Json ResponseFormat::ChunkWith(Json choice) const {
  Json chunk = Envelope(true);
  chunk["choices"] = Json::array({std::move(choice)});
  return chunk;
}

Json ResponseFormat::RoleChunk(uint32_t choice) const {
  Json json;
  json["index"] = choice;
  json["delta"] = {{"role", "assistant"}, {"content", ""}};
  json["logprobs"] = nullptr;
  json["finish_reason"] = nullptr;
  return ChunkWith(std::move(json));
}

Json ResponseFormat::DeltaChunk(uint32_t choice, const TextDelta& delta,
                                const EchoedPrompt* echo) const {
  Json json;
  json["index"] = choice;
  json["text"] = echo == nullptr ? delta.text : echo->text + delta.text;
  json["logprobs"] = logprobs_ ? TextLogprobs(delta.tokens, echo) : Json(nullptr);
  json["finish_reason"] = nullptr;
  return ChunkWith(std::move(json));
}

Json ResponseFormat::PartChunk(uint32_t choice, const AnswerPart& part,
                               const std::vector<ReportedToken>& tokens) const {
  Json json;
  json["index"] = choice;
  json["delta"] = DeltaOf(part);
  json["logprobs"] = logprobs_ ? ChatLogprobs(tokens) : Json(nullptr);
  json["finish_reason"] = nullptr;
  return ChunkWith(std::move(json));
}

Json ResponseFormat::FinishChunk(uint32_t choice, scheduler::FinishReason reason,
                                 bool calls) const {
  Json json;
  json["index"] = choice;
  if (kind_ == ApiKind::kChat) {
    json["delta"] = Json::object();
  } else {
    json["text"] = "";
  }
  json["logprobs"] = nullptr;
  json["finish_reason"] = ApiFinishReason(reason, calls);
  return ChunkWith(std::move(json));
}

Json ResponseFormat::UsageChunk(const Usage& usage) const {
  Json chunk = Envelope(true);
  chunk["choices"] = Json::array();
  chunk["usage"] = UsageJson(usage);
  return chunk;
}

Json ResponseFormat::Whole(const std::vector<FinishedChoice>& choices, const Usage& usage,
                           const std::vector<const EchoedPrompt*>& echoes) const {
  Json whole = Envelope(false);
  whole["choices"] = Json::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    const FinishedChoice& choice = choices[i];
    Json json;
    json["index"] = i;
    if (kind_ == ApiKind::kChat) {
      json["message"] = MessageOf(choice);
      json["logprobs"] = logprobs_ ? ChatLogprobs(choice.tokens) : Json(nullptr);
    } else {
      const EchoedPrompt* echo = echoes.empty() ? nullptr : echoes[i];
      json["text"] = echo == nullptr ? choice.text : echo->text + choice.text;
      json["logprobs"] = logprobs_ ? TextLogprobs(choice.tokens, echo) : Json(nullptr);
    }
    json["finish_reason"] = ApiFinishReason(choice.reason, !choice.calls.empty());
    whole["choices"].push_back(std::move(json));
  }
  whole["usage"] = UsageJson(usage);
  return whole;
}

std::string ResponseFormat::TokenText(engine::TokenId token) const {
  return engine::text::SanitizeUtf8(tokenizer_.TokenBytes(token, true));
}

Json ResponseFormat::ChatLogprobs(const std::vector<ReportedToken>& tokens) const {
  return {{"content", LogprobsJson(tokens, tokenizer_)}, {"refusal", nullptr}};
}

// Two tokens may have the same text; the likelier one, which comes first, is kept.
Json ResponseFormat::TopTokens(const std::vector<engine::TokenLogprob>& top) const {
  Json map = Json::object();
  for (const engine::TokenLogprob& entry : top) {
    const std::string text = TokenText(entry.token);
    if (!map.contains(text)) map[text] = entry.logprob;
  }
  return map;
}

Json ResponseFormat::TextLogprobs(const std::vector<ReportedToken>& tokens,
                                  const EchoedPrompt* echo) const {
  Json names = Json::array();
  Json logprobs = Json::array();
  Json tops = Json::array();
  Json offsets = Json::array();
  size_t offset = 0;
  if (echo != nullptr) {
    for (size_t i = 0; i < echo->tokens.size() && i < echo->logprobs.size(); ++i) {
      const scheduler::PromptLogprob& prompt = echo->logprobs[i];
      names.push_back(TokenText(echo->tokens[i]));
      logprobs.push_back(prompt.has_logprob ? Json(prompt.logprob.logprob) : Json(nullptr));
      tops.push_back(prompt.has_logprob ? TopTokens(prompt.top) : Json(nullptr));
      offsets.push_back(offset);
      offset += CountCodePoints(tokenizer_.TokenBytes(echo->tokens[i], false));
    }
    offset = CountCodePoints(echo->text);
  }
  for (const ReportedToken& token : tokens) {
    names.push_back(TokenText(token.logprob.token));
    logprobs.push_back(token.logprob.logprob);
    tops.push_back(TopTokens(token.top));
    offsets.push_back(offset + token.text_offset);
  }
  return {{"tokens", std::move(names)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(tops)},
          {"text_offset", std::move(offsets)}};
}

}  // namespace server
