// A request for an embedding hears one event, with the pooled states of its prompt, and these do
// not depend on who else runs, on chunks, preemption or what a prefix cache knows.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "scheduler/step_executor.h"
#include "tests/scheduler/fake_runner.h"

namespace scheduler {
namespace {

using engine::Pooling;
using engine::TokenId;
using testing::HasSubstr;

std::vector<TokenId> Prompt(size_t tokens, TokenId first) {
  std::vector<TokenId> prompt(tokens);
  for (size_t i = 0; i < tokens; ++i) prompt[i] = static_cast<TokenId>((first + i * 7) % 60);
  return prompt;
}

SchedulerOptions Limits(uint32_t batch_tokens, uint32_t chunk,
                        PrefixCacheMode cache = PrefixCacheMode::kOff, uint64_t swap_bytes = 0) {
  SchedulerOptions options;
  options.max_sequences = 4;
  options.max_batch_tokens = batch_tokens;
  options.prefill_chunk = chunk;
  options.prefix_cache = cache;
  options.swap_bytes = swap_bytes;
  return options;
}

// A scheduler and an engine of its own.
class Bench {
 public:
  explicit Bench(const SchedulerOptions& options = {}, FakeRunner::Options runner = {})
      : fake(options, runner),
        executor(fake.runtime->scheduler(), *fake.runner, [this] { return now_; }) {}

  std::shared_ptr<RecordingSink> Embed(std::vector<TokenId> prompt, Pooling pooling) {
    auto [request, sink] = RecordedRequest(std::move(prompt), 0);
    request.pooling = pooling;
    executor.Accept({std::move(request), now_});
    return sink;
  }
  std::shared_ptr<RecordingSink> Generate(std::vector<TokenId> prompt, uint32_t tokens) {
    auto [request, sink] = RecordedRequest(std::move(prompt), tokens);
    executor.Accept({std::move(request), now_});
    return sink;
  }
  void RunToEnd() {
    while (executor.Step()) {
      now_ += 1;
      fake.runtime->scheduler().CheckIntegrity();
    }
    EXPECT_EQ(fake.runtime->scheduler().stats().kv_blocks_used, 0U);
  }

 private:
  double now_ = 1;

