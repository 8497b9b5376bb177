#pragma once

#include <string_view>

#include "engine/text/grammar/expressions.h"

namespace engine::text::grammar {

enum class RegexMode : uint8_t {
  kWhole,   // the whole text matches
  kSearch,  // some part of the text matches, as JSON Schema's `pattern`
};

// A regular expression of ECMA-262's syntax, less what has no finite automaton. Supported:
// characters, `.` (no line end), classes, \d \w \s \D \W \S, escapes (\t \n \r \f \v \0 \xHH \uHHHH
// \u{H...}), groups (also named and non-capturing), alternatives, * + ? {m} {m,} {m,n} with or
// without a lazy `?`, and ^ $ at the ends of a top-level alternative. \d, \w and \s are ASCII.
//
// `spelling`: how each character is written in the text that is generated.
// Errors: GrammarError naming the position for anything else, or beyond the limits.
NodeId AddRegex(Expressions* expressions, std::string_view pattern, RegexMode mode,
                Spelling spelling = Spelling::kPlain);

}  // namespace engine::text::grammar
