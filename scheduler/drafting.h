#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/token.h"

namespace scheduler {

// At most `count` tokens that could follow `tokens`, guessed from what the text itself has said
// before (prompt look-up): the latest place where its last tokens stood already, the longest match
// first, and what came after them there. Empty when fewer than three tokens match.
// Cost: one pass over the text.
std::vector<engine::TokenId> DraftFromText(std::span<const engine::TokenId> tokens, uint32_t count);

// How many tokens to draft for one sequence, from how its drafts fared.
//
// Every drafted token costs a part of a step, whatever comes of it: its check, and its guess where
// a model guesses. It is worth a step with the chance that it and all before it are right. With an
// acceptance of a per token, the i-th is drafted while a^i is above its cost. Below one half, or
// below the cost of one token, drafting stops for a while, each time for longer.
class DraftControl {
 public:
  // Most tokens that are worth drafting now. guess_cost: of one token, in steps.
  uint32_t Length(double guess_cost = 0) const;
  void OnDraft(uint32_t drafted, uint32_t accepted, double guess_cost = 0);
  // A token was generated without a draft.
  void OnPlainToken();
  // For good: the sequence's drafts are trouble.
  void Stop() { rest_ = kForEver; }

 private:
  static constexpr uint32_t kForEver = UINT32_MAX;
  static constexpr uint32_t kFirstRest = 16;
  static constexpr uint32_t kLongestRest = 1024;

  double acceptance_ = 0.6;  // moving mean, per drafted token
  uint32_t rest_ = 0;        // plain tokens until the next draft
  uint32_t next_rest_ = kFirstRest;
};

}  // namespace scheduler
