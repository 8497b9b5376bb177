#pragma once

#include <memory>

#include "server/answer_writer.h"
#include "server/openai_schema.h"
#include "server/renamed_error.h"

namespace server {

// Anthropic's Messages protocol.

// What chat completions call otherwise.
inline constexpr RenamedParam kMessagesNames[] = {
    {"].function.parameters", "].input_schema"},
    {"].function.", "]."},
    {"'tool_choice.function.", "'tool_choice."},
    {"'stop'", "'stop_sequences'"},
    {"'stop[", "'stop_sequences["},
    {"'enable_thinking'", "'thinking'"},
};

// counting: for count_tokens, where max_tokens may be absent. Errors: ApiError 400.
ChatRequest ParseMessagesRequest(const Json& body, const SchemaOptions& options, bool counting);

// The model of the job outlives the writer.
std::unique_ptr<AnswerWriter> MakeMessagesWriter(const GenerationJob& job);

// {"type":"error","error":{"type","message"},"request_id"} with the status and headers of an error.
HttpResponse MessagesErrorResponse(const ApiError& error, const std::string& request_id);

}  // namespace server
