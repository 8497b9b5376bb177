#pragma once

#include <cstdint>
#include <vector>

#include "engine/text/tokenizer_index.h"

namespace engine::text {

// A piece of a word while it is merged: a token id, or a negative code of the tokenizer's own for
// what has no token (a byte, a character). Never -1.
using Symbol = int32_t;

// The merge rules of a vocabulary: which two neighbours become which symbol, and in what order.
// Both families use it: byte-level BPE ranks its merges by their place in the file, SPM by the
// score of the piece that results.
//
// Threads: immutable after the last Add().
class MergeTable {
 public:
  explicit MergeTable(size_t expected) : merges_(expected) {}

  // The first rule for a pair stays.
  void Add(Symbol left, Symbol right, uint32_t rank, Symbol result);
  size_t size() const { return merges_.size(); }

  // Merges until no rule applies: the lowest rank first, the leftmost among equal ranks.
  // O(n log n) time, iterative. REQUIRES: word->size() < 2^31.
  void Apply(std::vector<Symbol>* word) const;

 private:
  struct Merge {
    uint32_t rank;
    Symbol result;
  };
  Merge Find(Symbol left, Symbol right) const;
  void ApplyShort(std::vector<Symbol>* word) const;
  void ApplyLong(std::vector<Symbol>* word) const;

  FlatMap merges_;
};

}  // namespace engine::text
