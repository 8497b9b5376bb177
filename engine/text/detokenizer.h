#pragma once

#include <span>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "engine/token.h"

namespace engine::text {

// Turns tokens into text one by one, never cutting a UTF-8 sequence: bytes of an unfinished
// character are held until the tokens that complete it, and replaced by U+FFFD when they can't be
// completed. All strings returned, joined, are valid UTF-8.
//
// Threads: one at a time. `tokenizer` outlives it.
class Detokenizer {
 public:
  // special: show control tokens. drop_leading_space: for text that continues nothing (SPM).
  // shown: control tokens to show in any case.
  explicit Detokenizer(const Tokenizer& tokenizer, bool special = false,
                       bool drop_leading_space = false, std::vector<TokenId> shown = {});

  std::string Push(TokenId token);
  // The rest, with an incomplete character replaced by U+FFFD.
  std::string Flush();

 private:
  const Tokenizer& tokenizer_;
  bool special_;
  bool drop_leading_space_;
  std::vector<TokenId> shown_;
  std::string pending_;  // at most 3 bytes: the start of a character
};

// Length of the longest prefix of `bytes` that does not end inside a UTF-8 sequence.
size_t CompleteUtf8Prefix(std::string_view bytes);

// `bytes` with every invalid UTF-8 sequence replaced by U+FFFD.
std::string SanitizeUtf8(std::string_view bytes);

}  // namespace engine::text
