// With a model that drafts every request gives its tokens of a run alone without drafts, whatever
// is shared, preempted, swapped, cut and cancelled; and another model's keys and values stay in
// step: if it is the same model, every draft is right.

#include "scheduler/model_drafter.h"

#include <gtest/gtest.h>

#include <random>

#include "scheduler/step_executor.h"
#include "tests/scheduler/fake_runner.h"

namespace scheduler {
namespace {

using engine::TokenId;

constexpr uint32_t kVocabulary = FakeRunner::kVocabulary;

// A random schedule and what came of it. All follows from the seed.
class Schedule {
 public:
  Schedule(uint64_t seed, Speculation kind, uint32_t noise) : random_(seed) {
    const bool windowed = kind != Speculation::kModel && Chance(30);
    runner_.block_size = Chance(50) ? 4 : 7;
    runner_.context_length = 96;
    if (windowed) runner_.window = {.tokens = 32, .sinks = 4};
    runner_.gives_candidates = Chance(50);
    const uint32_t least = 96 / runner_.block_size + 1;
    runner_.kv_blocks = least + (Chance(50) ? Pick(0, 6) : Pick(6, 5 * least));
    options_.speculation = kind;
    options_.speculation_layers = 1;
    options_.speculation_max_tokens = Pick(2, 24);
    options_.max_batch_tokens = Pick(8, 40);
    options_.prefill_chunk = Pick(1, 20);
    options_.max_sequences = Pick(1, 8);
    options_.prefix_cache = Chance(70) ? PrefixCacheMode::kOn : PrefixCacheMode::kOff;
    if (Chance(50)) options_.swap_bytes = 64;  // blocks: the fake ones have no bytes
    FakeRunner::Options draft = runner_;
    draft.noise = noise;
    draft.gives_candidates = Chance(50);
    if (Chance(20)) draft.context_length = 60;
    fake_ = std::make_unique<FakeRuntime>(
        options_, runner_, kind == Speculation::kModel ? std::optional(draft) : std::nullopt);
    executor_ = std::make_unique<StepExecutor>(
        fake_->runtime->scheduler(), *fake_->runner, [this] { return now_; },
        fake_->runtime->draft_source());
  }

  void Run() {
    uint32_t left = Pick(3, 12);
    while (left > 0 || executor_->requests() > 0) {
      while (left > 0 && (executor_->requests() == 0 || Chance(40))) {
        Submit();
        --left;
      }
      if (Chance(4)) Cancel();
      executor_->Step();
      now_ += 1;
      fake_->runtime->scheduler().CheckIntegrity();
    }
    EXPECT_EQ(stats().kv_blocks_used, 0U);
  }

  void ExpectSoloOutputs() const {
    for (const Client& client : clients_) {
      const auto solo = Alone(client.request);
      for (uint32_t choice = 0; choice < client.request.choices; ++choice) {
        std::vector<TokenId> expected = solo->tokens(choice);
        const std::vector<TokenId> tokens = client.sink->tokens(choice);
        if (client.cancelled) {
          ASSERT_LE(tokens.size(), expected.size());
          expected.resize(tokens.size());
        } else {
          EXPECT_EQ(client.sink->end(choice).reason, solo->end(choice).reason);
        }
        ASSERT_EQ(tokens, expected);
        ExpectSameLogprobs(*client.sink, *solo, choice);
      }
    }
  }

  SchedulerStats stats() const { return fake_->runtime->scheduler().stats(); }
  const FakeRuntime& fake() const { return *fake_; }

 private:
  struct Client {
    Request request;  // without its sink
    std::shared_ptr<RecordingSink> sink;
    bool cancelled = false;
  };

  uint32_t Pick(uint32_t low, uint32_t high) {
    return low + static_cast<uint32_t>(random_() % (uint64_t{high} - low + 1));
  }
  bool Chance(uint32_t percent) { return Pick(1, 100) <= percent; }

