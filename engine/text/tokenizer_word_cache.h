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
      : entries_(std::bit_ceil(std::clamp<size_t>(text_bytes / 16, 16, 1 << 15))) {}

  // Appends the tokens of `word` again if it is known.
  bool Append(std::string_view word, std::vector<TokenId>* out) const {
    const Entry& entry = entries_[Slot(word)];
    if (entry.word != word) return false;
    const size_t at = out->size();
    out->resize(at + entry.count);
    std::copy_n(out->begin() + static_cast<ptrdiff_t>(entry.begin), entry.count,
                out->begin() + static_cast<ptrdiff_t>(at));
    return true;
  }

  // The tokens of `word` are those from `begin` to the end of `out`.
  void Remember(std::string_view word, size_t begin, const std::vector<TokenId>& out) {
    entries_[Slot(word)] = {word, begin, out.size() - begin};
  }

 private:
  struct Entry {
    std::string_view word;
    size_t begin = 0;
    size_t count = 0;
  };
  size_t Slot(std::string_view word) const {
    return std::hash<std::string_view>{}(word) & (entries_.size() - 1);
  }

  std::vector<Entry> entries_;
};

}  // namespace engine::text
