#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/request_cost.h"
#include "server/answer_parser.h"
#include "server/choice_text.h"
#include "server/event_queue.h"
#include "server/generation_job.h"
#include "server/metrics.h"
#include "server/openai_response.h"
#include "server/work_trace.h"

namespace server {

// One running request: submits it, turns its events into what the client sees, cancels it when
// destroyed early.
//
// Threads: one at a time; only queue() is shared with the engine thread.
class Generation {
 public:
  // Something new of one choice, in order.
  struct Update {
    uint32_t choice = 0;
    bool first = false;                  // the choice's first update
    const EchoedPrompt* echo = nullptr;  // with the first, when asked for
    TextDelta delta;
    std::vector<AnswerPart> parts;  // what the delta's text says, and with `finish` what was left
    uint32_t calls = 0;             // of the choice so far
    std::optional<scheduler::FinishReason> finish;  // the choice's last update
    std::string stop_string;                        // with it, when one ended the answer
  };

  explicit Generation(GenerationJob job);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Errors: ApiError when the queue is full or the server drains; nothing runs then.
  void Submit(ModelMetrics* metrics);

  EventQueue& queue() { return *queue_; }
  // What has arrived since the last call. Errors: ApiError when the request failed.
  std::vector<Update> Take();
  // Every choice has finished.
  bool finished() const { return open_choices_ == 0; }
  Usage usage() const;
  const GenerationJob& job() const { return job_; }
  const EchoedPrompt* echo(uint32_t choice) const;

 private:
  struct Choice {
    ChoiceText text;
    std::unique_ptr<AnswerParser> parser;  // nullptr: all text is content
    TokenShares shares;
    uint32_t tokens = 0;
    uint32_t reasoning_tokens = 0;
    bool started = false;
    bool finished = false;  // for the client; the engine's last event may come later
    std::optional<scheduler::FinishReason> reason = std::nullopt;  // once finished
    double last_token = 0;                                         // on the engine's clock
    // As far as it is known, when asked for.
    std::shared_ptr<const scheduler::RequestCost> cost = nullptr;
  };
  struct Prompt {
    scheduler::RequestId id = 0;
    bool submitted = false;
    uint32_t engine_open = 0;  // choices whose last event has not come
    bool timed = false;        // its first token has been measured
    double enqueued = 0;
    double scheduled = 0;
    double first_token = 0;
    double first_token_seconds = 0;  // since the request's header
    uint32_t cached_tokens = 0;
    EchoedPrompt echo;
    // Events of choices that came before the prompt's log-probabilities.
    bool awaits_prompt_logprobs = false;
    std::vector<scheduler::TokenEvent> deferred;
  };

  scheduler::Request MakeRequest(size_t prompt);
  void CancelWhenQueueBreaks();
  void Handle(scheduler::TokenEvent event, std::vector<Update>* updates);
  void HandleToken(Prompt& prompt, Choice& choice, scheduler::TokenEvent& event, Update* update);
  void Parse(Choice& choice, const std::string& text, bool last, Update* update);
  bool Hides(AnswerPart::Kind kind) const;
  std::string NewCallId() const;
  void Measure(Prompt& prompt, Choice& choice, const scheduler::TokenEvent& event);
  void MeasureEnd(const Prompt& prompt, const Choice& choice, scheduler::FinishReason reason);
  bool EndsTurn(const scheduler::TokenEvent& event) const;
  bool DropsFirstSpace() const;
  CostUsage CostOfAll() const;
  std::vector<Update> TakeEvents();
  void Trace() const noexcept;
  WorkRecord TraceRecord() const;

  GenerationJob job_;
  std::shared_ptr<EventQueue> queue_;
  ModelMetrics* metrics_ = nullptr;
  std::vector<Prompt> prompts_;
  std::vector<Choice> choices_;  // prompt-major
  uint32_t open_choices_ = 0;
  bool submitted_ = false;
  double started_ = 0;  // steady seconds
  double ended_ = 0;    // 0: not yet
  WorkRecord record_;   // its error; the rest is filled in at the end
};

}  // namespace server
