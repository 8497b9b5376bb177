#pragma once

#include <cstdint>
#include <span>

#include "engine/batch.h"

namespace engine {

// The ranking of tokens everywhere: higher logit first, equal ones by ascending id.
inline bool BetterCandidate(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// The out.size() best tokens that the mask allows, best first. Where it allows fewer the rest is
// {-1, -infinity}. One pass over the vocabulary; nothing is sorted but `out`.
// mask: bit per token, 1 = allowed; empty = all.
void SelectBest(std::span<const float> logits, std::span<const uint64_t> mask,
                std::span<Candidate> out);

}  // namespace engine
