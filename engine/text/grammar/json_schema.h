#pragma once

#include <string>

#include "engine/text/grammar/expressions.h"
#include "engine/text/grammar/json_grammar.h"
#include "engine/text/value.h"

namespace engine::text::grammar {

// JSON texts of values that satisfy a schema (draft 2020-12). docs/structured_output.md lists the
// keywords and what is narrower than the specification: members come in the schema's order, what a
// schema does not describe is not written, and white space is bounded.
//
// json: made on the same expressions. Several schemas may be added to one grammar.
// Errors: GrammarError naming keyword and path for what is not supported, never silently ignored.
NodeId AddJsonSchema(JsonGrammar* json, const Value& schema);

}  // namespace engine::text::grammar
