#include "cli/serving_bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "fabric/cpu/isa.h"
#include "scheduler/auto_limits.h"
#include "scheduler/step_executor.h"

namespace cli {
namespace {

using engine::TokenId;
using scheduler::Request;
using scheduler::SchedulerOptions;
using scheduler::Speculation;
using scheduler::TokenEvent;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Quantile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto index = static_cast<size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::clamp<size_t>(index, 1, values.size()) - 1];
}

// Keeps when the tokens of one request came.
class TokenRecorder : public scheduler::TokenSink {
 public:
  void OnEvent(TokenEvent event) noexcept override {
    if (event.has_token) {
      tokens.push_back(event.token);
      times.push_back(event.now);
    }
    finished |= event.finished;
    if (!event.error.empty()) error = std::move(event.error);
  }

  std::vector<TokenId> tokens;
  std::vector<double> times;
  bool finished = false;
  std::string error;
};

// A scheduler of its own on the runtime's engine.
class Session {
 public:
  Session(scheduler::ModelRuntime& runtime, const SchedulerOptions& options)
      : scheduler_(options, runtime.runner().kv_geometry(), runtime.runner().kv_blocks(),
                   runtime.runner().context_length()),
        executor_(
            scheduler_, runtime.runner(), Now,
            options.speculation == Speculation::kOff ? std::nullopt : runtime.draft_source()) {}

  std::shared_ptr<TokenRecorder> Submit(std::vector<TokenId> prompt, uint32_t max_tokens,
                                        std::vector<TokenId> forced = {}) {
    auto recorder = std::make_shared<TokenRecorder>();
    Request request;
    request.id = ++last_id_;
    request.prompt = std::move(prompt);
    request.max_tokens = max_tokens;
    request.forced_tokens = std::move(forced);
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.sink = recorder;
    executor_.Accept({std::move(request), Now()});
    return recorder;
  }

  // False when there was nothing to do.
  bool Step() { return executor_.Step(); }
  const scheduler::StepTotals& totals() const { return executor_.totals(); }
  scheduler::SchedulerStats stats() const { return scheduler_.stats(); }

 private:
  scheduler::Scheduler scheduler_;
  scheduler::StepExecutor executor_;
  scheduler::RequestId last_id_ = 0;
};

void ExpectServed(const TokenRecorder& recorder) {
  if (!recorder.error.empty()) throw std::runtime_error(recorder.error);
}

// Prompts that have nothing in common.
std::vector<TokenId> SomePrompt(uint32_t tokens, uint32_t seed, uint32_t vocabulary) {
  std::vector<TokenId> prompt(tokens);
  uint32_t state = seed * 2654435761U + 1;
  for (TokenId& token : prompt) {
    state = state * 1664525 + 1013904223;
    token = static_cast<TokenId>((state >> 8) % vocabulary);
  }
  return prompt;
}

}  // namespace

double ReplayResult::Acceptance() const {
  const auto tried = static_cast<double>(accepted + wrong_drafts);
  return tried == 0 ? 0 : static_cast<double>(accepted) / tried;
}

double ReplayResult::DraftLength() const {
  return drafts == 0 ? 0 : static_cast<double>(draft_tokens) / static_cast<double>(drafts);
}

double ReplayResult::TokensPerDraft() const {
  return drafts == 0 ? 1 : 1 + static_cast<double>(accepted) / static_cast<double>(drafts);
}

double ReplayResult::ExpectedTokensPerDraft() const {
  const double a = Acceptance();
  const double k = DraftLength();
  return a >= 1 ? k + 1 : (1 - std::pow(a, k + 1)) / (1 - a);
}

