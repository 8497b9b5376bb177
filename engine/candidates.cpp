#include "engine/candidates.h"

#include <algorithm>
#include <limits>

namespace engine {
namespace {

bool Allowed(std::span<const uint64_t> mask, size_t token) {
  return mask.empty() || ((mask[token / 64] >> (token % 64)) & 1) != 0;
}

}  // namespace

void SelectBest(std::span<const float> logits, std::span<const uint64_t> mask,
                std::span<Candidate> out) {
  std::fill(out.begin(), out.end(), Candidate{-1, -std::numeric_limits<float>::infinity()});
  if (out.empty()) return;
  // A heap with the worst of the kept ones in front. Ids ascend, so an equal logit never displaces.
  size_t kept = 0;
  for (size_t token = 0; token < logits.size(); ++token) {
    if (kept == out.size() && !(logits[token] > out.front().logit)) continue;
    if (!Allowed(mask, token)) continue;
    const Candidate candidate = {static_cast<TokenId>(token), logits[token]};
    if (kept < out.size()) {
      out[kept++] = candidate;
    } else {
      std::pop_heap(out.begin(), out.end(), BetterCandidate);
      out.back() = candidate;
    }
    std::push_heap(out.begin(), out.begin() + static_cast<ptrdiff_t>(kept), BetterCandidate);
  }
  std::sort_heap(out.begin(), out.begin() + static_cast<ptrdiff_t>(kept), BetterCandidate);
}

}  // namespace engine
