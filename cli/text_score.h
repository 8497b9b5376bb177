#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "cli/local_model.h"

namespace cli {

// Sums of the negative log-likelihoods of scored tokens, in the order of the text.
class TextScore {
 public:
  void Add(double nll) {
    ++count_;
    sum_ += nll;
    squares_ += nll * nll;
  }
  uint64_t count() const { return count_; }
  double perplexity() const;
  // Of the perplexity, to first order: ppl * sqrt(var / (n - 1)).
  double standard_error() const;

 private:
  uint64_t count_ = 0;
  double sum_ = 0;
  double squares_ = 0;
};

struct TextScoreOptions {
  uint32_t context = 512;  // tokens per chunk
  uint64_t chunks = 0;     // score only so many; 0 = all
};

// A file as tokens: one final newline dropped, special tokens in it are text. "-" is standard
// input. Errors: std::runtime_error naming path and reason.
std::vector<engine::TokenId> TokenizeTextFile(const std::string& path,
                                              const engine::text::Tokenizer& tokenizer);

// How many chunks are scored. Errors: std::runtime_error when the text is shorter than one.
uint64_t ChunksOf(size_t tokens, const TextScoreOptions& options);

// A scored position: the logits that predict `target`, and their LogSumExp. Valid during the call.
struct ScoredPosition {
  engine::TokenId target = 0;
  std::span<const float> logits;
  float log_sum = 0;
  double nll() const { return double{log_sum} - double{logits[static_cast<size_t>(target)]}; }
};
using OnPosition = std::function<void(const ScoredPosition&)>;
// After each chunk: its number from 1, how many there are, the score so far. May throw to stop.
using OnChunk = std::function<void(uint64_t chunk, uint64_t chunks, const TextScore&)>;

// Perplexity as docs/cli.md defines it: chunks that do not overlap, the first token of each
// replaced by BOS when the model adds one, positions context/2 .. context-2 predict the next token.
// Errors: as ChunksOf() and LocalSequence::Append().
TextScore ScoreText(LocalModel& model, std::span<const engine::TokenId> tokens,
                    const TextScoreOptions& options, const OnChunk& on_chunk,
                    const OnPosition& on_position = {});

// "chunk 3 of 10: perplexity 12.3" on standard error.
void PrintChunk(uint64_t chunk, uint64_t chunks, const TextScore& score);

}  // namespace cli
