#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/answer_parser.h"
#include "server/http_types.h"
#include "server/key_budget.h"
#include "server/openai_response.h"
#include "server/openai_schema.h"
#include "server/served_model.h"
#include "server/work_trace.h"

namespace server {

// With "true": the stream outlives its connection.
inline constexpr char kResumableHeader[] = "x-tern-resumable";

// A request that is checked against its model and ready to run.
struct GenerationJob {
  ApiKind kind = ApiKind::kChat;
  std::shared_ptr<ServedModel> model;
  GenerationParams params;
  std::vector<std::vector<engine::TokenId>> prompts;
  std::vector<engine::AdapterScale> adapters;  // as engine::BatchRow::adapters
  std::vector<std::string> echo_texts;         // parallel to prompts; empty without echo
  bool score_only = false;          // max_tokens 0 with echo: the answer's token is not shown
  std::string tenant;               // API key's name
  std::shared_ptr<RequestUse> use;  // of its key; may be null
  std::shared_ptr<const RequestTrace> trace;                         // may be null
  std::shared_ptr<const engine::text::grammar::Constraint> grammar;  // nullptr = any text
  AnswerSyntax syntax;                                               // of the answers
  Clock::time_point arrival;

  // Who asked, and when.
  void SetSource(const HttpRequest& http) {
    tenant = http.key_name;
    use = http.use;
    arrival = http.arrival;
    trace = http.trace;
    resumable = params.stream && http.Header(kResumableHeader) == "true";
  }
  bool resumable = false;      // a stream that outlives its connection, as the client asked
  uint64_t backlog_bytes = 0;  // of events that wait for a slow reader; 0 = no bound

  bool echo() const { return !echo_texts.empty(); }
  uint32_t choice_count() const { return static_cast<uint32_t>(prompts.size()) * params.choices; }
};

// Template and tokenizer: may take long for long prompts, so it runs on a worker. Errors: ApiError.
GenerationJob PrepareChat(const ChatRequest& request, std::shared_ptr<ServedModel> model);
GenerationJob PrepareCompletion(const CompletionRequest& request,
                                std::shared_ptr<ServedModel> model);

// A text that cannot fit is refused before its tokens are counted, which takes seconds for one of
// the largest body. Errors: ApiError.
void CheckFits(std::string_view text, const ServedModel& model, std::string_view param);
// Errors: ApiError 400 of the parameter `name` when a token is none of the model's.
void CheckTokens(std::span<const engine::TokenId> tokens, const ServedModel& model,
                 std::string_view name);
// Checks what depends on the model and fills in adapters, grammar and a random seed. REQUIRES:
// model, params and prompts are there. Errors: ApiError; prompts are called `prompt_param`.
void CompleteJob(GenerationJob* job, std::string_view prompt_param);

// The prompt as text, as the model's template renders it. Errors: ApiError.
std::string RenderChat(const ChatPrompt& prompt, const ServedModel& model);
// Its tokens: special tokens count, and BOS is there when the model adds one.
std::vector<engine::TokenId> EncodeChat(const std::string& rendered,
                                        const engine::text::Tokenizer& tokenizer);

}  // namespace server
