#pragma once

#include <string_view>

#include "engine/text/grammar/expressions.h"

namespace engine::text::grammar {

// A grammar in GBNF, the notation that llama.cpp documents: rules `name ::= ...` with "literals",
// [classes], `.`, (groups), alternatives, * + ? {m} {m,} {m,n} and # comments. Starts at `root`.
// Not supported: token references (`<...>`).
//
// Errors: GrammarError naming the line.
RuleId AddGbnf(Expressions* expressions, std::string_view text);

}  // namespace engine::text::grammar
