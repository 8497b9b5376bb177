#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "engine/text/tokenizer_index.h"
#include "engine/token.h"

namespace engine::text {

// Finds the pieces of special tokens in text: the leftmost first, of those that start at one place
// the longest.
//
// Threads: immutable after the last Add().
class SpecialMatcher {
 public:
  struct Match {
    size_t begin;
    size_t length;
    TokenId token;
  };

  // Of equal pieces the first stays; an empty one is ignored.
  void Add(std::string_view piece, TokenId token);

  // The first match at or after `from`.
  std::optional<Match> Find(std::string_view text, size_t from) const;

 private:
  // A trie whose edges are (node, byte) -> node; node 0 is the root.
  FlatMap edges_;
  FlatMap tokens_;  // node -> the token that ends there
  uint32_t node_count_ = 1;
  std::array<bool, 256> starts_{};
};

}  // namespace engine::text
