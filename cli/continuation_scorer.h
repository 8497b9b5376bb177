#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cli/local_model.h"

namespace cli {

// A context and what may follow it.
//
// REQUIRES: context and continuations are not empty.
struct ScoringItem {
  std::vector<engine::TokenId> context;
  std::vector<std::vector<engine::TokenId>> continuations;
};

struct ContinuationScore {
  double logprob = 0;  // of all its tokens after the context: raw log-softmax, summed
  bool greedy = true;  // each token is the model's first choice (ties: lowest id)
};

// Log-probabilities of continuations, many items to a batch.
//
// A context is computed once for all its continuations: they share its full KV blocks and copy the
// one that is begun. Contexts that are too long lose their oldest tokens. The scores are bit-equal
// to those of each continuation alone: outputs do not depend on the batch.
//
// Threads: one.  Errors: std::runtime_error when a value was not finite, a device failed or a
// continuation does not fit `context` tokens.
class ContinuationScorer {
 public:
  // context: most tokens of one sequence. `model` must outlive the object and is not used
  // otherwise.
  ContinuationScorer(LocalModel& model, uint32_t context);

  // Called with each finished item and its scores, in order. May throw to stop.
  using OnScored =
      std::function<void(size_t item, std::span<const ContinuationScore> scores, bool truncated)>;
  void Score(std::span<const ScoringItem> items, const OnScored& on_scored);

  uint64_t tokens_computed() const { return tokens_computed_; }

 private:
  // Tokens of one sequence that are to be computed, and where their logits go.
  struct Job {
    std::span<const engine::TokenId> tokens;
    uint32_t position = 0;  // of tokens[0]
    std::vector<engine::BlockId> blocks;
    bool last_only = false;  // logits of the last token only, else of all
    std::function<void(size_t token, std::span<const float> logits)> on_logits;
  };
  struct Prepared {
    size_t item = 0;
    bool truncated = false;
    std::span<const engine::TokenId> context;
    std::vector<engine::BlockId> blocks;
    std::vector<ContinuationScore> scores;
  };

  Prepared Prepare(std::span<const ScoringItem> items, size_t index) const;
  uint32_t BlocksOf(const ScoringItem& item, const Prepared& prepared) const;
  void ScoreWave(std::span<const ScoringItem> items, std::span<Prepared> wave);
  Job ContinuationJob(const ScoringItem& item, Prepared* prepared, size_t continuation);
  void Run(std::vector<Job> jobs);
  std::vector<engine::BlockId> TakeBlocks(uint32_t count);

  LocalModel& model_;
  uint32_t context_;
  uint32_t block_size_ = 0;
  uint32_t blocks_ = 0;      // of the pool
  uint32_t next_block_ = 0;  // those before are taken by the wave
  uint64_t tokens_computed_ = 0;
};

}  // namespace cli
