#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"
#include "fabric/worker_team.h"
#include "scheduler/model_runtime.h"

namespace cli {

// What drafts do to one text.
struct ReplayPlan {
  uint32_t prompt = 256;    // the text's first tokens
  uint32_t generate = 256;  // the next ones, which the answer is forced to be
  bool free = false;        // the model goes on greedily instead, with drafts and without alike
  uint32_t repetitions = 3;
};

struct ReplayResult {
  std::string_view kind;
  double plain = 0;          // generated tokens per second, median
  double drafted = 0;        // with drafts
  double speed_up = 0;       // median of the ratios of runs side by side
  double seconds = 0;        // of the last drafted run, first token to last
  double draft_seconds = 0;  // of these, in a model that drafts
  uint64_t tokens = 0;
  uint64_t steps = 0;  // of the drafted run's generation
  uint64_t drafts = 0;
  uint64_t wrong_drafts = 0;
  uint64_t draft_tokens = 0;
  uint64_t accepted = 0;

  // a: chance that a drafted token is right when those before it are.
  double Acceptance() const;
  // k
  double DraftLength() const;
  // Tokens of a step with drafts: counted, and (1 - a^(k+1)) / (1 - a).
  double TokensPerDraft() const;
  double ExpectedTokensPerDraft() const;
};

// How a long prompt disturbs short requests and running streams.
struct MixedPlan {
  uint32_t long_prompt = 4096;
  uint32_t short_requests = 20;
  uint32_t short_prompt = 32;
  uint32_t short_tokens = 16;
  uint32_t streams = 4;  // that run when the long prompt comes
};

struct MixedResult {
  double first_token_p95 = 0;  // of the short requests, seconds
  double inter_token_p99 = 0;  // of the streams, seconds
  double long_first_token = 0;
  uint32_t max_batch_tokens = 0;
  uint32_t prefill_chunk = 0;
};

// Time to first token of a prompt that is new, and of one that differs in its last tokens only.
struct PrefixResult {
  double miss = 0;  // seconds, medians
  double hit = 0;
  uint32_t found = 0;  // tokens
};

// Runs the scheduler on a model in this thread, step by step, without a server.
//
// Errors: as ModelRuntime::Load; std::runtime_error when a request fails or drafts change an
// answer.
class ServingBench {
 public:
  // context: longest sequence; batch_tokens: largest step of any run.
  ServingBench(const std::string& path, const config::Config& config, uint32_t context,
               uint32_t batch_tokens, uint32_t sequences);

  const engine::Model& model() const { return runtime_->model(); }
  int threads() const { return team_.size(); }

  // Drafts as the configuration says, from the text when it says nothing.
  ReplayResult Replay(const std::vector<engine::TokenId>& text, const ReplayPlan& plan);
  MixedResult Mixed(const MixedPlan& plan, bool chunked);
  PrefixResult Prefix(uint32_t prompt, uint32_t repetitions);

 private:
  struct ReplayRun;
  ReplayRun RunReplay(const std::vector<engine::TokenId>& text, const ReplayPlan& plan,
                      scheduler::Speculation speculation);

  fabric::WorkerTeam team_;
  std::shared_ptr<scheduler::ModelRuntime> runtime_;
  scheduler::SchedulerOptions automatic_;  // the limits that a server would choose here
};

// A text as tokens of the model; for a synthetic one, which has no words, a token per distinct
// word.
std::vector<engine::TokenId> ReplayTokens(const engine::Model& model, const std::string& text,
                                          bool synthetic);

}  // namespace cli
