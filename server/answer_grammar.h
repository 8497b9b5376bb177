#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/answer_parser.h"
#include "server/structured_output.h"

namespace server {

// What a whole answer must be when its calls or its content are constrained: thoughts, where the
// model has them, then content, calls, or either.
//
// - tool_choice required or a function: thoughts, then calls and nothing else.
// - Tools that the model may call, at least one of them strict: any text without calls, then calls.
// - content, with tools that the model may call: thoughts, then either of them.
//
// Calls are written as syntax.format says. Arguments satisfy the schemas of strict functions, and
// of all functions where a call is required; others are any object. loose: parallel to
// syntax.tools, functions whose schema is not used after all; may be empty.
//
// content: what the request asks its text to be; nullptr = any text. Returns `content` where
// nothing is to be added, so nullptr for an answer that is not constrained.
std::shared_ptr<const GrammarRequest> MakeAnswerGrammar(
    const AnswerSyntax& syntax, std::shared_ptr<const GrammarRequest> content,
    const std::vector<bool>& loose);

// The first argument whose name calls of the format cannot have; nullptr: they can have all.
const std::string* UnwritableArgument(ToolFormat format, const ToolFunction& function);

// What is wrong with the schema of a function's parameters; empty: nothing.
std::string SchemaProblem(const ToolFunction& function);

}  // namespace server