  void Submit() {
    std::vector<TokenId> prompt;
    if (!clients_.empty() && Chance(50)) {  // shares a beginning
      const Client& other = clients_[Pick(0, static_cast<uint32_t>(clients_.size()) - 1)];
      prompt = other.request.prompt;
      const std::vector<TokenId> answer = other.sink->tokens();
      prompt.insert(prompt.end(), answer.begin(), answer.end());
      prompt.resize(Pick(1, std::min<uint32_t>(60, static_cast<uint32_t>(prompt.size()))));
    }
    for (uint32_t i = Pick(1, 25); i > 0; --i) {
      prompt.push_back(static_cast<TokenId>(Pick(0, kVocabulary - 1)));
    }
    auto [request, sink] = RecordedRequest(prompt, Pick(1, 50), Chance(30) ? Pick(2, 4) : 1);
    request.sampling.temperature = Chance(50) ? 0.0F : 0.8F;
    request.sampling.seed = Pick(0, 1000);
    if (Chance(25)) request.sampling.top_k = 5;
    if (Chance(25)) request.sampling.frequency_penalty = 0.7F;
    if (Chance(20)) request.sampling.mirostat = 2;
    if (Chance(30)) request.sampling.logprobs = 2;
    if (Chance(50)) request.stop_tokens = {static_cast<TokenId>(Pick(0, kVocabulary - 1))};
    Client& client = clients_.emplace_back();
    client.request = request;
    client.request.sink = nullptr;
    client.sink = sink;
    executor_->Accept({std::move(request), now_});
  }

  void Cancel() {
    if (clients_.empty()) return;
    Client& client = clients_[Pick(0, static_cast<uint32_t>(clients_.size()) - 1)];
    client.cancelled = true;
    executor_->Cancel(client.request.id, FinishReason::kCancelled);
  }

  // The request with nothing beside it, a large pool and no drafts.
  std::shared_ptr<RecordingSink> Alone(Request request) const {
    FakeRunner::Options large = runner_;
    large.kv_blocks = 512;
    FakeRuntime fake({}, large);
    StepExecutor executor(fake.runtime->scheduler(), *fake.runner, [] { return 0.0; });
    auto sink = std::make_shared<RecordingSink>(request.choices);
    request.sink = sink;
    executor.Accept({std::move(request), 0});
    while (executor.Step()) {
    }
    return sink;
  }

  static void ExpectSameLogprobs(const RecordingSink& some, const RecordingSink& all,
                                 uint32_t choice) {
    const auto logprobs = [choice](const RecordingSink& sink) {
      std::vector<std::pair<TokenId, float>> values;
      for (const TokenEvent& event : sink.events()) {
        if (event.choice != choice || !event.has_token) continue;
        values.emplace_back(event.logprob.token, event.logprob.logprob);
        for (const auto& top : event.top) values.emplace_back(top.token, top.logprob);
      }
      return values;
    };
    const auto values = logprobs(some);
    auto expected = logprobs(all);
    ASSERT_LE(values.size(), expected.size());
    expected.resize(values.size());
    EXPECT_EQ(values, expected);
  }

  std::mt19937_64 random_;
  SchedulerOptions options_;
  FakeRunner::Options runner_;
  double now_ = 0;
  std::unique_ptr<FakeRuntime> fake_;
  std::unique_ptr<StepExecutor> executor_;
  std::vector<Client> clients_;
};

struct Totals {
  uint64_t drafted = 0;
  uint64_t accepted = 0;
  uint64_t wrong = 0;
  uint64_t preemptions = 0;
  uint64_t swaps = 0;
  uint64_t hits = 0;

  void Add(const SchedulerStats& stats) {
    drafted += stats.draft_tokens;
    accepted += stats.accepted_draft_tokens;
    wrong += stats.wrong_drafts;
    preemptions += stats.preemptions;
    swaps += stats.swapped_preemptions;
    hits += stats.prefix_hits;
  }
  void ExpectEventful() const {
    EXPECT_GT(drafted, 1000U);
    EXPECT_GT(accepted, 500U);
    EXPECT_GT(preemptions, 20U);
    EXPECT_GT(swaps, 10U);
    EXPECT_LT(swaps, preemptions);
    EXPECT_GT(hits, 500U);
  }
};

TEST(ModelDrafter, DraftsOfTheFirstLayersChangeNoOutput) {
  Totals totals;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    Schedule schedule(seed, Speculation::kSelf, 0);
    schedule.Run();
    schedule.ExpectSoloOutputs();
    if (testing::Test::HasFailure()) return;
    totals.Add(schedule.stats());
  }
  totals.ExpectEventful();
  EXPECT_GT(totals.wrong, 500U);
}

TEST(ModelDrafter, DraftsOfAnotherModelChangeNoOutput) {
  Totals totals;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    Schedule schedule(seed, Speculation::kModel, 5);
    schedule.Run();
    schedule.ExpectSoloOutputs();
    if (testing::Test::HasFailure()) return;
    totals.Add(schedule.stats());
  }
  totals.ExpectEventful();
  EXPECT_GT(totals.wrong, 200U);
}

