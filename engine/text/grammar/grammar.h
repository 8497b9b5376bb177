#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "engine/text/grammar/automaton.h"
#include "engine/text/grammar/grammar_error.h"
#include "engine/text/value.h"

namespace engine::text::grammar {

// What a text must be.
struct AnyJsonObject {};
struct JsonSchema {
  Value schema;
};
struct Gbnf {
  std::string text;
};
struct Regex {
  std::string pattern;  // of the whole text
};
struct Choices {
  std::vector<std::string> texts;
};
using GrammarSource = std::variant<AnyJsonObject, JsonSchema, Gbnf, Regex, Choices>;

// Errors: GrammarError with a sentence that says what is wrong where, or which limit is exceeded.
Automaton CompileGrammar(const GrammarSource& source, const GrammarLimits& limits = {});

}  // namespace engine::text::grammar
