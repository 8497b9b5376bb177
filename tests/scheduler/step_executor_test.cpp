// A request hears its tokens in order and one end per choice, whatever runs beside it and whatever
// fails; a fault touches only the choice that has it.

#include "scheduler/step_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "engine/text/grammar/grammar.h"
#include "engine/text/grammar/matcher.h"
#include "tests/engine/text/vocabulary.h"
#include "tests/scheduler/fake_runner.h"

namespace scheduler {
namespace {

using engine::TokenId;
using testing::HasSubstr;
using testing::IsEmpty;

class StepExecutorTest : public testing::Test {
 protected:
  StepExecutorTest() { Make({}, {}); }

  void Make(const SchedulerOptions& options, FakeRunner::Options runner_options) {
    fake_ = std::make_unique<FakeRuntime>(options, runner_options);
    executor_ = std::make_unique<StepExecutor>(fake_->runtime->scheduler(), *fake_->runner,
                                               [this] { return now_; });
  }

  std::shared_ptr<RecordingSink> Accept(std::vector<TokenId> prompt, uint32_t max_tokens,
                                        uint32_t choices = 1) {
    auto [request, sink] = RecordedRequest(std::move(prompt), max_tokens, choices);
    last_id_ = request.id;
    executor_->Accept({std::move(request), now_});
    return sink;
  }

  void RunToEnd() {
    while (executor_->Step()) {
      now_ += 1;
      fake_->runtime->scheduler().CheckIntegrity();
    }
    EXPECT_EQ(executor_->requests(), 0U);
    EXPECT_EQ(fake_->runtime->scheduler().stats().kv_blocks_used, 0U);
  }

  // Tokens of a request that runs with nothing beside it.
  std::vector<TokenId> Alone(std::vector<TokenId> prompt, uint32_t max_tokens) {
    return Alone(RecordedRequest(std::move(prompt), max_tokens).first);
  }
  std::vector<TokenId> Alone(Request request) {
    FakeRuntime fake;
    StepExecutor executor(fake.runtime->scheduler(), *fake.runner, [] { return 0.0; });
    const auto sink = std::make_shared<RecordingSink>(1);
    request.sink = sink;
    executor.Accept({std::move(request), 0});
    while (executor.Step()) {
    }
    return sink->tokens();
  }

