#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/sampler.h"
#include "engine/token.h"

namespace scheduler {

// Log-probability of a token that is given, not drawn: prompt tokens and forced tokens.
//
// Threads: one at a time.
class TokenScorer {
 public:
  // alternatives: how many of the best tokens to report beside the given one; -1 = no
  // log-probabilities at all.
  TokenScorer(uint32_t vocabulary, int32_t alternatives);

  // The raw log-probability of `token` at `position`. `logits` is scratch.
  // REQUIRES: 0 <= token < vocabulary.
  engine::Sample Score(std::span<float> logits, uint32_t position, engine::TokenId token);

 private:
  // A mask with one bit leaves the sampler no choice, and what it reports is defined before masks.
  engine::Sampler sampler_;
  std::vector<uint64_t> mask_;
};

}  // namespace scheduler
