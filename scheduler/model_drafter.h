#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/token.h"
#include "scheduler/block_move.h"
#include "scheduler/sequence.h"
#include "scheduler/sparse_logits.h"
#include "scheduler/step_runner.h"

namespace scheduler {

// What guesses: the first layers of the served model, or another model.
struct DraftSource {
  StepRunner* runner = nullptr;
  // Of the served model, whose runner it then is: what these layers write at a drafted position are
  // the keys and values that the whole model would write there, so there is nothing to keep in step
  // and nothing to take back. 0: another model, with as many blocks of the same size and no
  // sliding window.
  uint32_t layers = 0;
  uint32_t max_batch_tokens = 0;  // of one step of the runner
  uint32_t vocabulary = 0;        // of the served model; the other's may be padded otherwise
};

// A decode row that may have guesses.
struct GuessRow {
  const Sequence* sequence = nullptr;
  uint32_t room = 0;        // most tokens to draft; the sequence's blocks have places for them
  uint32_t candidates = 0;  // of the best logits that are enough to draw from; 0 = all
  std::span<const engine::AdapterScale> adapters = {};

  std::vector<engine::TokenId> drafts = {};  // what came of it
  bool failed = false;  // the drafting model can say nothing about this sequence
};

// Drafts tokens of many sequences together: one step of the drafting model for each place.
//
// Another model keeps its keys and values of a position in its own pool, in the block of the same
// number, so sharing, copying and cutting short are decided once, for both. It computes nothing
// until somebody wants drafts. What it lacks by then of a sequence (the prompt, what was found in
// the prefix cache or came back from host memory, tokens of steps without drafts) comes first, over
// several steps where it is much.
//
//   blocks    [ b4: filled 16 ][ b9: filled 16 ][ b2: filled 5 . . . ]
//             |------------- Computed() --------------|-- next ---|
//
// Threads: the engine thread.
class ModelDrafter {
 public:
  explicit ModelDrafter(const DraftSource& source);

  // Before each step of the served model: its block moves, then the positions that its rows will
  // write, whose tokens the drafting model has yet to see.
  void Move(std::span<const BlockMove> moves);
  void Forget(const Sequence& sequence, uint32_t first, uint32_t count);

  // The token that rows[row] takes at `position`, by these logits; nullopt ends its drafts.
  // `logits` is scratch.
  using Draw = std::function<std::optional<engine::TokenId>(size_t row, uint32_t position,
                                                            std::span<float> logits)>;
  // REQUIRES: of each sequence all but the last token are computed.
  // Errors: what the runner throws; the drafts until then are good.
  void Draft(std::span<GuessRow> rows, const Draw& draw);
  // Tokens that the last Draft() computed, those that were lacking too.
  uint32_t last_tokens() const { return last_tokens_; }

  // Positions of the sequence's beginning whose keys and values the drafting model has.
  uint32_t Computed(const Sequence& sequence) const;

 private:
  class Sink;
  // A row of one step of the drafting model.
  struct Place {
    size_t row = 0;  // of the GuessRows
    uint32_t first = 0;
    uint32_t count = 0;
    uint32_t output = 0;  // the last token
    bool draws = false;   // else it only catches up
  };

  void PlanFirst(std::span<GuessRow> rows);
  bool PlanRow(GuessRow& row, uint32_t budget, Place* place);
  bool Claim(const Sequence& sequence, const Place& place);
  bool Knows(std::span<const engine::TokenId> tokens) const;
  void PlanNext(std::span<const GuessRow> rows, uint32_t index);
  void RunPlaces(std::span<GuessRow> rows, const Draw& draw);
  void Fill(const Sequence& sequence, const Place& place);
  // Logits of the served model's vocabulary.
  std::span<float> Pad(std::span<float> logits);
  bool keeps_cache() const { return source_.layers == 0; }

  DraftSource source_;
  uint32_t block_size_;
  std::vector<uint32_t> filled_;  // by block: its first positions that are there
  std::vector<Place> places_;     // of the current step
  uint32_t last_tokens_ = 0;
  std::vector<engine::BlockId> claimed_;  // blocks that they write
  std::vector<float> padded_;
  SparseLogits sparse_logits_;
};

}  // namespace scheduler
