// The engine thread serves every runtime, takes cancellations within a step, ends each choice once
// on every path out, and never lets a client wait for a step that runs.

#include "scheduler/engine_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/scheduler/fake_runner.h"

namespace scheduler {
namespace {

using engine::TokenId;

TEST(EngineLoop, ServesARequest) {
  FakeRuntime fake;
  EngineLoop loop;
  loop.Attach(fake.runtime);
  auto [request, sink] = RecordedRequest({1, 2, 3}, 5);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kOk);
  ASSERT_TRUE(sink->AwaitEnd());
  EXPECT_EQ(sink->tokens().size(), 5U);
  ASSERT_TRUE(loop.WaitIdle(60));
  const LoopStats stats = loop.Stats(*fake.runtime);
  EXPECT_EQ(stats.steps, 5U);
  EXPECT_EQ(stats.step_tokens, 7U);
  EXPECT_EQ(stats.scheduler.generated_tokens, 5U);
  EXPECT_EQ(stats.scheduler.kv_blocks_used, 0U);
}

TEST(EngineLoop, ServesTwoRuntimesInTurn) {
  FakeRuntime first;
  FakeRuntime second;
  EngineLoop loop;
  loop.Attach(first.runtime);
  loop.Attach(second.runtime);
  auto [a, sink_a] = RecordedRequest({1, 2, 3}, 40);
  auto [b, sink_b] = RecordedRequest({1, 2, 3}, 40);
  first.runner->CloseGateBefore(0);
  ASSERT_EQ(loop.Submit(first.runtime, std::move(a)), AdmitResult::kOk);
  ASSERT_TRUE(first.runner->AwaitStepAtGate());
  ASSERT_EQ(loop.Submit(second.runtime, std::move(b)), AdmitResult::kOk);
  first.runner->OpenGate();
  ASSERT_TRUE(sink_a->AwaitEnd());
  ASSERT_TRUE(sink_b->AwaitEnd());
  EXPECT_EQ(sink_a->tokens(), sink_b->tokens());
}

TEST(EngineLoop, CancelEndsARequestWithinOneStep) {
  FakeRuntime fake;
  EngineLoop loop;
  loop.Attach(fake.runtime);
  auto [request, sink] = RecordedRequest({1, 2, 3}, 100);
  const RequestId id = request.id;
  fake.runner->CloseGateBefore(3);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kOk);
  ASSERT_TRUE(fake.runner->AwaitStepAtGate());
  const size_t before = sink->events().size();
  loop.Cancel(id);
  fake.runner->OpenGate();
  ASSERT_TRUE(sink->AwaitEnd());
  EXPECT_EQ(sink->end().reason, FinishReason::kCancelled);
  EXPECT_LE(sink->events().size(), before + 2);  // the running step's token, then the end
  ASSERT_TRUE(loop.WaitIdle(60));
  EXPECT_EQ(loop.Stats(*fake.runtime).scheduler.kv_blocks_used, 0U);
}

TEST(EngineLoop, ACancelRightAfterSubmitIsNotLost) {
  FakeRuntime fake;
  EngineLoop loop;
  loop.Attach(fake.runtime);
  for (int i = 0; i < 200; ++i) {
    auto [request, sink] = RecordedRequest({1, 2, 3}, 0);
    const RequestId id = request.id;
    fake.runner->CloseGateBefore(fake.runner->steps);
    ASSERT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kOk);
    loop.Cancel(id);
    fake.runner->OpenGate();
    ASSERT_TRUE(sink->AwaitEnd());
    EXPECT_EQ(sink->end().reason, FinishReason::kCancelled);
    EXPECT_LE(sink->tokens().size(), 1U);
    ASSERT_TRUE(loop.WaitIdle(60));
  }
}

TEST(EngineLoop, CancellingAChoiceLeavesTheOthers) {
  FakeRuntime fake;
  EngineLoop loop;
  loop.Attach(fake.runtime);
  auto [request, sink] = RecordedRequest({1, 2, 3}, 30, 3);
  const RequestId id = request.id;
  fake.runner->CloseGateBefore(0);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kOk);
  ASSERT_TRUE(fake.runner->AwaitStepAtGate());
  loop.CancelChoice(id, 2, FinishReason::kStop);
  fake.runner->OpenGate();
  ASSERT_TRUE(sink->AwaitEnd());
  EXPECT_EQ(sink->end(0).reason, FinishReason::kLength);
  EXPECT_EQ(sink->end(1).reason, FinishReason::kLength);
  EXPECT_EQ(sink->end(2).reason, FinishReason::kStop);
}

