// What waits in the inbox and in the scheduler together stays within the bounds of the options.

#include "scheduler/inbox.h"

#include <gtest/gtest.h>

#include <thread>

namespace scheduler {
namespace {

Submission Make(uint32_t prompt, uint32_t choices = 1) {
  Submission submission;
  submission.request.prompt.assign(prompt, 1);
  submission.request.choices = choices;
  return submission;
}

TEST(Inbox, CountsRequestsUntilTheSchedulerHasStartedThem) {
  SchedulerOptions options;
  options.max_queued_requests = 2;
  Inbox inbox(options);
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kOk);
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kOk);
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kQueueFull);
  EXPECT_EQ(inbox.Drain().size(), 2U);
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kQueueFull);
  inbox.SetWaiting(1, 1);
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kOk);
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kQueueFull);
}

TEST(Inbox, CountsPromptTokensOncePerChoice) {
  SchedulerOptions options;
  options.max_queued_tokens = 10;
  Inbox inbox(options);
  EXPECT_EQ(inbox.Push(Make(3, 3)), AdmitResult::kOk);
  EXPECT_EQ(inbox.Push(Make(2)), AdmitResult::kQueueFull);
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kOk);
  inbox.Drain();
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kQueueFull);
  inbox.SetWaiting(1, 9);
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kOk);
}

TEST(Inbox, TakesALongRequestWhenNothingWaits) {
  SchedulerOptions options;
  options.max_queued_tokens = 10;
  Inbox inbox(options);
  EXPECT_EQ(inbox.Push(Make(100)), AdmitResult::kOk);
  EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kQueueFull);
}

TEST(Inbox, BoundsEachKey) {
  SchedulerOptions options;
  options.max_queued_per_key = 2;
  Inbox inbox(options);
  const auto push = [&](const char* key) {
    Submission submission = Make(1);
    submission.request.tenant = key;
    return inbox.Push(std::move(submission));
  };
  EXPECT_EQ(push("a"), AdmitResult::kOk);
  EXPECT_EQ(push("a"), AdmitResult::kOk);
  EXPECT_EQ(push("a"), AdmitResult::kKeyQueueFull);
  EXPECT_EQ(push("b"), AdmitResult::kOk);
  inbox.Drain();
  EXPECT_EQ(push("a"), AdmitResult::kKeyQueueFull);
  inbox.SetWaiting(1, 1, {{"a", 1}});
  EXPECT_EQ(push("a"), AdmitResult::kOk);
  EXPECT_EQ(push("a"), AdmitResult::kKeyQueueFull);
}

TEST(Inbox, LosesNothingBetweenThreads) {
  SchedulerOptions options;
  options.max_queued_requests = 1000;
  Inbox inbox(options);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 250; ++i) EXPECT_EQ(inbox.Push(Make(1)), AdmitResult::kOk);
    });
  }
  size_t drained = 0;
  while (drained < 500) drained += inbox.Drain().size();
  for (std::thread& thread : threads) thread.join();
  drained += inbox.Drain().size();
  EXPECT_EQ(drained, 1000U);
}

}  // namespace
}  // namespace scheduler
