#include "scheduler/token_scorer.h"

namespace scheduler {
namespace {

engine::SamplingParams Greedy(int32_t alternatives) {
  engine::SamplingParams params;
  params.temperature = 0;
  params.logprobs = alternatives;
  params.seed = 0;
  return params;
}

}  // namespace

TokenScorer::TokenScorer(uint32_t vocabulary, int32_t alternatives)
    : sampler_(Greedy(alternatives), {}, 0, {}), mask_((vocabulary + 63) / 64, 0) {}

engine::Sample TokenScorer::Score(std::span<float> logits, uint32_t position,
                                  engine::TokenId token) {
  const auto bit = static_cast<uint32_t>(token);
  mask_[bit / 64] |= uint64_t{1} << (bit % 64);
  engine::Sample sample = sampler_.Draw(logits, position, mask_);
  mask_[bit / 64] = 0;
  return sample;
}

}  // namespace scheduler
