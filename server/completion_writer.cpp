#include <ctime>
#include <nlohmann/json.hpp>
#include <utility>

#include "server/answer_writer.h"

namespace server {
namespace {

ResponseFormat MakeFormat(const GenerationJob& job) {
  return ResponseFormat(job.kind, NewResponseId(job.kind), job.model->name(),
                        static_cast<int64_t>(std::time(nullptr)), job.params.sampling.logprobs >= 0,
                        job.model->tokenizer());
}

// With include_usage every chunk of a stream has a `usage`, null but in the last.
class CompletionWriter : public AnswerWriter {
 public:
  explicit CompletionWriter(const GenerationJob& job)
      : chat_(job.kind == ApiKind::kChat),
        include_usage_(job.params.include_usage),
        format_(MakeFormat(job)) {}

  void Write(const Generation::Update& update) override {
    if (update.first && chat_) Frame(format_.RoleChunk(update.choice));
    if (chat_) {
      WriteParts(update);
    } else if (!update.delta.empty() || update.echo != nullptr) {
      Frame(format_.DeltaChunk(update.choice, update.delta, update.echo));
    }
    if (update.finish) {
      Frame(format_.FinishChunk(update.choice, *update.finish, update.calls > 0));
    }
  }
  void End(const Usage& usage) override {
    if (include_usage_) sse_.Data(Dump(format_.UsageChunk(usage)));
    sse_.Done();
  }
  void Fail(const ApiError& error) override {
    sse_.Data(ErrorBody(error));
    sse_.Done();
  }
  Json Whole(const std::vector<FinishedChoice>& choices, const Usage& usage,
             const std::vector<const EchoedPrompt*>& echoes) override {
    return format_.Whole(choices, usage, echoes);
  }

 private:
  // The tokens go out with the first part; those of no part, with an empty one.
  void WriteParts(const Generation::Update& update) {
    std::vector<ReportedToken> tokens = update.delta.tokens;
    for (const AnswerPart& part : update.parts) {
      Frame(format_.PartChunk(update.choice, part, std::exchange(tokens, {})));
    }
    if (!tokens.empty()) Frame(format_.PartChunk(update.choice, {}, tokens));
  }
  void Frame(Json chunk) {
    if (include_usage_) chunk["usage"] = nullptr;
    sse_.Data(Dump(chunk));
  }

  bool chat_;
  bool include_usage_;
  ResponseFormat format_;
};

}  // namespace

std::unique_ptr<AnswerWriter> MakeCompletionWriter(const GenerationJob& job) {
  return std::make_unique<CompletionWriter>(job);
}

}  // namespace server
