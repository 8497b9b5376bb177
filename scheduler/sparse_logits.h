#pragma once

#include <cstddef>
#include <limits>
#include <span>
#include <vector>

#include "engine/batch.h"

namespace scheduler {

// The best few logits of a row as the vocabulary's: to a sampler all other tokens are impossible.
class SparseLogits {
 public:
  // Valid until the next call.
  std::span<float> Spread(std::span<const engine::Candidate> candidates, size_t vocabulary) {
    logits_.assign(vocabulary, -std::numeric_limits<float>::infinity());
    for (const engine::Candidate& candidate : candidates) {
      const auto token = static_cast<size_t>(candidate.token);
      if (candidate.token >= 0 && token < vocabulary) logits_[token] = candidate.logit;
    }
    return logits_;
  }

 private:
  std::vector<float> logits_;
};

}  // namespace scheduler
