#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "cli/local_model.h"
#include "engine/sampler.h"
#include "engine/sampling_params.h"

namespace cli {

struct AnswerRequest {
  engine::SamplingParams sampling;
  uint32_t max_tokens = 0;
  std::span<const engine::TokenId> forced;  // taken instead of sampled ones; empty = sample
  int logprobs = -1;                        // -1 none, else how many alternatives to report
};

// Raw log-softmax of the taken token and of the best ones, best first.
struct AnswerLogprob {
  engine::TokenLogprob taken;
  std::vector<engine::TokenLogprob> top;
};

struct Answer {
  std::vector<engine::TokenId> tokens;  // the stop token included
  std::vector<AnswerLogprob> logprobs;  // per token, when asked for
  std::string finish_reason;            // "stop" or "length"
  double prompt_seconds = 0;
  double generation_seconds = 0;
};

// Called with each token as it is taken; false ends the answer.
using OnToken = std::function<bool(engine::TokenId)>;

// Feeds `prompt` to `sequence` and draws the answer token by token. What is already in the sequence
// comes before the prompt; `history` is all of it, for the repetition penalty.
// Errors: as LocalSequence::Append().
Answer Generate(const LocalModel& model, LocalSequence& sequence,
                std::span<const engine::TokenId> prompt, std::span<const engine::TokenId> history,
                const AnswerRequest& request, const OnToken& on_token);

}  // namespace cli