 public:
  FakeRuntime fake;
  StepExecutor executor;
};

std::vector<float> Alone(const std::vector<TokenId>& prompt, Pooling pooling) {
  Bench bench(Limits(512, 512));
  const auto sink = bench.Embed(prompt, pooling);
  bench.RunToEnd();
  return sink->end().embedding;
}

constexpr Pooling kAll[] = {Pooling::kMean, Pooling::kCls, Pooling::kLast};

TEST(Embedding, ComesWithTheOneEventOfItsRequest) {
  for (const Pooling pooling : kAll) {
    Bench bench;
    const auto sink = bench.Embed(Prompt(9, 3), pooling);
    bench.RunToEnd();
    ASSERT_EQ(sink->events().size(), 1U);
    EXPECT_FALSE(sink->end().has_token);
    EXPECT_EQ(sink->end().reason, FinishReason::kStop);
    EXPECT_EQ(sink->end().embedding.size(), FakeRunner::kHidden);
  }
  EXPECT_NE(Alone(Prompt(9, 3), Pooling::kLast), Alone(Prompt(9, 3), Pooling::kCls));
  EXPECT_EQ(Alone(Prompt(9, 3), Pooling::kCls), Alone(Prompt(5, 3), Pooling::kCls));
  EXPECT_EQ(Alone(Prompt(1, 3), Pooling::kMean), Alone(Prompt(1, 3), Pooling::kLast));
}

TEST(Embedding, DoesNotDependOnChunksOrNeighbours) {
  for (const Pooling pooling : kAll) {
    for (const uint32_t chunk : {1U, 3U, 16U}) {
      Bench bench(Limits(16, chunk));
      std::vector<std::shared_ptr<RecordingSink>> sinks;
      for (TokenId i = 0; i < 7; ++i) {
        bench.Generate(Prompt(5, i), 12);
        sinks.push_back(bench.Embed(Prompt(20U + static_cast<size_t>(i) * 5, i), pooling));
      }
      bench.RunToEnd();
      for (TokenId i = 0; i < 7; ++i) {
        const auto expected = Alone(Prompt(20U + static_cast<size_t>(i) * 5, i), pooling);
        EXPECT_EQ(sinks[static_cast<size_t>(i)]->end().embedding, expected) << chunk;
      }
    }
  }
}

TEST(Embedding, DoesNotDependOnPreemption) {
  for (const uint64_t swap_bytes : {uint64_t{0}, uint64_t{1} << 20}) {
    for (const Pooling pooling : kAll) {
      Bench bench(Limits(8, 2, PrefixCacheMode::kOn, swap_bytes),
                  {.kv_blocks = 20, .block_size = 4, .context_length = 64});
      std::vector<std::shared_ptr<RecordingSink>> sinks;
      for (TokenId i = 0; i < 3; ++i) bench.Generate(Prompt(4, 40 + i), 30);
      for (TokenId i = 0; i < 3; ++i) sinks.push_back(bench.Embed(Prompt(30, i), pooling));
      bench.RunToEnd();
      for (TokenId i = 0; i < 3; ++i) {
        EXPECT_EQ(sinks[static_cast<size_t>(i)]->end().embedding, Alone(Prompt(30, i), pooling));
      }
    }
  }
}

// Decodes that outgrow the pool take the blocks of a half-pooled prompt of lower rank.
TEST(Embedding, IsPooledOnceThoughItsPromptIsComputedTwice) {
  Bench bench(Limits(2, 1), {.kv_blocks = 16, .block_size = 4, .context_length = 64});
  bench.Generate(Prompt(8, 1), 40);
  const auto sink = bench.Embed(Prompt(40, 2), Pooling::kMean);
  bench.RunToEnd();
  EXPECT_GT(bench.fake.runtime->scheduler().stats().preemptions, 0U);
  EXPECT_EQ(sink->end().embedding, Alone(Prompt(40, 2), Pooling::kMean));
}

TEST(Embedding, TakesFromThePrefixCacheOnlyWhatItNeedsNot) {
  for (const Pooling pooling : kAll) {
    Bench bench(Limits(64, 16, PrefixCacheMode::kOn));
    bench.Generate(Prompt(33, 5), 2);
    bench.RunToEnd();
    const auto sink = bench.Embed(Prompt(33, 5), pooling);
    bench.RunToEnd();
    EXPECT_EQ(sink->end().embedding, Alone(Prompt(33, 5), pooling));
    EXPECT_EQ(sink->end().cached_tokens, pooling == Pooling::kLast ? 32U : 0U);
  }
}

TEST(Embedding, APromptMayFillTheContext) {
  const FakeRunner::Options small{.kv_blocks = 8, .block_size = 4, .context_length = 32};
  Bench bench({}, small);
  const auto sink = bench.Embed(Prompt(32, 2), Pooling::kMean);
  const auto next = bench.Embed(Prompt(32, 3), Pooling::kLast);
  bench.RunToEnd();
  EXPECT_EQ(sink->end().embedding, Alone(Prompt(32, 2), Pooling::kMean));
  EXPECT_EQ(next->end().embedding, Alone(Prompt(32, 3), Pooling::kLast));
  const auto longer = bench.Embed(Prompt(33, 2), Pooling::kMean);
  EXPECT_EQ(longer->end().reason, FinishReason::kError);
}

TEST(Embedding, FaultsEndOnlyTheirOwnRequest) {
  Bench bench;
  bench.fake.runner->faults.throwing_token = 62;
  bench.fake.runner->faults.non_finite_token = 63;
  const auto good = bench.Embed(Prompt(9, 1), Pooling::kMean);
  const auto throws = bench.Embed({4, 62, 5}, Pooling::kMean);
  const auto breaks = bench.Embed({4, 63, 5}, Pooling::kLast);
  bench.RunToEnd();
  EXPECT_EQ(good->end().embedding, Alone(Prompt(9, 1), Pooling::kMean));
  EXPECT_THAT(throws->end().error, HasSubstr("the fake is broken"));
  EXPECT_THAT(breaks->end().error, HasSubstr("not finite"));
  EXPECT_TRUE(throws->end().embedding.empty());
}

TEST(Embedding, HasOneChoice) {
  Bench bench;
  auto [request, sink] = RecordedRequest({1, 2}, 0, 2);
  request.pooling = Pooling::kMean;
  bench.executor.Accept({std::move(request), 0});
  EXPECT_THAT(sink->end(1).error, HasSubstr("one choice"));
}

}  // namespace
}  // namespace scheduler
