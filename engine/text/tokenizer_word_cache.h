#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "engine/token.h"

namespace engine::text {

// Remembers, for the length of one Encode(), where in its output the tokens of a word lie, so that
// a word that comes again is copied. Direct-mapped: a newer word takes the place of an older one.
//
// Lifetime: the words are viewed; `out` only grows.
class WordCache {
 public:
  explicit WordCache(size_t text_bytes)
      : pairs_(std::bit_ceil(std::clamp<size_t>(text_bytes / 32, 8, 1 << 14))) {}

  // Appends the tokens of `word` again if it is known.
  bool Append(std::string_view word, std::vector<TokenId>* out) const {
    const Pair& pair = pairs_[Slot(word)];
    const Entry* entry = &pair.newer;
    if (entry->word != word) entry = &pair.older;
    if (entry->word != word) return false;
    const size_t at = out->size();
    out->resize(at + entry->count);
    std::copy_n(out->data() + entry->begin, entry->count, out->data() + at);
    return true;
  }

  // The tokens of `word` are those from `begin` to the end of `out`.
  void Remember(std::string_view word, size_t begin, const std::vector<TokenId>& out) {
    Pair& pair = pairs_[Slot(word)];
    pair.older = pair.newer;
    pair.newer = {word, begin, out.size() - begin};
  }

 private:
  struct Entry {
    std::string_view word;
    size_t begin = 0;
    size_t count = 0;
  };
  struct Pair {
    Entry newer;
    Entry older;
  };
  size_t Slot(std::string_view word) const {
    return std::hash<std::string_view>{}(word) & (pairs_.size() - 1);
  }

  std::vector<Pair> pairs_;
};

}  // namespace engine::text
