#pragma once

#include <memory>
#include <nlohmann/json.hpp>

#include "server/answer_writer.h"
#include "server/openai_schema.h"

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
};

// Errors: ApiError 400; what needs state, tools or other media is unsupported_parameter.
ResponsesRequest ParseResponsesRequest(const Json& body, const SchemaOptions& options);

// The model of the job outlives the writer.
std::unique_ptr<AnswerWriter> MakeResponsesWriter(const ResponsesRequest& request,
                                                  const GenerationJob& job);

}  // namespace server