ServingBench::ServingBench(const std::string& path, const config::Config& config, uint32_t context,
                           uint32_t batch_tokens, uint32_t sequences)
    : team_(config.threads) {
  scheduler::ModelRuntime::Options options;
  options.name = "bench";
  options.path = path;
  options.fabric = config.fabric;
  options.engine = config.engine;
  options.engine.context_length = context;
  options.scheduler = config.scheduler;
  options.scheduler.max_batch_tokens = batch_tokens;
  options.scheduler.max_sequences = sequences;
  runtime_ = scheduler::ModelRuntime::Load(options, team_);
  SchedulerOptions asked = config.scheduler;
  if (asked.max_sequences == 0) asked.max_sequences = sequences;
  automatic_ = scheduler::WithAutomaticLimits(
      asked, scheduler::EstimateStepCost(runtime_->model(), options.engine, fabric::ActiveIsa(),
                                         team_.size()));
}

struct ServingBench::ReplayRun {
  std::vector<TokenId> tokens;
  double seconds = 0;  // first token to last
  double draft_seconds = 0;
  uint64_t steps = 0;
  scheduler::SchedulerStats stats;
};

ServingBench::ReplayRun ServingBench::RunReplay(const std::vector<TokenId>& text,
                                                const ReplayPlan& plan,
                                                scheduler::Speculation speculation) {
  SchedulerOptions options = automatic_;
  options.speculation = speculation;
  options.prefix_cache = scheduler::PrefixCacheMode::kOff;
  Session session(*runtime_, options);
  const auto split = text.begin() + plan.prompt;
  std::vector<TokenId> forced;
  if (!plan.free) forced.assign(split, split + plan.generate);
  const auto recorder =
      session.Submit({text.begin(), split}, plan.free ? plan.generate : 0, std::move(forced));
  uint64_t prompt_steps = 0;
  while (session.Step()) {
    if (prompt_steps == 0 && !recorder->tokens.empty()) prompt_steps = session.totals().steps;
  }
  ExpectServed(*recorder);
  return {.tokens = recorder->tokens,
          .seconds = recorder->times.back() - recorder->times.front(),
          .draft_seconds = session.totals().draft_seconds,
          .steps = session.totals().steps - prompt_steps,
          .stats = session.stats()};
}

ReplayResult ServingBench::Replay(const std::vector<TokenId>& text, const ReplayPlan& plan) {
  if (text.size() < size_t{plan.prompt} + (plan.free ? 0 : plan.generate)) {
    throw std::runtime_error("The text has " + std::to_string(text.size()) +
                             " tokens; the prompt and the replayed part need " +
                             std::to_string(plan.prompt + plan.generate) + ".");
  }
  std::vector<double> plain;
  std::vector<double> drafted;
  std::vector<double> ratios;
  ReplayRun last;
  const Speculation configured = runtime_->options().scheduler.speculation;
  const auto kind = configured == Speculation::kOff ? Speculation::kNgram : configured;
  RunReplay(text, plan, Speculation::kOff);  // warm-up
  for (uint32_t i = 0; i < plan.repetitions; ++i) {
    const ReplayRun without = RunReplay(text, plan, Speculation::kOff);
    last = RunReplay(text, plan, kind);
    if (without.tokens != last.tokens) throw std::runtime_error("Drafts changed the answer.");
    const auto gaps = static_cast<double>(without.tokens.size() - 1);
    plain.push_back(gaps / without.seconds);
    drafted.push_back(gaps / last.seconds);
    ratios.push_back(without.seconds / last.seconds);
  }
  return {.kind = scheduler::Name(kind),
          .plain = Quantile(plain, 0.5),
          .drafted = Quantile(drafted, 0.5),
          .speed_up = Quantile(ratios, 0.5),
          .seconds = last.seconds,
          .draft_seconds = last.draft_seconds,
          .tokens = last.tokens.size() - 1,
          .steps = last.steps,
          .drafts = last.stats.drafts,
          .wrong_drafts = last.stats.wrong_drafts,
          .draft_tokens = last.stats.draft_tokens,
          .accepted = last.stats.accepted_draft_tokens};
}