TEST(EngineLoop, TheQueueIsBoundedWhileAStepRuns) {
  SchedulerOptions options;
  options.max_queued_requests = 3;
  FakeRuntime fake(options);
  EngineLoop loop;
  loop.Attach(fake.runtime);
  auto [first, first_sink] = RecordedRequest({1, 2, 3}, 2);
  fake.runner->CloseGateBefore(0);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(first)), AdmitResult::kOk);
  ASSERT_TRUE(fake.runner->AwaitStepAtGate());
  // The running step's own request counts until the step is done, so two or three more fit.
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  int refused = 0;
  for (int i = 0; i < 10; ++i) {
    auto [request, sink] = RecordedRequest({1, 2, 3}, 2);
    const AdmitResult result = loop.Submit(fake.runtime, std::move(request));
    if (result == AdmitResult::kOk) {
      sinks.push_back(sink);
    } else {
      EXPECT_EQ(result, AdmitResult::kQueueFull);
      ++refused;
    }
  }
  EXPECT_GE(refused, 7);
  EXPECT_GE(sinks.size(), 2U);
  fake.runner->OpenGate();
  for (const auto& sink : sinks) ASSERT_TRUE(sink->AwaitEnd());
}

TEST(EngineLoop, APromptThatDoesNotFitIsRefusedAtOnce) {
  FakeRuntime fake;
  EngineLoop loop;
  loop.Attach(fake.runtime);
  auto [request, sink] = RecordedRequest(std::vector<TokenId>(128, 1), 5);
  EXPECT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kPromptTooLong);
}

TEST(EngineLoop, DrainFinishesWhatWasAcceptedAndRefusesTheRest) {
  FakeRuntime fake;
  EngineLoop loop;
  loop.Attach(fake.runtime);
  auto [accepted, sink] = RecordedRequest({1, 2, 3}, 20);
  fake.runner->CloseGateBefore(0);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(accepted)), AdmitResult::kOk);
  ASSERT_TRUE(fake.runner->AwaitStepAtGate());
  loop.BeginDrain();
  EXPECT_TRUE(loop.draining());
  auto [late, late_sink] = RecordedRequest({1, 2, 3}, 20);
  EXPECT_EQ(loop.Submit(fake.runtime, std::move(late)), AdmitResult::kDraining);
  EXPECT_FALSE(loop.WaitIdle(0));
  fake.runner->OpenGate();
  EXPECT_TRUE(loop.WaitIdle(60));
  EXPECT_EQ(sink->tokens().size(), 20U);
  EXPECT_EQ(late_sink->events().size(), 0U);
}

TEST(EngineLoop, TheDestructorEndsWhatRunsAndWaits) {
  SchedulerOptions options;
  options.max_sequences = 2;
  FakeRuntime fake(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  {
    EngineLoop loop;
    loop.Attach(fake.runtime);
    for (int i = 0; i < 20; ++i) {
      auto [request, sink] = RecordedRequest({1, 2, 3}, 0, 3);
      ASSERT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kOk);
      sinks.push_back(sink);
    }
    ASSERT_TRUE(sinks[0]->AwaitEvents(2));
  }
  for (const auto& sink : sinks) {
    ASSERT_TRUE(sink->ended());
    for (uint32_t choice = 0; choice < 3; ++choice) sink->end(choice);
  }
  EXPECT_EQ(fake.runtime->scheduler().stats().kv_blocks_used, 0U);
}

TEST(EngineLoop, TheDestructorEndsARequestThatWasNeverSeen) {
  for (int i = 0; i < 100; ++i) {
    FakeRuntime fake;
    auto [request, sink] = RecordedRequest({1, 2, 3}, 0);
    {
      EngineLoop loop;
      loop.Attach(fake.runtime);
      ASSERT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kOk);
    }
    ASSERT_TRUE(sink->ended());
  }
}

TEST(EngineLoop, DetachEndsTheRequestsAndDropsTheRuntime) {
  FakeRuntime fake;
  FakeRuntime stays;
  EngineLoop loop;
  loop.Attach(fake.runtime);
  loop.Attach(stays.runtime);
  auto [request, sink] = RecordedRequest({1, 2, 3}, 0);
  auto [other, other_sink] = RecordedRequest({1, 2, 3}, 50);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kOk);
  ASSERT_EQ(loop.Submit(stays.runtime, std::move(other)), AdmitResult::kOk);
  ASSERT_TRUE(sink->AwaitEvents(1));
  loop.Detach(fake.runtime);
  EXPECT_TRUE(sink->ended());
  EXPECT_EQ(fake.runtime.use_count(), 1);
  auto [late, late_sink] = RecordedRequest({1, 2, 3}, 5);
  EXPECT_EQ(loop.Submit(fake.runtime, std::move(late)), AdmitResult::kDraining);
  EXPECT_EQ(loop.Stats(*fake.runtime).steps, 0U);
  loop.Detach(fake.runtime);  // again: nothing to do
  ASSERT_TRUE(other_sink->AwaitEnd());
  EXPECT_EQ(other_sink->tokens().size(), 50U);
}