  double now_ = 10;
  RequestId last_id_ = 0;
  std::unique_ptr<FakeRuntime> fake_;
  std::unique_ptr<StepExecutor> executor_;
};

TEST_F(StepExecutorTest, ARequestHearsItsTokensAndOneEnd) {
  const auto sink = Accept({1, 2, 3}, 4);
  RunToEnd();
  EXPECT_EQ(sink->tokens().size(), 4U);
  EXPECT_EQ(sink->events().size(), 4U);  // the end comes with the last token
  EXPECT_EQ(sink->end().reason, FinishReason::kLength);
  EXPECT_EQ(executor_->ended(), 1U);
}

TEST_F(StepExecutorTest, EventsCarryTheTimesOfTheRequest) {
  const auto sink = Accept({1, 2, 3}, 2);
  now_ = 12;
  executor_->Step();
  now_ = 15;
  executor_->Step();
  const TokenEvent end = sink->end();
  EXPECT_EQ(end.enqueued, 10);
  EXPECT_EQ(end.scheduled, 12);
  EXPECT_EQ(end.now, 15);
}

TEST_F(StepExecutorTest, OutputsDoNotDependOnTheBatch) {
  SchedulerOptions options;
  options.max_batch_tokens = 24;
  options.prefill_chunk = 7;
  Make(options, {.kv_blocks = 40, .block_size = 4, .context_length = 128});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  std::vector<std::vector<TokenId>> prompts;
  for (TokenId i = 0; i < 16; ++i) {
    std::vector<TokenId> prompt;
    for (TokenId j = 0; j < 5 + 3 * i; ++j) prompt.push_back((i * 7 + j * 5) % 64);
    prompts.push_back(prompt);
    sinks.push_back(Accept(prompt, 30));
    executor_->Step();
  }
  RunToEnd();
  EXPECT_GT(fake_->runtime->scheduler().stats().preemptions, 0U);
  for (size_t i = 0; i < sinks.size(); ++i) EXPECT_EQ(sinks[i]->tokens(), Alone(prompts[i], 30));
}

TEST_F(StepExecutorTest, ChoicesGiveTheTokensOfARunAlone) {
  Make({}, {.kv_blocks = 34, .block_size = 4, .context_length = 128});
  const std::vector<TokenId> prompt = {9, 8, 7, 6, 5, 4};
  const auto sink = Accept(prompt, 40, 4);
  RunToEnd();
  for (uint32_t choice = 0; choice < 4; ++choice) {
    EXPECT_EQ(sink->tokens(choice), Alone(prompt, 40)) << choice;
    EXPECT_EQ(sink->end(choice).reason, FinishReason::kLength);
  }
  EXPECT_GT(fake_->runner->copies.load(), 0U);
}

TEST_F(StepExecutorTest, SeededSamplingDoesNotDependOnTheBatch) {
  const auto sample = [](StepExecutor& executor, uint32_t choices, bool company) {
    auto [request, sink] = RecordedRequest({1, 2, 3, 4, 5}, 20, choices);
    request.sampling.temperature = 1;
    request.sampling.seed = 77;
    request.sampling.frequency_penalty = 0.5F;
    executor.Accept({std::move(request), 0});
    if (company) {
      auto [other, ignored] = RecordedRequest({5, 4, 3, 2}, 30);
      executor.Accept({std::move(other), 0});
    }
    while (executor.Step()) {
    }
    return sink;
  };
  const auto batched = sample(*executor_, 3, true);
  Make({}, {});
  const auto alone = sample(*executor_, 3, false);
  for (uint32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(batched->tokens(choice), alone->tokens(choice));
  }
  EXPECT_NE(alone->tokens(0), alone->tokens(1));
}

TEST_F(StepExecutorTest, AStopTokenIsReportedAndEndsTheChoice) {
  const std::vector<TokenId> tokens = Alone({1, 2, 3}, 10);
  auto [request, sink] = RecordedRequest({1, 2, 3}, 10);
  request.stop_tokens = {tokens[3]};
  executor_->Accept({std::move(request), now_});
  RunToEnd();
  const TokenEvent end = sink->end();
  EXPECT_EQ(end.reason, FinishReason::kStop);
  EXPECT_TRUE(end.has_token);
  EXPECT_EQ(end.token, tokens[3]);
  EXPECT_LE(sink->tokens().size(), 4U);
}

TEST_F(StepExecutorTest, ForcedTokensAreScoredNotSampled) {
  auto [request, sink] = RecordedRequest({1, 2, 3}, 1);
  request.forced_tokens = {60, 61, 62};
  request.stop_tokens = {61};
  request.sampling.logprobs = 2;
  executor_->Accept({std::move(request), now_});
  RunToEnd();
  EXPECT_EQ(sink->tokens(), (std::vector<TokenId>{60, 61, 62}));
  for (const TokenEvent& event : sink->events()) {
    EXPECT_EQ(event.logprob.token, event.token);
    EXPECT_LT(event.logprob.logprob, 0.0F);
    EXPECT_EQ(event.top.size(), 2U);
  }
  EXPECT_EQ(sink->end().reason, FinishReason::kLength);
}

TEST_F(StepExecutorTest, PromptLogprobsComeWithTheFirstTokenHoweverThePromptIsCut) {
  const std::vector<TokenId> prompt = {4, 8, 15, 16, 23, 42, 11, 12, 13};
  std::vector<std::vector<PromptLogprob>> runs;
  for (const uint32_t chunk : {256U, 2U}) {
    SchedulerOptions options;
    options.prefill_chunk = chunk;
    Make(options, {});
    auto [request, sink] = RecordedRequest(prompt, 3, 2);
    request.prompt_logprobs = true;
    request.sampling.logprobs = 1;
    executor_->Accept({std::move(request), now_});
    RunToEnd();
    for (const TokenEvent& event : sink->events()) {
      if (event.prompt_logprobs.empty()) continue;
      EXPECT_EQ(event.choice, 0U);
      runs.push_back(event.prompt_logprobs);
    }
  }
  ASSERT_EQ(runs.size(), 2U);
  ASSERT_EQ(runs[0].size(), prompt.size());
  EXPECT_FALSE(runs[0][0].has_logprob);
  for (size_t i = 1; i < prompt.size(); ++i) {
    EXPECT_TRUE(runs[0][i].has_logprob);
    EXPECT_EQ(runs[0][i].logprob.token, prompt[i]);
    EXPECT_EQ(runs[0][i].logprob.logprob, runs[1][i].logprob.logprob);
    EXPECT_EQ(runs[0][i].top.size(), 1U);
  }
}

TEST_F(StepExecutorTest, CancelFreesBlocksBeforeTheNextStep) {
  const auto sink = Accept({1, 2, 3, 4, 5}, 50);
  executor_->Step();
  EXPECT_GT(fake_->runtime->scheduler().stats().kv_blocks_used, 0U);
  executor_->Cancel(last_id_, FinishReason::kCancelled);
  EXPECT_EQ(fake_->runtime->scheduler().stats().kv_blocks_used, 0U);
  EXPECT_EQ(sink->end().reason, FinishReason::kCancelled);
  EXPECT_FALSE(executor_->Step());
}

TEST_F(StepExecutorTest, CancellingAChoiceKeepsTheOthers) {
  const auto sink = Accept({1, 2, 3, 4, 5}, 6, 3);
  executor_->Step();
  executor_->Step();
  executor_->CancelChoice(last_id_, 1, FinishReason::kStop);
  RunToEnd();
  EXPECT_EQ(sink->end(1).reason, FinishReason::kStop);
  EXPECT_EQ(sink->tokens(0).size(), 6U);
  EXPECT_EQ(sink->tokens(2).size(), 6U);
}

TEST_F(StepExecutorTest, CancelAllEndsEverything) {
  const auto first = Accept({1, 2, 3}, 50, 2);
  executor_->Step();
  const auto second = Accept({4, 5}, 50);
  executor_->CancelAll(FinishReason::kCancelled);
  EXPECT_EQ(first->end(0).reason, FinishReason::kCancelled);
  EXPECT_EQ(first->end(1).reason, FinishReason::kCancelled);
  EXPECT_EQ(second->end().reason, FinishReason::kCancelled);
  EXPECT_EQ(executor_->ended(), 2U);
}

// A request with token 50 among healthy ones fails as `error` says; the others do not notice.
class Poison : public StepExecutorTest {
 protected:
  void ExpectIsolated(const char* error) {
    const auto healthy = Accept({1, 2, 3}, 6);
    const auto poisoned = Accept({1, 50, 3}, 6);
    const auto other = Accept({7, 7}, 6);
    RunToEnd();
    EXPECT_EQ(poisoned->end().reason, FinishReason::kError);
    EXPECT_THAT(poisoned->end().error, HasSubstr(error));
    EXPECT_THAT(poisoned->tokens(), IsEmpty());
    EXPECT_EQ(healthy->tokens(), Alone({1, 2, 3}, 6));
    EXPECT_EQ(other->tokens(), Alone({7, 7}, 6));
  }
};

TEST_F(Poison, NonFiniteRow) {
  fake_->runner->faults.non_finite_token = 50;
  ExpectIsolated("not finite");
}

TEST_F(Poison, DeviceFault) {
  fake_->runner->faults.device_fault_token = 50;
  ExpectIsolated("device failed");
}

TEST_F(Poison, NanLogits) {
  fake_->runner->faults.nan_logits_token = 50;
  ExpectIsolated("no finite logits");
}

TEST_F(Poison, RowWithoutLogits) {
  fake_->runner->faults.silent_token = 50;
  ExpectIsolated("gave no logits");
}

TEST_F(StepExecutorTest, AStepThatThrowsFailsTheGuiltyRowAndNothingElse) {
  fake_->runner->faults.throwing_token = 50;
  const auto beside = Accept({1, 2, 3}, 6);
  const auto thrower = Accept({50}, 6);
  RunToEnd();
  EXPECT_EQ(thrower->end().error, "The step failed: the fake is broken.");
  EXPECT_EQ(beside->tokens(), Alone({1, 2, 3}, 6));
  const auto later = Accept({1, 2, 3}, 6);
  RunToEnd();
  EXPECT_EQ(later->tokens(), Alone({1, 2, 3}, 6));
}

TEST_F(StepExecutorTest, AThrowingStepDrawsNothingTwice) {
  fake_->runner->faults.throwing_token = 50;
  auto [request, sink] = RecordedRequest({1, 2, 3}, 20);
  request.sampling.temperature = 1;
  request.sampling.seed = 7;
  request.sampling.frequency_penalty = 1.5F;  // the sampler's memory decides
  request.sampling.logit_bias = {{50, -100.0F}};
  Request alone_request = request;
  executor_->Accept({std::move(request), now_});
  for (int i = 0; i < 10; ++i) {
    Accept({50, static_cast<TokenId>(i)}, 3);  // each makes a step throw
    executor_->Step();
  }
  RunToEnd();
  EXPECT_EQ(sink->tokens(), Alone(std::move(alone_request)));
}

// An engine that gives the best few logits cheaply, and the kinds of output that rows asked it for.
class CandidatesTest : public StepExecutorTest {
 protected:
  CandidatesTest() {
    Make({}, {.gives_candidates = true});
    fake_->runner->on_step = [this](const engine::Batch& batch) {
      for (const engine::BatchRow& row : batch.rows) {
        if (!row.outputs.empty()) kinds_.insert(row.output_kind);
      }
    };
  }
  std::set<engine::OutputKind> kinds_;
};

TEST_F(CandidatesTest, GreedyAndTopKRequestsGetWhatAllLogitsGiveThem) {
  const auto greedy = Accept({1, 2, 3}, 12);
  RunToEnd();
  EXPECT_EQ(greedy->tokens(), Alone({1, 2, 3}, 12));

  auto [request, sink] = RecordedRequest({4, 5, 6}, 12);
  request.sampling.temperature = 1;
  request.sampling.seed = 3;
  request.sampling.top_k = 5;
  Request alone_request = request;
  executor_->Accept({std::move(request), now_});
  RunToEnd();
  EXPECT_EQ(sink->tokens(), Alone(std::move(alone_request)));
  EXPECT_EQ(kinds_, std::set{engine::OutputKind::kCandidates});
}

TEST_F(CandidatesTest, LogprobsNeedAllLogits) {
  auto [request, sink] = RecordedRequest({1, 2, 3}, 4);
  request.sampling.logprobs = 2;
  executor_->Accept({std::move(request), now_});
  RunToEnd();
  EXPECT_EQ(sink->tokens(), Alone({1, 2, 3}, 4));
  EXPECT_EQ(kinds_, std::set{engine::OutputKind::kLogits});
}

// The best token that a grammar allows may be far from the best.
TEST_F(CandidatesTest, AGrammarNeedsAllLogits) {
  namespace text = engine::text;
  std::vector<text::TestToken> words;
  for (char letter = 'a'; letter <= 'z'; ++letter) words.push_back({std::string(1, letter)});
  const auto tokenizer = text::Tokenizer::FromMetadata(text::SpmMetadata(words, false));
  const auto q = static_cast<TokenId>(3 + 'q' - 'a');
  ASSERT_EQ(tokenizer->TokenBytes(q, false), "q");
  auto [request, sink] = RecordedRequest({1, 2, 3}, 20);
  request.grammar = std::make_shared<text::grammar::Constraint>(
      text::grammar::CompileGrammar(text::grammar::Regex{"q{6}"}),
      std::make_shared<const text::grammar::TokenTrie>(*tokenizer));
  executor_->Accept({std::move(request), now_});
  RunToEnd();
  EXPECT_EQ(sink->tokens(), std::vector<TokenId>(6, q));
  EXPECT_EQ(sink->end().reason, FinishReason::kStop);
  EXPECT_EQ(kinds_, std::set{engine::OutputKind::kLogits});
}

TEST_F(StepExecutorTest, RequestsThatCannotBeServedAreTold) {
  const auto empty = Accept({}, 5);
  EXPECT_THAT(empty->end().error, HasSubstr("no tokens"));
  const auto outside = Accept({1, 64}, 5, 2);
  EXPECT_EQ(outside->end(1).error, "Prompt token 64 is outside the vocabulary of 64 tokens.");
  const auto negative = Accept({-1}, 5);
  EXPECT_EQ(negative->end().reason, FinishReason::kError);
  auto [stops, stops_sink] = RecordedRequest({1}, 5);
  stops.stop_tokens = {64};
  executor_->Accept({std::move(stops), now_});
  EXPECT_EQ(stops_sink->end().error, "Stop token 64 is outside the vocabulary of 64 tokens.");
  auto [biased, biased_sink] = RecordedRequest({1}, 5);
  biased.sampling.logit_bias = {{64, 1.0F}};
  executor_->Accept({std::move(biased), now_});
  EXPECT_THAT(biased_sink->end().error, HasSubstr("logit_bias"));
  auto [none, none_sink] = RecordedRequest({1}, 5, 0);
  executor_->Accept({std::move(none), now_});
  EXPECT_THAT(none_sink->events(), IsEmpty());
  EXPECT_EQ(executor_->ended(), 6U);
  EXPECT_FALSE(executor_->Step());
}

TEST_F(StepExecutorTest, AMissedDeadlineIsAnErrorEvent) {
  SchedulerOptions options;
  options.max_sequences = 1;
  options.queue_deadline_seconds = 3;
  Make(options, {});
  const auto first = Accept({1, 2}, 10);
  const auto late = Accept({3, 4}, 10);
  RunToEnd();
  EXPECT_EQ(first->end().reason, FinishReason::kLength);
  EXPECT_EQ(late->end().reason, FinishReason::kError);
  EXPECT_THAT(late->end().error, HasSubstr("in the queue"));
}

// Drafts come from the text: here it repeats, because the answer is forced to.
class SpeculationTest : public StepExecutorTest {
 protected:
  static constexpr uint32_t kTokens = 60;

