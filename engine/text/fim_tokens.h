#pragma once

#include <optional>

#include "engine/token.h"

namespace engine::text {

// The tokens between which a model was trained to fill in the middle of a text:
//
//   prefix TEXT-BEFORE suffix TEXT-AFTER middle
//
// and, for other files before it, repository NAME \n, then file PATH \n TEXT for each.
struct FimTokens {
  std::optional<TokenId> prefix;
  std::optional<TokenId> suffix;
  std::optional<TokenId> middle;
  std::optional<TokenId> repository;
  std::optional<TokenId> file;
  std::optional<TokenId> pad;

  bool complete() const { return prefix && suffix && middle; }
};

}  // namespace engine::text
