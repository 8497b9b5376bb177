#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/token.h"

namespace engine {

// A token that would continue a repetition.
struct Repetition {
  TokenId token = 0;
  uint32_t length = 0;  // tokens before it that are the end of the text, and came before
};

// For every token that followed an earlier occurrence of the text's end: the longest such
// occurrence, when it has at least `least` tokens. A breaker (ascending ids) is never part of an
// occurrence and never reported. In the order of first appearance from the end.
//
// This is what "don't repeat yourself" penalises (DRY, p-e-w, text-generation-webui pull 5677).
// O(tokens.size()).
std::vector<Repetition> FindRepetitions(std::span<const TokenId> tokens,
                                        std::span<const TokenId> breakers, uint32_t least);

}  // namespace engine
