#include "server/embedder.h"

#include <algorithm>
#include <new>
#include <utility>

#include "fabric/seconds_since.h"
#include "server/admission.h"
#include "server/api_error.h"
#include "server/generation_job.h"

namespace server {

using engine::TokenId;
using scheduler::TokenEvent;

EmbeddingJob::EmbeddingJob(const EmbeddingParams& request, std::shared_ptr<ServedModel> served,
                           const HttpRequest& http)
    : model(std::move(served)),
      params(request),
      pooling(request.pooling.value_or(model->pooling())),
      adapters(ResolveAdapters(request.lora, model->adapters())),
      tenant(http.key_name),
      use(http.use),
      trace(http.trace),
      arrival(http.arrival) {}

void EmbeddingJob::Add(const CompletionPrompt& input, const std::string& name) {
  const engine::text::Tokenizer& tokenizer = model->tokenizer();
  const uint32_t context = model->context_length();
  std::vector<TokenId> tokens;
  if (const auto* text = std::get_if<std::string>(&input)) {
    if (text->empty()) {
      throw InvalidValue(name, "Invalid value for '" + name + "': the text is empty.");
    }
    const uint64_t least = tokenizer.LeastTokens(text->size());
    if (least > context) throw InputTooLong(name, least, context, true);
    tokens =
        tokenizer.Encode(*text, {.add_special = params.add_special_tokens, .parse_special = false});
  } else {
    tokens = std::get<std::vector<TokenId>>(input);
  }
  CheckTokens(tokens, *model, name);
  if (tokens.empty()) {
    throw InvalidValue(name, "Invalid value for '" + name + "': it has no tokens.");
  }
  if (tokens.size() > context) throw InputTooLong(name, tokens.size(), context);
  inputs.push_back(std::move(tokens));
  names.push_back(name);
}

Embedder::Embedder(EmbeddingJob job, ModelMetrics* metrics)
    : job_(std::move(job)),
      metrics_(metrics),
      queue_(std::make_shared<EventQueue>()),
      inputs_(job_.inputs.size()),
      vectors_(job_.inputs.size()) {
  record_.operation = "embeddings";
  record_.requested_model = job_.params.model;
  record_.model = job_.model->name();
  record_.start = SteadySeconds(Clock::now());
  record_.phases.resize(inputs_.size());
}

Embedder::~Embedder() {
  queue_->SetNotify({});
  uint64_t tokens = 0;
  for (size_t i = 0; i < submitted_; ++i) {
    tokens += job_.inputs[i].size();
    if (inputs_[i].ended) continue;
    job_.model->queue().OnEnded(Clock::now());
    try {
      job_.model->Cancel(inputs_[i].id);
    } catch (const std::bad_alloc&) {
      // Then it runs to its end, unheard.
    }
    if (metrics_ != nullptr) metrics_->OnAborted();
  }
  if (job_.use != nullptr) job_.use->AddTokens(tokens, 0);
  if (submitted_ == 0) return;
  record_.end = SteadySeconds(Clock::now());
  record_.cancelled = !finished() && record_.error_type.empty();
  try {
    record_.attributes.emplace_back("gen_ai.usage.input_tokens", static_cast<int64_t>(tokens));
  } catch (const std::bad_alloc&) {
  }
  ExportWork(job_.trace, record_);
}

void Embedder::Submit() { SubmitNext(); }

// A full queue is no failure while some of the request's own inputs are in it: the next are handed
// over when these have ended.
void Embedder::SubmitNext() {
  while (submitted_ < inputs_.size() && submitted_ - done_ < kInFlight) {
    scheduler::Request request;
    request.id = scheduler::EngineLoop::NextRequestId();
    request.prompt = job_.inputs[submitted_];
    request.pooling = job_.pooling;
    request.priority = job_.params.priority;
    request.tenant = job_.tenant;
    request.cache_salt = job_.params.cache_salt;
    request.adapters = job_.adapters;
    request.sink = queue_;
    const scheduler::RequestId id = request.id;
    const auto result = job_.model->Submit(std::move(request));
    if (result != scheduler::AdmitResult::kOk) {
      const bool full = result == scheduler::AdmitResult::kQueueFull ||
                        result == scheduler::AdmitResult::kKeyQueueFull;
      if (full && submitted_ > done_) return;
      if (metrics_ != nullptr) metrics_->OnRejected(RejectionReason(result));
      throw AdmissionError(result, job_.names[submitted_], job_.inputs[submitted_].size(),
                           *job_.model);
    }
    inputs_[submitted_].id = id;
    if (metrics_ != nullptr) metrics_->OnSubmitted(job_.inputs[submitted_].size(), 1, std::nullopt);
    ++submitted_;
  }
}

void Embedder::Take() {
  try {
    ThrowIfBroken(*queue_);
    for (TokenEvent& event : queue_->TakeAll()) Handle(std::move(event));
    SubmitNext();
  } catch (const ApiError& error) {
    record_.SetError(error);
    throw;
  }
}

void Embedder::Handle(TokenEvent event) {
  const auto found = std::find_if(inputs_.begin(), inputs_.end(),
                                  [&](const Input& input) { return input.id == event.request; });
  if (found == inputs_.end() || !event.finished || found->ended) return;
  found->ended = true;
  ++done_;
  job_.model->queue().OnEnded(Clock::now());
  ThrowIfFailed(event, *job_.model);
  const auto index = static_cast<size_t>(found - inputs_.begin());
  record_.phases[index] = {
      .enqueued = event.enqueued, .scheduled = event.scheduled, .first_token = event.now};
  vectors_[index] = std::move(event.embedding);
  if (metrics_ == nullptr) return;
  const double total = fabric::SecondsSince(job_.arrival);
  metrics_->OnEmbedded(total, event.scheduled - event.enqueued, event.now - event.scheduled);
}

uint64_t Embedder::tokens() const {
  uint64_t tokens = 0;
  for (const auto& input : job_.inputs) tokens += input.size();
  return tokens;
}

}  // namespace server
