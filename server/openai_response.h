#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"
#include "scheduler/token_event.h"
#include "server/answer_sink.h"
#include "server/choice_text.h"
#include "server/json.h"

namespace server {

enum class ApiKind { kChat, kText };

// What a request has cost, all choices together: `usage.tern`.
struct CostUsage {
  double bytes_per_token = 0;  // per token computed, prompt included
  double skip_rate = 0;
  double fabric_seconds = 0;
  double host_seconds = 0;  // the rest of its share of the steps
  double energy_proxy_joules = 0;
  std::optional<std::vector<double>> layer_skip_rates;
};

struct Usage {
  uint64_t prompt_tokens = 0;
  uint64_t completion_tokens = 0;
  uint64_t cached_tokens = 0;      // of the prompt
  uint64_t reasoning_tokens = 0;   // of the completion
  double first_token_seconds = 0;  // since the request's header; of the slowest prompt
  double decode_seconds = 0;       // first to last token, of the slowest choice
  std::optional<CostUsage> cost = {};
};

// What is known of a choice when its answer is written at once.
struct FinishedChoice {
  struct Call {
    std::string id;
    std::string name;
    std::string arguments;
  };

  void Add(AnswerPart part);

  std::vector<AnswerPart> parts;  // neighbours of one kind are one part
  std::string text;
  std::string reasoning;
  std::vector<Call> calls;
  std::vector<ReportedToken> tokens;
  scheduler::FinishReason reason = scheduler::FinishReason::kStop;
  std::string stop_string;  // when one ended the answer
};

// The prompt as `echo` shows it, in front of a text completion.
struct EchoedPrompt {
  std::string text;
  std::vector<engine::TokenId> tokens;
  std::vector<scheduler::PromptLogprob> logprobs;  // empty when not asked for
};

// Writes answers and chunks in OpenAI's shapes, chat or text completion. One per request: all
// chunks of a stream carry the same id, created and model.
class ResponseFormat {
 public:
  // tokenizer outlives it. logprobs: the client asked for them.
  ResponseFormat(ApiKind kind, std::string id, std::string model, int64_t created, bool logprobs,
                 const engine::text::Tokenizer& tokenizer);

  // Chat only: tells the role; goes out together with the first token.
  Json RoleChunk(uint32_t choice) const;
  // echo: in front of the delta; nullptr for none.
  Json DeltaChunk(uint32_t choice, const TextDelta& delta,
                  const EchoedPrompt* echo = nullptr) const;
  // Chat only: any part of an answer, with the tokens that have become known.
  Json PartChunk(uint32_t choice, const AnswerPart& part,
                 const std::vector<ReportedToken>& tokens) const;
  // calls: the answer has some.
  Json FinishChunk(uint32_t choice, scheduler::FinishReason reason, bool calls) const;
  Json UsageChunk(const Usage& usage) const;

  // echoes: empty, or one per choice.
  Json Whole(const std::vector<FinishedChoice>& choices, const Usage& usage,
             const std::vector<const EchoedPrompt*>& echoes) const;

 private:
  Json Envelope(bool chunk) const;
  Json ChunkWith(Json choice) const;
  Json ChatLogprobs(const std::vector<ReportedToken>& tokens) const;
  Json TextLogprobs(const std::vector<ReportedToken>& tokens, const EchoedPrompt* echo) const;
  std::string TokenText(engine::TokenId token) const;
  Json TopTokens(const std::vector<engine::TokenLogprob>& top) const;

  ApiKind kind_;
  std::string id_;
  std::string model_;
  int64_t created_;
  bool logprobs_;
  const engine::text::Tokenizer& tokenizer_;
};

// The tokens' log-probabilities, and those of the likeliest at their places.
Json LogprobsJson(const std::vector<ReportedToken>& tokens,
                  const engine::text::Tokenizer& tokenizer);

// "stop", "length", or "tool_calls" where an answer with calls was not cut short.
std::string_view ApiFinishReason(scheduler::FinishReason reason, bool calls = false);

// "chatcmpl-" or "cmpl-" and random digits.
std::string NewResponseId(ApiKind kind);

}  // namespace server
