#pragma once

#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "engine/text/grammar/automaton.h"
#include "engine/text/grammar/grammar_error.h"
#include "engine/text/grammar/json_grammar.h"
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
// An expression that the caller builds: JSON among words of its own.
struct Built {
  std::function<NodeId(JsonGrammar*)> body;
};
using GrammarSource = std::variant<AnyJsonObject, JsonSchema, Gbnf, Regex, Choices, Built>;

// The source as a part of a larger grammar. Errors: GrammarError.
NodeId AddGrammar(Expressions* expressions, const GrammarSource& source);

// Errors: GrammarError with a sentence that says what is wrong where, or which limit is exceeded.
Automaton CompileGrammar(const GrammarSource& source, const GrammarLimits& limits = {});

}  // namespace engine::text::grammar
