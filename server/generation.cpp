#include "server/generation.h"

#include <algorithm>
#include <new>
#include <utility>

#include "fabric/seconds_since.h"
#include "server/admission.h"
#include "server/api_error.h"
#include "server/random_id.h"

namespace server {

using engine::text::Tokenizer;
using scheduler::FinishReason;
using scheduler::TokenEvent;

Generation::Generation(GenerationJob job)
    : job_(std::move(job)), queue_(std::make_shared<EventQueue>(job_.backlog_bytes)) {
  const GenerationParams& params = job_.params;
  const Tokenizer& tokenizer = job_.model->tokenizer();
  prompts_.resize(job_.prompts.size());
  for (size_t i = 0; i < prompts_.size() && job_.echo(); ++i) {
    prompts_[i].echo.text = job_.echo_texts[i];
    prompts_[i].echo.tokens = job_.prompts[i];
    prompts_[i].awaits_prompt_logprobs = params.sampling.logprobs >= 0;
  }
  ChoiceText::Options options;
  options.show_special = !params.skip_special_tokens;
  options.shown_tokens = job_.syntax.marker_tokens;
  options.drop_leading_space = DropsFirstSpace();
  options.logprobs = params.sampling.logprobs >= 0;
  options.min_tokens = params.sampling.min_tokens;
  options.stop = params.stop;
  choices_.reserve(job_.choice_count());
  for (uint32_t i = 0; i < job_.choice_count(); ++i) {
    choices_.push_back(Choice{.text = ChoiceText(tokenizer, options),
                              .parser = nullptr,
                              .shares = TokenShares(tokenizer)});
    if (job_.syntax.tools || job_.syntax.reasoning != AnswerSyntax::Reasoning::kNone) {
      choices_.back().parser = std::make_unique<AnswerParser>(job_.syntax);
    }
  }
  open_choices_ = job_.choice_count();
}

Generation::~Generation() {
  queue_->SetNotify({});
  queue_->SetOnFailure({});
  for (const Prompt& prompt : prompts_) {
    if (!prompt.submitted || prompt.engine_open == 0) continue;
    job_.model->queue().OnEnded(Clock::now());
    try {
      job_.model->Cancel(prompt.id);
    } catch (const std::bad_alloc&) {
      // Then it runs to its end, unheard.
    }
  }
  for (const Choice& choice : choices_) {
    if (metrics_ != nullptr && !choice.finished) metrics_->OnAborted();
  }
  if (job_.use != nullptr && submitted_) {
    const Usage used = usage();
    job_.use->AddTokens(used.prompt_tokens, used.completion_tokens);
  }
  Trace();
}

void Generation::Trace() const noexcept {
  if (!submitted_ || job_.trace == nullptr || !job_.trace->recorded()) return;
  try {
    ExportWork(job_.trace, TraceRecord());
  } catch (const std::exception&) {
    // No memory for it: then without.
  }
}

WorkRecord Generation::TraceRecord() const {
  const GenerationParams& params = job_.params;
  WorkRecord record = record_;
  record.operation = job_.kind == ApiKind::kChat ? "chat" : "text_completion";
  record.requested_model = params.model;
  record.model = job_.model->name();
  record.start = started_;
  record.end = ended_ > 0 ? ended_ : SteadySeconds(Clock::now());
  record.cancelled = open_choices_ > 0 && record.error_type.empty();
  for (size_t i = 0; i < prompts_.size(); ++i) {
    const Prompt& prompt = prompts_[i];
    WorkPhases phases{.enqueued = prompt.timed ? prompt.enqueued : started_,
                      .scheduled = prompt.scheduled,
                      .first_token = prompt.first_token};
    for (uint32_t k = 0; k < params.choices; ++k) {
      phases.last_token = std::max(phases.last_token, choices_[i * params.choices + k].last_token);
    }
    record.phases.push_back(phases);
  }
  const auto add = [&record](const char* key, SpanValue value) {
    record.attributes.emplace_back(key, std::move(value));
  };
  const Usage used = usage();
  add("gen_ai.usage.input_tokens", static_cast<int64_t>(used.prompt_tokens));
  add("gen_ai.usage.output_tokens", static_cast<int64_t>(used.completion_tokens));
  add("gen_ai.usage.cache_read.input_tokens", static_cast<int64_t>(used.cached_tokens));
  add("gen_ai.request.temperature", double{params.sampling.temperature});
  add("gen_ai.request.top_p", double{params.sampling.top_p});
  if (params.sampling.top_k > 0) add("gen_ai.request.top_k", double(params.sampling.top_k));
  if (params.max_tokens) add("gen_ai.request.max_tokens", int64_t{*params.max_tokens});
  if (params.choices > 1) add("gen_ai.request.choice.count", int64_t{params.choices});
  std::vector<std::string> reasons;
  for (const Choice& choice : choices_) {
    reasons.emplace_back(choice.reason ? ApiFinishReason(*choice.reason) : "abort");
  }
  add("gen_ai.response.finish_reasons", std::move(reasons));
  double first_token_seconds = 0;
  for (const Prompt& prompt : prompts_) {
    first_token_seconds = std::max(first_token_seconds, prompt.first_token_seconds);
  }
  if (first_token_seconds > 0) add("tern.time_to_first_token", first_token_seconds);
  return record;
}

// An answer begins a text of its own; a completion continues the prompt's.
bool Generation::DropsFirstSpace() const {
  return job_.kind == ApiKind::kChat && job_.model->tokenizer().adds_space_prefix();
}

scheduler::Request Generation::MakeRequest(size_t prompt) {
  const GenerationParams& params = job_.params;
  scheduler::Request request;
  request.id = prompts_[prompt].id;
  request.prompt = job_.prompts[prompt];
  request.sampling = params.sampling;
  request.choices = params.choices;
  const auto room =
      job_.model->context_length() - static_cast<uint32_t>(job_.prompts[prompt].size());
  request.max_tokens = std::min(params.max_tokens.value_or(room), room);
  const auto stops = job_.model->tokenizer().stop_tokens();
  request.stop_tokens.assign(stops.begin(), stops.end());
  request.stop_tokens.insert(request.stop_tokens.end(), params.stop_token_ids.begin(),
                             params.stop_token_ids.end());
  request.prompt_logprobs = prompts_[prompt].awaits_prompt_logprobs;
  request.priority = params.priority;
  request.tenant = job_.tenant;
  request.cache_salt = params.cache_salt;
  request.report_cost = params.cost_usage;
  request.adapters = job_.adapters;
  request.grammar = job_.grammar;
  request.drops_first_space = DropsFirstSpace();
  request.sink = queue_;
  return request;
}

void Generation::Submit(ModelMetrics* metrics) {
  started_ = SteadySeconds(Clock::now());
  for (size_t i = 0; i < prompts_.size(); ++i) {
    Prompt& prompt = prompts_[i];
    prompt.id = scheduler::EngineLoop::NextRequestId();
    const auto result = job_.model->Submit(MakeRequest(i));
    if (result != scheduler::AdmitResult::kOk) {
      if (metrics != nullptr) metrics->OnRejected(RejectionReason(result));
      throw AdmissionError(result, job_.kind == ApiKind::kChat ? "messages" : "prompt",
                           job_.prompts[i].size(), *job_.model);
    }
    prompt.submitted = true;
    prompt.engine_open = job_.params.choices;
  }
  submitted_ = true;
  metrics_ = metrics;
  CancelWhenQueueBreaks();
  if (metrics_ == nullptr) return;
  for (const auto& prompt : job_.prompts) {
    metrics_->OnSubmitted(prompt.size(), job_.params.choices, job_.params.max_tokens);
  }
}

// On the engine thread, so that nothing more is computed for whoever cannot take it.
void Generation::CancelWhenQueueBreaks() {
  std::vector<scheduler::RequestId> ids;
  for (const Prompt& prompt : prompts_) ids.push_back(prompt.id);
  queue_->SetOnFailure([model = std::weak_ptr(job_.model), ids = std::move(ids),
                        metrics = metrics_](EventQueue::Failure failure) {
    if (failure == EventQueue::Failure::kFull && metrics != nullptr) metrics->OnSlowReader();
    const auto served = model.lock();
    if (served == nullptr) return;
    for (const scheduler::RequestId id : ids) served->Cancel(id);
  });
}

std::vector<Generation::Update> Generation::Take() {
  try {
    return TakeEvents();
  } catch (const ApiError& error) {
    record_.SetError(error);
    throw;
  }
}

std::vector<Generation::Update> Generation::TakeEvents() {
  ThrowIfBroken(*queue_);
  std::vector<Update> updates;
  for (TokenEvent& event : queue_->TakeAll()) Handle(std::move(event), &updates);
  return updates;
}

void Generation::Handle(TokenEvent event, std::vector<Update>* updates) {
  const auto found = std::find_if(prompts_.begin(), prompts_.end(),
                                  [&](const Prompt& prompt) { return prompt.id == event.request; });
  if (found == prompts_.end()) return;
  Prompt& prompt = *found;
  if (prompt.awaits_prompt_logprobs && event.choice != 0) {
    prompt.deferred.push_back(std::move(event));
    return;
  }
  const size_t index = static_cast<size_t>(found - prompts_.begin()) * job_.params.choices;
  Choice& choice = choices_[index + event.choice];
  if (event.finished && --prompt.engine_open == 0) job_.model->queue().OnEnded(Clock::now());
  if (choice.finished) return;  // ended by a stop string; these are the engine's last words
  ThrowIfFailed(event, *job_.model);

  Update update;
  update.choice = static_cast<uint32_t>(index) + event.choice;
  update.first = !choice.started;
  choice.started = true;
  if (prompt.awaits_prompt_logprobs) prompt.echo.logprobs = std::move(event.prompt_logprobs);
  if (update.first && job_.echo()) update.echo = &prompt.echo;
  prompt.cached_tokens = std::max(prompt.cached_tokens, event.cached_tokens);
  if (event.cost != nullptr) choice.cost = std::move(event.cost);
  if (event.has_token) HandleToken(prompt, choice, event, &update);
  const bool enough = choice.parser != nullptr && choice.parser->complete();
  if ((choice.text.stopped() || enough) && !event.finished) {
    job_.model->CancelChoice(prompt.id, event.choice, FinishReason::kStop);
  }
  if (choice.text.stopped() || enough) {
    update.finish = FinishReason::kStop;
    Parse(choice, {}, true, &update);
  } else if (event.finished) {
    TextDelta rest = choice.text.Finish();
    update.delta.text += rest.text;
    choice.shares.Add(rest.tokens);
    std::move(rest.tokens.begin(), rest.tokens.end(), std::back_inserter(update.delta.tokens));
    // What was held back may complete a stop string only now.
    update.finish = choice.text.stopped() ? FinishReason::kStop : event.reason;
    Parse(choice, rest.text, true, &update);
  }
  if (update.finish) {
    update.stop_string = choice.text.stop_string();
    choice.finished = true;
    choice.reason = *update.finish;
    if (--open_choices_ == 0) ended_ = SteadySeconds(Clock::now());
    MeasureEnd(prompt, choice, *update.finish);
  }
  const bool worth_sending = update.first || update.finish || update.echo != nullptr ||
                             !update.parts.empty() || !update.delta.tokens.empty();
  if (worth_sending) updates->push_back(std::move(update));

  if (std::exchange(prompt.awaits_prompt_logprobs, false)) {
    for (TokenEvent& late : std::exchange(prompt.deferred, {})) Handle(std::move(late), updates);
  }
}

void Generation::HandleToken(Prompt& prompt, Choice& choice, TokenEvent& event, Update* update) {
  Measure(prompt, choice, event);
  if (job_.score_only) return;
  ++choice.tokens;
  const bool thinks = choice.parser != nullptr && choice.parser->reasoning();
  if (thinks) ++choice.reasoning_tokens;
  if (EndsTurn(event)) return;
  event.logprob.token = event.token;
  update->delta = choice.text.Push(
      event.token, {.logprob = event.logprob, .top = std::move(event.top), .text_offset = 0});
  choice.shares.Add(update->delta.tokens);
  Parse(choice, update->delta.text, false, update);
  // The token that opens the section belongs to it.
  if (!thinks && choice.parser != nullptr && choice.parser->reasoning()) ++choice.reasoning_tokens;
}

// Reads the text, and, if it is the last, what was held back.
void Generation::Parse(Choice& choice, const std::string& text, bool last, Update* update) {
  std::vector<AnswerPart> parts;
  if (choice.parser == nullptr) {
    if (!text.empty()) parts.push_back({AnswerPart::Kind::kContent, text, 0, {}});
  } else {
    parts = choice.parser->Push(text);
    if (last) {
      std::vector<AnswerPart> rest = choice.parser->Finish();
      std::move(rest.begin(), rest.end(), std::back_inserter(parts));
    }
    update->calls = choice.parser->calls();
  }
  for (AnswerPart& part : parts) {
    const bool verbatim =
        part.kind == AnswerPart::Kind::kContent || part.kind == AnswerPart::Kind::kReasoning;
    part.tokens = choice.shares.Take(part.text, verbatim);
    if (Hides(part.kind)) continue;
    if (part.kind == AnswerPart::Kind::kCall) part.id = NewCallId();
    update->parts.push_back(std::move(part));
  }
}

bool Generation::Hides(AnswerPart::Kind kind) const {
  const AnswerSyntax& syntax = job_.syntax;
  if (kind == AnswerPart::Kind::kReasoning) return syntax.hides_reasoning;
  // Where a call is required, what is none is the beginning of one that was cut short.
  return kind == AnswerPart::Kind::kContent && !syntax.reasoning_as_content && syntax.tools &&
         syntax.tools->required();
}

std::string Generation::NewCallId() const {
  constexpr size_t kShort = 9;
  constexpr size_t kLong = 24;
  return job_.model->syntax().shows.short_call_ids ? RandomHex(kShort) : "call_" + RandomHex(kLong);
}

// The token that ends a turn is counted but not shown.
bool Generation::EndsTurn(const TokenEvent& event) const {
  if (!event.finished || event.reason != FinishReason::kStop) return false;
  const auto& ids = job_.params.stop_token_ids;
  return job_.model->tokenizer().IsStop(event.token) ||
         std::find(ids.begin(), ids.end(), event.token) != ids.end();
}

void Generation::Measure(Prompt& prompt, Choice& choice, const TokenEvent& event) {
  if (!prompt.timed) {
    prompt.timed = true;
    prompt.enqueued = event.enqueued;
    prompt.scheduled = event.scheduled;
    prompt.first_token = event.now;
    const double so_far = fabric::SecondsSince(job_.arrival);
    prompt.first_token_seconds = so_far;
    if (metrics_ != nullptr) {
      metrics_->OnFirstToken({.first_token_seconds = so_far,
                              .queue_seconds = event.scheduled - event.enqueued,
                              .prefill_seconds = event.now - event.scheduled,
                              .cached_tokens = event.cached_tokens});
    }
  } else if (choice.tokens > 0 && metrics_ != nullptr) {
    metrics_->OnInterToken(event.now - choice.last_token);
  }
  choice.last_token = event.now;
}

void Generation::MeasureEnd(const Prompt& prompt, const Choice& choice, FinishReason reason) {
  if (metrics_ == nullptr) return;
  const double total = fabric::SecondsSince(job_.arrival);
  metrics_->OnFinished({.reason = std::string(ApiFinishReason(reason)),
                        .total_seconds = total,
                        .decode_seconds = choice.last_token - prompt.first_token,
                        .inference_seconds = choice.last_token - prompt.scheduled,
                        .generated_tokens = choice.tokens});
}

Usage Generation::usage() const {
  Usage usage;
  for (const auto& prompt : job_.prompts) usage.prompt_tokens += prompt.size();
  for (const Prompt& prompt : prompts_) usage.cached_tokens += prompt.cached_tokens;
  for (size_t i = 0; i < choices_.size(); ++i) {
    const Choice& choice = choices_[i];
    const Prompt& prompt = prompts_[i / job_.params.choices];
    usage.completion_tokens += choice.tokens;
    usage.reasoning_tokens += choice.reasoning_tokens;
    usage.first_token_seconds = std::max(usage.first_token_seconds, prompt.first_token_seconds);
    usage.decode_seconds = std::max(usage.decode_seconds, choice.last_token - prompt.first_token);
  }
  if (job_.params.cost_usage) usage.cost = CostOfAll();
  return usage;
}

CostUsage Generation::CostOfAll() const {
  scheduler::RequestCost sum;
  CostUsage usage;
  for (const Choice& choice : choices_) {
    if (choice.cost != nullptr) scheduler::AddCost(*choice.cost, &sum);
  }
  const auto skip_rate = [](double active, double total) {
    return total > 0 ? 1 - active / total : 0;
  };
  usage.bytes_per_token = sum.tokens > 0 ? sum.bytes / sum.tokens : 0;
  usage.skip_rate = skip_rate(sum.active_ops, sum.total_ops);
  usage.fabric_seconds = sum.fabric_seconds;
  usage.host_seconds = std::max(0.0, sum.step_seconds - sum.fabric_seconds);
  constexpr double kPicojoules = 1e-12;
  usage.energy_proxy_joules = sum.energy_picojoules * kPicojoules;
  if (job_.params.cost_layers) {
    usage.layer_skip_rates.emplace();
    for (const auto& layer : sum.layers) {
      usage.layer_skip_rates->push_back(skip_rate(layer.active_ops, layer.total_ops));
    }
  }
  return usage;
}

const EchoedPrompt* Generation::echo(uint32_t choice) const {
  return job_.echo() ? &prompts_[choice / job_.params.choices].echo : nullptr;
}

}  // namespace server