  SpeculationTest() {
    SchedulerOptions options;
    options.speculation = Speculation::kNgram;
    Make(options, {});
  }

  // prompt 1 2 3 4 5, then 1 2 3 4 5 again and again.
  static std::pair<Request, std::shared_ptr<RecordingSink>> Repeating() {
    auto [request, sink] = RecordedRequest({1, 2, 3, 4, 5}, 0);
    for (uint32_t i = 0; i < kTokens; ++i) {
      request.forced_tokens.push_back(static_cast<TokenId>(1 + i % 5));
    }
    request.sampling.logprobs = 2;
    return {std::move(request), sink};
  }

  static std::vector<float> Logprobs(const RecordingSink& sink) {
    std::vector<float> logprobs;
    for (const TokenEvent& event : sink.events()) logprobs.push_back(event.logprob.logprob);
    return logprobs;
  }

  SchedulerStats stats() const { return fake_->runtime->scheduler().stats(); }
};

TEST_F(SpeculationTest, RightDraftsSaveStepsAndChangeNothing) {
  auto [drafted, with] = Repeating();
  executor_->Accept({std::move(drafted), now_});
  RunToEnd();
  const uint64_t steps = executor_->totals().steps;
  EXPECT_LT(steps, kTokens / 3);
  EXPECT_GT(stats().accepted_draft_tokens, kTokens / 2);

  Make({}, {});
  auto [plain, without] = Repeating();
  executor_->Accept({std::move(plain), now_});
  RunToEnd();
  EXPECT_EQ(executor_->totals().steps, kTokens);
  EXPECT_EQ(with->tokens(), without->tokens());
  EXPECT_EQ(with->tokens().size(), kTokens);
  EXPECT_EQ(Logprobs(*with), Logprobs(*without));
  EXPECT_EQ(with->end().reason, FinishReason::kLength);
}

TEST_F(SpeculationTest, WrongDraftsAreRolledBack) {
  auto [request, sink] = RecordedRequest({}, 0);
  // Always the same three tokens, then another one: every draft is wrong.
  for (TokenId i = 0; i < 12; ++i) {
    request.prompt.insert(request.prompt.end(), {1, 2, 3, static_cast<TokenId>(10 + i)});
  }
  for (TokenId i = 0; i < 12; ++i) {
    request.forced_tokens.insert(request.forced_tokens.end(),
                                 {1, 2, 3, static_cast<TokenId>(30 + i)});
  }
  const std::vector<TokenId> forced = request.forced_tokens;
  executor_->Accept({std::move(request), now_});
  RunToEnd();
  EXPECT_EQ(sink->tokens(), forced);
  EXPECT_GT(stats().draft_tokens, 0U);
  EXPECT_LT(stats().draft_tokens, 16U) << "drafting must stop where it does not pay";
}

TEST_F(SpeculationTest, ARowThatFailsWithDraftsGoesOnWithout) {
  fake_->runner->faults.drafts_fail = true;
  auto [request, sink] = Repeating();
  executor_->Accept({std::move(request), now_});
  RunToEnd();
  EXPECT_EQ(sink->tokens().size(), kTokens);
  EXPECT_EQ(sink->end().reason, FinishReason::kLength);
  EXPECT_EQ(stats().drafts, 1U);
  EXPECT_EQ(stats().accepted_draft_tokens, 0U);
}

TEST_F(SpeculationTest, NothingFollowsTheLastToken) {
  auto [request, sink] = Repeating();
  request.forced_tokens.resize(23);
  executor_->Accept({std::move(request), now_});
  RunToEnd();
  EXPECT_EQ(sink->tokens().size(), 23U);
  EXPECT_EQ(sink->end().reason, FinishReason::kLength);
}

}  // namespace
}  // namespace scheduler
