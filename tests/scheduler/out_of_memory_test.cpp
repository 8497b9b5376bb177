// Whichever allocation fails: the process lives, every choice ends exactly once, who is told tokens
// is told the right ones, and the next request is served as ever.

#include <gtest/gtest.h>

#include <utility>

#include "scheduler/step_executor.h"
#include "tests/scheduler/failing_allocator.h"
#include "tests/scheduler/fake_runner.h"

namespace scheduler {
namespace {

using engine::TokenId;

// Its own memory is not what is tested.
class SafeSink : public RecordingSink {
 public:
  using RecordingSink::RecordingSink;
  void OnEvent(TokenEvent event) noexcept override {
    const int64_t kept = std::exchange(allocations_left, -1);
    RecordingSink::OnEvent(std::move(event));
    allocations_left = kept;
  }
};

struct World {
  World() {
    SchedulerOptions options;
    options.max_batch_tokens = 12;
    options.swap_bytes = 1 << 16;
    options.speculation = Speculation::kNgram;
    FakeRunner::Options runner;
    runner.kv_blocks = 12;
    runner.context_length = 48;
    fake = std::make_unique<FakeRuntime>(options, runner);
    executor = std::make_unique<StepExecutor>(fake->runtime->scheduler(), *fake->runner,
                                              [] { return 1.0; });
  }

  static Request MakeRequest(TokenId first, uint32_t choices, std::shared_ptr<SafeSink>* sink) {
    Request request = RecordedRequest({first, 2, 3, 4, 2, 3, 4, 2, 3}, 20, choices).first;
    request.prompt_logprobs = first == 5;
    *sink = std::make_shared<SafeSink>(choices);
    request.sink = *sink;
    return request;
  }

  std::shared_ptr<SafeSink> Accept(TokenId first, uint32_t choices) {
    std::shared_ptr<SafeSink> sink;
    Request request = MakeRequest(first, choices, &sink);
    executor->Accept({std::move(request), 1});
    return sink;
  }

  void RunToEnd() {
    while (executor->Step()) fake->runtime->scheduler().CheckIntegrity();
    EXPECT_EQ(executor->requests(), 0U);
  }

  std::unique_ptr<FakeRuntime> fake;
  std::unique_ptr<StepExecutor> executor;
};

// Each choice has one end; tokens are a beginning of those of an undisturbed run.
void ExpectHonest(const RecordingSink& sink, uint32_t choices, const RecordingSink& undisturbed) {
  for (uint32_t choice = 0; choice < choices; ++choice) {
    const TokenEvent end = sink.end(choice);
    const std::vector<TokenId> tokens = sink.tokens(choice);
    const std::vector<TokenId> all = undisturbed.tokens(choice);
    ASSERT_LE(tokens.size(), all.size());
    EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), all.begin()));
    if (end.reason != FinishReason::kError) {
      EXPECT_EQ(tokens.size(), all.size());
    } else {
      EXPECT_FALSE(end.error.empty());
    }
  }
}

class OutOfMemory : public testing::Test {
 protected:
  OutOfMemory() {
    World world;
    first_ = world.Accept(1, 1);
    world.RunToEnd();
    second_ = world.Accept(5, 3);
    world.RunToEnd();
  }
  std::shared_ptr<SafeSink> first_;
  std::shared_ptr<SafeSink> second_;
};

TEST_F(OutOfMemory, ARequestForWhichThereIsNoneFailsAlone) {
  bool failed = true;
  int64_t allocations = 0;
  for (; failed; ++allocations) {
    SCOPED_TRACE(allocations);
    World world;
    const auto running = world.Accept(1, 1);
    world.executor->Step();
    std::shared_ptr<SafeSink> sink;
    Request request = World::MakeRequest(5, 3, &sink);
    allocation_failed = false;
    allocations_left = allocations;
    world.executor->Accept({std::move(request), 1});
    allocations_left = -1;
    failed = allocation_failed;
    world.RunToEnd();
    EXPECT_EQ(running->end().reason, FinishReason::kLength);
    EXPECT_EQ(running->tokens(), first_->tokens());
    ExpectHonest(*sink, 3, *second_);
    if (failed) {
      EXPECT_EQ(sink->end(0).reason, FinishReason::kError);
    }
    const auto later = world.Accept(1, 1);
    world.RunToEnd();
    EXPECT_EQ(later->tokens(), first_->tokens());
  }
  EXPECT_GT(allocations, 10);
}

TEST_F(OutOfMemory, StepsThatFindNoneEndTheirRequestsAndServeTheNext) {
  bool failed = true;
  int64_t allocations = 0;
  for (; failed; allocations += 1 + allocations / 100) {
    SCOPED_TRACE(allocations);
    World world;
    const auto first = world.Accept(1, 1);
    const auto second = world.Accept(5, 3);
    allocation_failed = false;
    allocations_left = allocations;
    while (world.executor->Step()) {
    }
    allocations_left = -1;
    failed = allocation_failed;
    world.RunToEnd();
    ExpectHonest(*first, 1, *first_);
    ExpectHonest(*second, 3, *second_);
    world.fake->runtime->scheduler().CheckIntegrity();
    EXPECT_EQ(world.fake->runtime->scheduler().stats().kv_blocks_used, 0U);
    const auto later = world.Accept(1, 1);
    world.RunToEnd();
    EXPECT_EQ(later->tokens(), first_->tokens());
  }
  EXPECT_GT(allocations, 100);
}

}  // namespace
}  // namespace scheduler
