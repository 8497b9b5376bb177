// No memory for an event ends its request, not the process, and no other request.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "fabric/worker_team.h"
#include "server/api_error.h"
#include "server/embedder.h"
#include "server/generation.h"
#include "tests/scheduler/failing_allocator.h"
#include "tests/support/eventually.h"

namespace server {

using support::Eventually;
namespace {

scheduler::TokenEvent Event() {
  scheduler::TokenEvent event;
  event.has_token = true;
  return event;
}

TEST(EventQueueMemory, AnyAllocationMayFail) {
  for (int allowed = 0; allowed < 8; ++allowed) {
    EventQueue queue;
    int failures = 0;
    queue.SetOnFailure([&](EventQueue::Failure) { ++failures; });
    queue.SetNotify([] { ::operator delete(::operator new(1)); });
    scheduler::allocation_failed = false;
    scheduler::allocations_left = allowed;
    for (int i = 0; i < 4; ++i) queue.OnEvent(Event());
    scheduler::allocations_left = -1;
    if (!scheduler::allocation_failed) {
      EXPECT_GT(allowed, 2);  // some did fail
      EXPECT_EQ(queue.TakeAll().size(), 4U);
      return;
    }
    EXPECT_TRUE(queue.ready());
    if (queue.failure() == EventQueue::Failure::kNone) {
      EXPECT_EQ(queue.TakeAll().size(), 4U);  // only the notification failed
    } else {
      EXPECT_EQ(queue.failure(), EventQueue::Failure::kNoMemory);
      EXPECT_EQ(failures, 1);
      EXPECT_TRUE(queue.TakeAll().empty());
    }
  }
  ADD_FAILURE() << "the queue still allocates";
}

TEST(EventQueueMemory, ALostNotificationIsMadeUpForByTheNextEvent) {
  EventQueue queue;
  int notified = 0;
  queue.SetNotify([&] {
    ::operator delete(::operator new(1));
    ++notified;
  });
  queue.OnEvent(Event());
  ASSERT_EQ(queue.TakeAll().size(), 1U);
  EXPECT_EQ(notified, 1);
  // The vector's memory, then the notification's.
  scheduler::allocations_left = 1;
  queue.OnEvent(Event());
  scheduler::allocations_left = -1;
  EXPECT_EQ(notified, 1);
  queue.OnEvent(Event());
  EXPECT_EQ(notified, 2);
  EXPECT_EQ(queue.TakeAll().size(), 2U);
}

TEST(EventQueue, BreaksWhenItsBacklogIsFull) {
  EventQueue queue(3 * sizeof(scheduler::TokenEvent));
  EventQueue::Failure told = EventQueue::Failure::kNone;
  queue.SetOnFailure([&](EventQueue::Failure failure) { told = failure; });
  for (int i = 0; i < 3; ++i) queue.OnEvent(Event());
  EXPECT_EQ(queue.failure(), EventQueue::Failure::kNone);
  EXPECT_EQ(queue.TakeAll().size(), 3U);
  for (int i = 0; i < 3; ++i) queue.OnEvent(Event());
  EXPECT_EQ(told, EventQueue::Failure::kNone);
  queue.OnEvent(Event());
  EXPECT_EQ(told, EventQueue::Failure::kFull);
  EXPECT_TRUE(queue.ready());
  EXPECT_TRUE(queue.TakeAll().empty());
  queue.OnEvent(Event());
  EXPECT_TRUE(queue.TakeAll().empty());
}

TEST(EventQueue, TakesOneEventHoweverLarge) {
  EventQueue queue(1);
  scheduler::TokenEvent event = Event();
  event.top.resize(1000);
  queue.OnEvent(std::move(event));
  EXPECT_EQ(queue.TakeAll().size(), 1U);
}

// On the engine thread one event of a request finds no memory.
class FailingSink : public scheduler::TokenSink {
 public:
  FailingSink(std::shared_ptr<scheduler::TokenSink> inner, int failing_event)
      : inner_(std::move(inner)), failing_event_(failing_event) {}
  void OnEvent(scheduler::TokenEvent event) noexcept override {
    const bool fails = ++events_ == failing_event_;
    if (fails) scheduler::allocations_left = 0;
    inner_->OnEvent(std::move(event));
    if (fails) scheduler::allocations_left = -1;
  }

 private:
  std::shared_ptr<scheduler::TokenSink> inner_;
  int failing_event_;
  int events_ = 0;
};

class FailingModel : public RuntimeModel {
 public:
  // failing_event: one that makes the queue's vector grow, i.e. the 1st, 2nd, 3rd or 5th.
  FailingModel(scheduler::EngineLoop& loop, std::shared_ptr<scheduler::ModelRuntime> runtime,
               int failing_event)
      : RuntimeModel(loop, std::move(runtime)), failing_event_(failing_event) {}
  scheduler::AdmitResult Submit(scheduler::Request request) override {
    request.sink = std::make_shared<FailingSink>(std::move(request.sink), failing_event_);
    return RuntimeModel::Submit(std::move(request));
  }

 private:
  int failing_event_;
};

GenerationJob Job(std::shared_ptr<ServedModel> model, int max_tokens) {
  const Json body = {{"prompt", "Once upon a time"},
                     {"max_tokens", max_tokens},
                     {"ignore_eos", true},
                     {"temperature", 0}};
  return PrepareCompletion(ParseCompletionRequest(body, {}), std::move(model));
}

class RequestMemory : public ::testing::Test {
 protected:
  RequestMemory() {
    scheduler::ModelRuntime::Options options;
    options.name = "demo";
    options.path = std::string(TERN_SOURCE_DIR) + "/models/tern-demo-7m-i2_s.gguf";
    options.engine.kv_bytes = 64u << 20;
    runtime_ = scheduler::ModelRuntime::Load(options, team_);
    loop_.Attach(runtime_);
  }

  fabric::WorkerTeam team_{1};
  std::shared_ptr<scheduler::ModelRuntime> runtime_;
  scheduler::EngineLoop loop_;
};

TEST_F(RequestMemory, ARequestWithoutMemoryForItsEventsEndsAlone) {
  Generation failing(Job(std::make_shared<FailingModel>(loop_, runtime_, 5), 900));
  Generation other(Job(std::make_shared<RuntimeModel>(loop_, runtime_), 40));
  failing.Submit(nullptr);
  other.Submit(nullptr);
  ASSERT_TRUE(
      Eventually([&] { return failing.queue().failure() == EventQueue::Failure::kNoMemory; }));
  try {
    failing.Take();
    ADD_FAILURE() << "the request has not failed";
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 503);
    EXPECT_EQ(error.code(), "server_is_overloaded");
  }
  EXPECT_TRUE(Eventually([&] {
    other.Take();
    return other.finished();
  }));
  EXPECT_EQ(other.usage().completion_tokens, 40U);
  // The engine was told at once: it computes nothing more for the one that failed.
  EXPECT_TRUE(Eventually([&] { return loop_.Stats(*runtime_).scheduler.running == 0; }));
  EXPECT_LT(loop_.Stats(*runtime_).scheduler.generated_tokens, 900U);
}

TEST_F(RequestMemory, VectorsWithoutMemoryEndTheirRequest) {
  EmbeddingJob job;
  job.model = std::make_shared<FailingModel>(loop_, runtime_, 1);
  job.arrival = Clock::now();
  job.Add("Once upon a time", "input");
  Embedder embedder(std::move(job), nullptr);
  embedder.Submit();
  ASSERT_TRUE(Eventually([&] { return embedder.queue().ready(); }));
  EXPECT_THROW(embedder.Take(), ApiError);
}

}  // namespace
}  // namespace server
