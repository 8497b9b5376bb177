#include "scheduler/drafting.h"

#include <algorithm>

namespace scheduler {
namespace {

using engine::TokenId;

constexpr size_t kShortestMatch = 3;
constexpr size_t kLongestMatch = 8;
// Of a step that it makes longer; decode is bound by memory, so that it is far below one.
constexpr double kCheckCost = 0.15;
constexpr uint32_t kLongestDraft = 16;
constexpr double kLeastAcceptance = 0.5;
// Weight of the latest draft in the moving mean.
constexpr double kNewest = 0.25;

// Tokens that stand alike before `end` and before the text's end.
size_t MatchLength(std::span<const TokenId> tokens, size_t end) {
  const size_t limit = std::min(end, kLongestMatch);
  size_t length = 0;
  while (length < limit && tokens[end - 1 - length] == tokens[tokens.size() - 1 - length]) ++length;
  return length;
}

}  // namespace

std::vector<TokenId> DraftFromText(std::span<const TokenId> tokens, uint32_t count) {
  std::vector<TokenId> draft;
  size_t best = kShortestMatch - 1;
  size_t from = 0;
  for (size_t end = tokens.size() - 1; end > best && best < kLongestMatch; --end) {
    const size_t length = MatchLength(tokens, end);
    if (length <= best) continue;
    best = length;
    from = end;
  }
  if (from == 0) return draft;
  // Beyond its end the text is taken to go on as drafted: a repetition repeats.
  for (uint32_t i = 0; i < count; ++i) {
    const size_t source = from + i;
    draft.push_back(source < tokens.size() ? tokens[source] : draft[source - tokens.size()]);
  }
  return draft;
}

uint32_t DraftControl::Length(double guess_cost) const {
  if (rest_ > 0) return 0;
  const double cost = kCheckCost + guess_cost;
  uint32_t length = 1;  // after a rest one is tried, whatever it costs
  for (double chance = acceptance_ * acceptance_; chance > cost && length < kLongestDraft;
       chance *= acceptance_) {
    ++length;
  }
  return length;
}

void DraftControl::OnDraft(uint32_t drafted, uint32_t accepted, double guess_cost) {
  if (rest_ == kForEver) return;
  // Drafts behind the first wrong one say nothing about the acceptance per token.
  const double share = accepted == drafted ? 1.0 : accepted / (accepted + 1.0);
  acceptance_ += kNewest * (share - acceptance_);
  const double least = std::max(kLeastAcceptance, kCheckCost + guess_cost);
  if (acceptance_ >= least) {
    if (accepted == drafted) next_rest_ = kFirstRest;
    return;
  }
  rest_ = next_rest_;
  next_rest_ = std::min(next_rest_ * 2, kLongestRest);
  acceptance_ = std::max(acceptance_, kLeastAcceptance);
}

void DraftControl::OnPlainToken() {
  if (rest_ > 0 && rest_ != kForEver) --rest_;
}

}  // namespace scheduler