MixedResult ServingBench::Mixed(const MixedPlan& plan, bool chunked) {
  SchedulerOptions options = automatic_;
  if (!chunked) {
    // The whole prompt in one step, as a server without chunks computes it.
    options.max_batch_tokens = runtime_->options().scheduler.max_batch_tokens;
    options.prefill_chunk = options.max_batch_tokens;
  }
  options.prefix_cache = scheduler::PrefixCacheMode::kOff;
  Session session(*runtime_, options);
  const uint32_t vocabulary = runtime_->model().config().vocabulary;
  const uint32_t room = runtime_->runner().context_length() - plan.short_prompt;
  std::vector<std::shared_ptr<TokenRecorder>> streams;
  for (uint32_t i = 0; i < plan.streams; ++i) {
    streams.push_back(session.Submit(SomePrompt(plan.short_prompt, 1000 + i, vocabulary), room));
  }
  while (streams.back()->tokens.size() < 4) session.Step();

  const double begin = Now();
  const auto long_request =
      session.Submit(SomePrompt(plan.long_prompt, 1, vocabulary), plan.short_tokens);
  // The short ones come while the long prompt is computed: right behind it.
  std::vector<std::shared_ptr<TokenRecorder>> shorts;
  for (uint32_t i = 0; i < plan.short_requests; ++i) {
    shorts.push_back(
        session.Submit(SomePrompt(plan.short_prompt, 2 + i, vocabulary), plan.short_tokens));
  }
  const auto open = [&] {
    return !long_request->finished ||
           std::any_of(shorts.begin(), shorts.end(), [](const auto& r) { return !r->finished; });
  };
  while (open() && session.Step()) {
  }
  std::vector<double> first;
  std::vector<double> gaps;
  for (const auto& recorder : shorts) {
    ExpectServed(*recorder);
    first.push_back(recorder->times.front() - begin);
  }
  for (const auto& stream : streams) {
    ExpectServed(*stream);
    for (size_t i = 1; i < stream->times.size(); ++i) {
      if (stream->times[i] > begin) gaps.push_back(stream->times[i] - stream->times[i - 1]);
    }
  }
  return {.first_token_p95 = Quantile(first, 0.95),
          .inter_token_p99 = Quantile(gaps, 0.99),
          .long_first_token = long_request->times.front() - begin,
          .max_batch_tokens = options.max_batch_tokens,
          .prefill_chunk = options.prefill_chunk};
}

PrefixResult ServingBench::Prefix(uint32_t prompt, uint32_t repetitions) {
  constexpr uint32_t kOwnTokens = 10;
  const uint32_t vocabulary = runtime_->model().config().vocabulary;
  std::vector<double> miss;
  std::vector<double> hit;
  PrefixResult result;
  for (uint32_t i = 0; i < repetitions; ++i) {
    SchedulerOptions options = automatic_;
    options.prefix_cache = scheduler::PrefixCacheMode::kOn;
    Session session(*runtime_, options);
    std::vector<TokenId> tokens = SomePrompt(prompt, i, vocabulary);
    for (std::vector<double>* times : {&miss, &hit}) {
      const double begin = Now();
      const auto recorder = session.Submit(tokens, 2);
      while (session.Step()) {
      }
      ExpectServed(*recorder);
      times->push_back(recorder->times.front() - begin);
      const std::vector<TokenId> own = SomePrompt(kOwnTokens, 77 + i, vocabulary);
      std::copy(own.begin(), own.end(), tokens.end() - kOwnTokens);
    }
    result.found = static_cast<uint32_t>(session.stats().prefix_hits);
  }
  result.miss = Quantile(miss, 0.5);
  result.hit = Quantile(hit, 0.5);
  return result;
}

std::vector<TokenId> ReplayTokens(const engine::Model& model, const std::string& text,
                                  bool synthetic) {
  if (!synthetic) {
    return model.tokenizer().Encode(text, {.add_special = true, .parse_special = false});
  }
  std::map<std::string, TokenId> words;
  std::vector<TokenId> tokens;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) {
    const auto id = static_cast<TokenId>(words.size() % model.config().vocabulary);
    tokens.push_back(words.try_emplace(word, id).first->second);
  }
  return tokens;
}

}  // namespace cli
