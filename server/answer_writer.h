#pragma once

#include <memory>
#include <string>
#include <vector>

#include "server/api_error.h"
#include "server/generation.h"
#include "server/json.h"
#include "server/openai_response.h"
#include "server/sse_writer.h"

namespace server {

// Tells one answer in the words of one protocol, as a stream or at once.
//
// Stream:  Write() for every update in order, then End() or Fail(); Take() between.
// Whole:   only Whole().
class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;

  virtual void Write(const Generation::Update& update) = 0;
  virtual void End(const Usage& usage) = 0;
  // The stream has begun, so that the error is told inside it.
  virtual void Fail(const ApiError& error) = 0;

  // echoes: empty, or one per choice.
  virtual Json Whole(const std::vector<FinishedChoice>& choices, const Usage& usage,
                     const std::vector<const EchoedPrompt*>& echoes) = 0;

  void Ping() { sse_.Ping(); }
  // What is to be sent now.
  std::string Take() { return sse_.Take(); }

 protected:
  SseWriter sse_;
};

// Chat and text completions. The model of the job outlives the writer.
std::unique_ptr<AnswerWriter> MakeCompletionWriter(const GenerationJob& job);

}  // namespace server