// Its fake keys and values are the tokens, so a draft is right only if it has all of the text.
TEST(ModelDrafter, TheSameModelIsAlwaysRight) {
  Totals totals;
  for (uint64_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(seed);
    Schedule schedule(seed, Speculation::kModel, 0);
    schedule.Run();
    schedule.ExpectSoloOutputs();
    EXPECT_EQ(schedule.stats().wrong_drafts, 0U);
    if (testing::Test::HasFailure()) return;
    totals.Add(schedule.stats());
  }
  totals.ExpectEventful();
}

class ModelDrafterFaults : public testing::Test {
 protected:
  ModelDrafterFaults() {
    SchedulerOptions options;
    options.speculation = Speculation::kModel;
    options.max_batch_tokens = 32;
    fake_ = std::make_unique<FakeRuntime>(options, FakeRunner::Options{}, FakeRunner::Options{});
    executor_ = std::make_unique<StepExecutor>(
        fake_->runtime->scheduler(), *fake_->runner, [] { return 0.0; },
        fake_->runtime->draft_source());
  }

  std::vector<TokenId> Run(std::vector<TokenId> prompt) {
    auto [request, sink] = RecordedRequest(std::move(prompt), 40);
    executor_->Accept({std::move(request), 0});
    while (executor_->Step()) {
    }
    EXPECT_EQ(sink->end().reason, FinishReason::kLength) << sink->end().error;
    return sink->tokens();
  }

  SchedulerStats stats() const { return fake_->runtime->scheduler().stats(); }

  std::unique_ptr<FakeRuntime> fake_;
  std::unique_ptr<StepExecutor> executor_;
};

TEST_F(ModelDrafterFaults, ADraftModelThatFailsOnASequenceIsAskedNoMoreForIt) {
  const std::vector<TokenId> plain = Run({1, 2, 3});
  const uint64_t drafts = stats().drafts;
  EXPECT_GT(drafts, 2U);
  fake_->draft_runner->faults.non_finite_token = 60;
  const uint64_t before = fake_->draft_runner->steps;
  EXPECT_EQ(Run({60, 2, 3}).size(), 40U);
  EXPECT_EQ(stats().drafts, drafts);
  EXPECT_EQ(fake_->draft_runner->steps, before + 1);
  fake_->draft_runner->faults.non_finite_token = -1;
  EXPECT_EQ(Run({1, 2, 3}), plain);
  EXPECT_GT(stats().drafts, drafts);
}

TEST_F(ModelDrafterFaults, ADraftModelThatThrowsDisturbsNoRequest) {
  const std::vector<TokenId> plain = Run({1, 2, 3, 4});
  fake_->draft_runner->faults.throwing_token = plain[20];
  EXPECT_EQ(Run({1, 2, 3, 4}), plain);
}

TEST_F(ModelDrafterFaults, ALongPromptIsCaughtUpOverSeveralSteps) {
  std::vector<TokenId> prompt;
  for (TokenId i = 0; i < 80; ++i) prompt.push_back((i * i + 3) % 60);
  size_t most = 0;
  fake_->draft_runner->on_step = [&](const engine::Batch& batch) {
    size_t tokens = 0;
    for (const engine::BatchRow& row : batch.rows) tokens += row.tokens.size();
    most = std::max(most, tokens);
  };
  Run(prompt);
  EXPECT_EQ(most, 32U);
  EXPECT_GT(stats().accepted_draft_tokens, 10U);
  EXPECT_EQ(stats().wrong_drafts, 0U);
}

}  // namespace
}  // namespace scheduler