TEST(EngineLoop, AStepThatThrowsDoesNotStopTheLoop) {
  FakeRuntime fake;
  fake.runner->faults.throwing_token = 50;
  EngineLoop loop;
  loop.Attach(fake.runtime);
  auto [broken, broken_sink] = RecordedRequest({50}, 5);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(broken)), AdmitResult::kOk);
  ASSERT_TRUE(broken_sink->AwaitEnd());
  EXPECT_EQ(broken_sink->end().reason, FinishReason::kError);
  auto [good, good_sink] = RecordedRequest({1}, 5);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(good)), AdmitResult::kOk);
  ASSERT_TRUE(good_sink->AwaitEnd());
  EXPECT_EQ(good_sink->tokens().size(), 5U);
}

TEST(EngineLoop, StatsAndHeartbeatDoNotWaitForAStep) {
  FakeRuntime fake;
  EngineLoop loop;
  loop.Attach(fake.runtime);
  auto [request, sink] = RecordedRequest({1, 2, 3}, 3);
  fake.runner->CloseGateBefore(0);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kOk);
  ASSERT_TRUE(fake.runner->AwaitStepAtGate());
  const double age = loop.HeartbeatAge();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_GE(loop.HeartbeatAge(), age + 0.02);
  EXPECT_EQ(loop.Stats(*fake.runtime).scheduler.kv_blocks_total, 256U);
  fake.runner->OpenGate();
  ASSERT_TRUE(sink->AwaitEnd());
}

TEST(EngineLoop, TheObserverSeesEveryStep) {
  FakeRuntime fake;
  std::atomic<uint64_t> tokens{0};
  std::atomic<uint64_t> rows{0};
  EngineLoop loop;
  loop.SetStepObserver(
      [&](const ModelRuntime&, const engine::StepStats& stats, uint32_t step_rows) {
        tokens += stats.tokens;
        rows += step_rows;
      });
  loop.Attach(fake.runtime);
  auto [request, sink] = RecordedRequest({1, 2, 3}, 4);
  ASSERT_EQ(loop.Submit(fake.runtime, std::move(request)), AdmitResult::kOk);
  ASSERT_TRUE(sink->AwaitEnd());
  loop.Detach(fake.runtime);
  EXPECT_EQ(tokens, 6U);
  EXPECT_EQ(rows, 4U);
}

TEST(EngineLoop, ManyThreadsSubmitAndCancel) {
  SchedulerOptions options;
  options.max_sequences = 6;
  options.max_queued_requests = 16;
  FakeRuntime fake(options, {.kv_blocks = 64, .block_size = 4, .context_length = 128});
  EngineLoop loop;
  loop.Attach(fake.runtime);
  std::atomic<int> ended{0};
  std::atomic<int> accepted{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 60; ++i) {
        const auto choices = static_cast<uint32_t>(1 + i % 3);
        auto [request, sink] =
            RecordedRequest({t, i, 3, 4, 5, 6}, static_cast<uint32_t>(1 + i % 9), choices);
        const RequestId id = request.id;
        if (loop.Submit(fake.runtime, std::move(request)) != AdmitResult::kOk) continue;
        ++accepted;
        if (i % 4 == 0) loop.Cancel(id);
        if (i % 5 == 0) loop.CancelChoice(id, 0, FinishReason::kStop);
        loop.Stats(*fake.runtime);
        if (sink->AwaitEnd()) ++ended;
        for (uint32_t choice = 0; choice < choices; ++choice) sink->end(choice);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended, accepted);
  ASSERT_TRUE(loop.WaitIdle(60));
  loop.Detach(fake.runtime);
  EXPECT_EQ(fake.runtime->scheduler().stats().kv_blocks_used, 0U);
  fake.runtime->scheduler().CheckIntegrity();
}

TEST(EngineLoop, RequestIdsAreUnique) {
  const RequestId first = EngineLoop::NextRequestId();
  EXPECT_NE(first, EngineLoop::NextRequestId());
}

}  // namespace
}  // namespace scheduler
