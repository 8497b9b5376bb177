#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "server/answer_writer.h"
#include "server/openai_schema.h"
#include "server/renamed_error.h"

namespace server {

// OpenAI's Responses protocol, without state on the server: every request carries its whole
// conversation, and nothing is stored.

struct ResponsesRequest {
  ChatRequest chat;
  // As the answer repeats them.
  Json instructions;
  Json max_output_tokens;
  Json temperature;
  Json top_p;
  Json metadata;
  Json tools;
  Json tool_choice;
  Json parallel_tool_calls;
  Json format;  // of the text
  Json effort;  // of reasoning
};

// What chat completions call otherwise.
inline constexpr RenamedParam kResponsesNames[] = {{"].function.", "]."},
                                                   {"'tool_choice.function.", "'tool_choice."},
                                                   {"'response_format", "'text.format"},
                                                   {"'reasoning_effort'", "'reasoning.effort'"},
                                                   {"'max_tokens'", "'max_output_tokens'"},
                                                   {"'messages'", "'input'"}};

// Errors: ApiError 400; what needs state, other tools than
// functions, or other media is unsupported_parameter.
ResponsesRequest ParseResponsesRequest(const Json& body, const SchemaOptions& options);

// The model of the job outlives the writer.
std::unique_ptr<AnswerWriter> MakeResponsesWriter(const ResponsesRequest& request,
                                                  const GenerationJob& job);

}  // namespace server
