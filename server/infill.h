#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "server/answer_writer.h"
#include "server/generation_job.h"

namespace server {

struct InfillPrompt {
  std::string_view prefix;
  std::string_view suffix;
  std::string_view middle = {};  // the beginning of what is to be filled in
};

// The prompt that asks for the text between prefix and suffix. Errors: ApiError for `param` when
// the vocabulary has no tokens for that.
std::vector<engine::TokenId> EncodeInfill(const InfillPrompt& prompt, const ServedModel& model,
                                          std::string_view param);

struct InfillJob {
  GenerationJob job;
  bool truncated = false;  // the beginning of the other files did not fit the context
};

// May take long for long texts, so it runs on a worker. Errors: ApiError.
InfillJob PrepareInfill(const InfillRequest& request, std::shared_ptr<ServedModel> model);

// Answers in llama-server's own shape, which editors' plugins read.
std::unique_ptr<AnswerWriter> MakeInfillWriter(const InfillJob& infill);

}  // namespace server
