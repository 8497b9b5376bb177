// A model is there for whoever holds it: loads, idleness, operators and the memory of others never
// take it from a request, and a request that waits gets its model or a reason.
#include "server/model_registry.h"

#include <gmock/gmock.h>

#include <chrono>
#include <future>
#include <random>
#include <thread>

#include "tests/server/scripted_source.h"
#include "tests/support/eventually.h"

namespace server {

using support::Eventually;
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using State = ModelRegistry::State;

std::vector<ModelRegistry::Named> Lazy(int count, ModelPolicy policy = {}) {
  policy.lazy = true;
  std::vector<ModelRegistry::Named> models;
  for (int i = 0; i < count; ++i) models.push_back({"m" + std::to_string(i), policy});
  return models;
}

void AwaitReady(ModelWait& wait) {
  const auto told = std::make_shared<std::promise<void>>();
  const auto once = std::make_shared<std::once_flag>();
  wait.SetNotify([told, once] { std::call_once(*once, [&] { told->set_value(); }); });
  if (!wait.ready()) told->get_future().wait();
  wait.SetNotify({});
}

// As a request does it. Throws the ApiError with which it ends otherwise.
std::shared_ptr<ServedModel> Acquire(ModelRegistry& registry, const std::string& name) {
  std::shared_ptr<ModelWait> wait;
  for (;;) {
    try {
      return registry.Get(name);
    } catch (const ModelNotLoaded& missing) {
      wait = missing.wait();
    }
    AwaitReady(*wait);
    wait->Check();
  }
}

std::shared_ptr<ModelWait> BeginWaiting(ModelRegistry& registry, const std::string& name) {
  try {
    registry.Get(name);
  } catch (const ModelNotLoaded& missing) {
    return missing.wait();
  }
  ADD_FAILURE() << name << " is loaded";
  return nullptr;
}

template <typename Function>
std::string ErrorCode(const Function& function) {
  try {
    function();
  } catch (const ApiError& error) {
    return error.code();
  }
  return "none";
}

TEST(ModelRegistry, WhatIsNotLazyIsLoadedAtTheStartInOrder) {
  ScriptedSource source({10, 10, 10});
  auto models = Lazy(3);
  models[0].policy.lazy = models[2].policy.lazy = false;
  ModelRegistry registry(models, {}, source);
  EXPECT_EQ(ErrorCode([&] { registry.Get("m0"); }), "model_loading");
  EXPECT_FALSE(registry.started());
  std::promise<std::string> started;
  registry.Start([&](bool ok, const std::string& error) { started.set_value(ok ? "ok" : error); });
  EXPECT_EQ(started.get_future().get(), "ok");
  EXPECT_TRUE(registry.started());
  EXPECT_EQ(registry.StatusOf("m0").state, State::kReady);
  EXPECT_EQ(registry.StatusOf("m1").state, State::kUnloaded);
  EXPECT_EQ(registry.StatusOf("m2").state, State::kReady);
  EXPECT_EQ(registry.Get("")->name(), "m0");
  EXPECT_EQ(registry.Ready().size(), 2U);
  EXPECT_EQ(registry.StatusOf("m1").facts->architecture, "scripted");
  EXPECT_EQ(ErrorCode([&] { registry.Get("m3"); }), "model_not_found");
}

TEST(ModelRegistry, AModelOfTheStartThatFailsIsTold) {
  ScriptedSource source({10});
  source.FailNext(1);
  ModelRegistry registry({{"m0", {}}}, {}, source);
  std::promise<std::pair<bool, std::string>> started;
  registry.Start([&](bool ok, const std::string& error) { started.set_value({ok, error}); });
  const auto [ok, error] = started.get_future().get();
  EXPECT_FALSE(ok);
  EXPECT_EQ(error, "the file is broken");
  EXPECT_EQ(ErrorCode([&] { registry.Get(""); }), "model_load_failed");
}

TEST(ModelRegistry, OneLoadServesAllWhoWait) {
  ScriptedSource source({10});
  ModelRegistry registry(Lazy(1), {.max_waiting = 2}, source);
  registry.Start([](bool, const std::string&) {});
  source.CloseGate();
  const auto first = BeginWaiting(registry, "m0");
  source.AwaitLoading();
  ASSERT_TRUE(Eventually([&] { return registry.StatusOf("m0").progress == 0.5; }));
  const auto second = BeginWaiting(registry, "m0");
  EXPECT_EQ(registry.StatusOf("m0").state, State::kLoading);
  EXPECT_EQ(registry.StatusOf("m0").waiting, 2U);
  EXPECT_EQ(ErrorCode([&] { registry.Get("m0"); }), "server_is_overloaded");
  source.OpenGate();
  AwaitReady(*first);
  AwaitReady(*second);
  first->Check();
  second->Check();
  EXPECT_EQ(registry.Get("m0")->name(), "m0");
  EXPECT_EQ(source.loads(), 1);
}

TEST(ModelRegistry, WhoHasGoneMakesRoomForAnotherWhoWaits) {
  ScriptedSource source({10});
  ModelRegistry registry(Lazy(1), {.max_waiting = 1}, source);
  registry.Start([](bool, const std::string&) {});
  source.CloseGate();
  BeginWaiting(registry, "m0").reset();
  const auto second = BeginWaiting(registry, "m0");
  source.OpenGate();
  AwaitReady(*second);
  second->Check();
}

TEST(ModelRegistry, AFailedLoadIsTriedAgainAfterAPauseThatGrows) {
  ScriptedSource source({10});
  source.FailNext(2);
  ModelRegistry registry(Lazy(1), {}, source);
  registry.Start([](bool, const std::string&) {});
  EXPECT_EQ(ErrorCode([&] { Acquire(registry, "m0"); }), "model_load_failed");
  EXPECT_EQ(registry.StatusOf("m0").error, "the file is broken");
  // Within the pause nothing is tried, and the answer says when to come again.
  try {
    registry.Get("m0");
    ADD_FAILURE();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 503);
    EXPECT_EQ(error.retry_after(), 1);
    EXPECT_THAT(error.what(), HasSubstr("the file is broken"));
  }
  EXPECT_EQ(source.loads(), 1);
  // An operator need not wait.
  const auto ordered = registry.Load("m0");
  AwaitReady(*ordered);
  EXPECT_EQ(ErrorCode([&] { ordered->Check(); }), "model_load_failed");
  try {
    registry.Get("m0");
    ADD_FAILURE();
  } catch (const ApiError& error) {
    EXPECT_EQ(error.retry_after(), 2);
  }
  EXPECT_TRUE(Eventually([&] { return ErrorCode([&] { Acquire(registry, "m0"); }) == "none"; }));
  EXPECT_EQ(source.loads(), 3);
  EXPECT_EQ(registry.StatusOf("m0").failed_loads, 2U);
}

TEST(ModelRegistry, AnOperatorsUnloadWaitsForTheLastUser) {
  ScriptedSource source({10});
  ModelRegistry registry(Lazy(1, {.pinned = true}), {}, source);
  registry.Start([](bool, const std::string&) {});
  auto lease = Acquire(registry, "m0");
  const auto gone = registry.Unload("m0");
  EXPECT_EQ(registry.StatusOf("m0").state, State::kUnloading);
  // Who comes now waits for the model to come back.
  auto later = BeginWaiting(registry, "m0");
  EXPECT_FALSE(gone->ready());
  EXPECT_TRUE(dynamic_cast<ScriptedModel&>(*lease).loaded);
  lease.reset();
  AwaitReady(*gone);
  AwaitReady(*later);
  later->Check();
  EXPECT_EQ(Acquire(registry, "m0")->name(), "m0");
  EXPECT_EQ(source.loads(), 2);
  EXPECT_EQ(source.raced(), 0);
  EXPECT_EQ(registry.StatusOf("m0").unloads[static_cast<size_t>(ModelRegistry::Cause::kOperator)],
            1U);
  later.reset();  // it holds the model that it waited for
  // What is not loaded is unloaded already.
  AwaitReady(*registry.Unload("m0"));
  EXPECT_TRUE(registry.Unload("m0")->ready());
}

TEST(ModelRegistry, AnUnloadDuringALoadComesAfterThoseWhoWaitedForIt) {
  ScriptedSource source({10});
  ModelRegistry registry(Lazy(1), {}, source);
  registry.Start([](bool, const std::string&) {});
  source.CloseGate();
  auto wait = BeginWaiting(registry, "m0");
  source.AwaitLoading();
  const auto gone = registry.Unload("m0");
  source.OpenGate();
  AwaitReady(*wait);
  wait->Check();
  EXPECT_FALSE(gone->ready());
  wait.reset();
  AwaitReady(*gone);
  EXPECT_EQ(registry.StatusOf("m0").state, State::kUnloaded);
}

TEST(ModelRegistry, OnlyAnIdleModelThatIsNotPinnedIsUnloadedForIdleness) {
  ScriptedSource source({10, 10, 10});
  auto models = Lazy(3, {.idle_seconds = 0.02});
  models[1].policy.pinned = true;
  ModelRegistry registry(models, {}, source);
  registry.Start([](bool, const std::string&) {});
  const auto held = Acquire(registry, "m0");
  Acquire(registry, "m1");
  Acquire(registry, "m2");
  EXPECT_TRUE(Eventually([&] { return registry.StatusOf("m2").state == State::kUnloaded; }));
  EXPECT_EQ(registry.StatusOf("m0").state, State::kReady);
  EXPECT_EQ(registry.StatusOf("m1").state, State::kReady);
  EXPECT_THAT(source.unloaded(), ElementsAre(2));
  Acquire(registry, "m2");
  EXPECT_EQ(source.loads(), 4);
}

TEST(ModelRegistry, TheLeastRecentlyUsedMakesRoom) {
  ScriptedSource source({10, 10, 10, 10});
  ModelRegistry registry(Lazy(4), {.memory_bytes = 35}, source);
  registry.Start([](bool, const std::string&) {});
  for (const char* name : {"m0", "m1", "m2", "m0"}) Acquire(registry, name);
  Acquire(registry, "m3");
  EXPECT_THAT(source.unloaded(), ElementsAre(1));
  Acquire(registry, "m1");
  EXPECT_THAT(source.unloaded(), ElementsAre(1, 2));
  EXPECT_EQ(source.most_bytes(), 30U);
}

TEST(ModelRegistry, PinnedModelsStayAndWhatCanNeverFitIsToldAtOnce) {
  ScriptedSource source({10, 10, 21, 20});
  auto models = Lazy(4);
  models[0].policy.pinned = true;
  ModelRegistry registry(models, {.memory_bytes = 30}, source);
  registry.Start([](bool, const std::string&) {});
  Acquire(registry, "m0");
  Acquire(registry, "m1");
  EXPECT_EQ(ErrorCode([&] { Acquire(registry, "m2"); }), "model_load_failed");
  EXPECT_THAT(registry.StatusOf("m2").error, HasSubstr("server.model_memory"));
  Acquire(registry, "m3");
  EXPECT_THAT(source.unloaded(), ElementsAre(1));
}

TEST(ModelRegistry, AModelInSteadyUseDoesNotKeepAnotherOut) {
  ScriptedSource source({10, 10});
  ModelRegistry registry(Lazy(2), {.memory_bytes = 15}, source);
  registry.Start([](bool, const std::string&) {});
  std::atomic<bool> done{false};
  std::vector<std::thread> users;
  std::vector<std::atomic<bool>> served(3);
  for (size_t i = 0; i < served.size(); ++i) {
    users.emplace_back([&, i] {
      auto held = Acquire(registry, "m0");
      served[i] = true;
      while (!done) {
        // The next one is asked for before the last one ends; when the model is asked to leave, the
        // last one does end.
        try {
          held = registry.Get("m0");
        } catch (const ModelNotLoaded&) {
          held.reset();
          held = Acquire(registry, "m0");
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
  }
  ASSERT_TRUE(Eventually([&] { return served[0] && served[1] && served[2]; }));
  EXPECT_EQ(Acquire(registry, "m1")->name(), "m1");
  done = true;
  for (std::thread& user : users) user.join();
  EXPECT_EQ(source.most_bytes(), 10U);
  EXPECT_EQ(source.raced(), 0);
}

TEST(ModelRegistry, AModelOfTheStartThatDoesNotFitComesWithItsFirstRequest) {
  ScriptedSource source({10, 10});
  ModelRegistry registry({{"m0", {}}, {"m1", {}}}, {.memory_bytes = 15}, source);
  std::promise<bool> started;
  registry.Start([&](bool ok, const std::string&) { started.set_value(ok); });
  EXPECT_TRUE(started.get_future().get());
  EXPECT_EQ(registry.StatusOf("m0").state, State::kReady);
  EXPECT_EQ(registry.StatusOf("m1").state, State::kUnloaded);
  Acquire(registry, "m1");
  EXPECT_EQ(registry.StatusOf("m0").state, State::kUnloaded);
}

TEST(ModelRegistry, AnUnloadBeforeItsLoadAtTheStartIsDoneAndForgotten) {
  ScriptedSource source({10, 10});
  ModelRegistry registry({{"m0", {}}, {"m1", {}}}, {.memory_bytes = 15}, source);
  source.CloseGate();
  std::promise<bool> started;
  registry.Start([&](bool ok, const std::string&) { started.set_value(ok); });
  source.AwaitLoading();
  const auto unload = registry.Unload("m1");
  source.OpenGate();
  EXPECT_TRUE(started.get_future().get());
  AwaitReady(*unload);
  Acquire(registry, "m1");
  EXPECT_EQ(registry.StatusOf("m1").state, State::kReady);
}

TEST(ModelRegistry, ADrainGivesUpALoadOnlyWhenNobodyWaits) {
  for (const bool waited_for : {false, true}) {
    ScriptedSource source({10});
    ModelRegistry registry(Lazy(1), {}, source);
    registry.Start([](bool, const std::string&) {});
    source.CloseGate();
    auto wait = BeginWaiting(registry, "m0");
    source.AwaitLoading();
    if (!waited_for) wait.reset();
    registry.BeginDrain();
    if (!waited_for) {
      EXPECT_TRUE(Eventually([&] { return registry.StatusOf("m0").state == State::kUnloaded; }));
      continue;
    }
    source.OpenGate();
    AwaitReady(*wait);
    wait->Check();
    EXPECT_EQ(registry.Get("m0")->name(), "m0");
  }
}

TEST(ModelRegistry, ADrainAtTheStartStillLoadsWhatSomebodyWaitsFor) {
  ScriptedSource source({10, 10});
  auto models = Lazy(2);
  models[0].policy.lazy = false;
  ModelRegistry registry(models, {}, source);
  source.CloseGate();
  registry.Start([](bool, const std::string&) { ADD_FAILURE() << "it did not start"; });
  source.AwaitLoading();
  const auto wait = BeginWaiting(registry, "m1");
  registry.BeginDrain();
  ASSERT_TRUE(Eventually([&] { return registry.StatusOf("m0").state == State::kUnloaded; }));
  source.OpenGate();
  AwaitReady(*wait);
  wait->Check();
}

TEST(ModelRegistry, StoppingEndsAllWaitingAndTheLoadItself) {
  ScriptedSource source({10, 10});
  ModelRegistry registry(Lazy(2), {}, source);
  registry.Start([](bool, const std::string&) {});
  const auto held = Acquire(registry, "m1");
  source.CloseGate();
  const auto wait = BeginWaiting(registry, "m0");
  source.AwaitLoading();
  source.ExpectCut();
  registry.Stop();
  EXPECT_EQ(ErrorCode([&] { wait->Check(); }), "shutting_down");
  EXPECT_EQ(ErrorCode([&] { registry.Get("m1"); }), "shutting_down");
  EXPECT_EQ(source.held_bytes(), 0U);
  EXPECT_FALSE(dynamic_cast<ScriptedModel&>(*held).loaded);
  const ModelRegistry::Status status = registry.StatusOf("m1");
  EXPECT_EQ(status.unloads[static_cast<size_t>(ModelRegistry::Cause::kShutdown)], 1U);
  EXPECT_EQ(status.unloads[static_cast<size_t>(ModelRegistry::Cause::kOperator)], 0U);
}

// Requests, operators, idleness and the limit at random, from several threads.
TEST(ModelRegistry, RandomSchedulesNeverTakeAModelFromItsUser) {
  constexpr int kThreads = 4;
  constexpr int kRequests = 60;
  constexpr int kModels = 4;
  ScriptedSource source({10, 10, 15, 20});
  auto models = Lazy(kModels, {.idle_seconds = 0.003});
  ModelRegistry registry(models, {.memory_bytes = 40}, source);
  registry.Start([](bool, const std::string&) {});
  std::atomic<int> served{0};
  std::atomic<int> taken{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::mt19937 random(static_cast<uint32_t>(thread));
      for (int i = 0; i < kRequests; ++i) {
        const std::string name = "m" + std::to_string(random() % kModels);
        const auto kind = random() % 10;
        if (kind == 0) {
          registry.Unload(name);
        } else if (kind == 1) {
          registry.Load(name);
        }
        const auto model = Acquire(registry, name);
        std::this_thread::sleep_for(std::chrono::microseconds(static_cast<int>(random() % 4000)));
        if (!dynamic_cast<ScriptedModel&>(*model).loaded || model->name() != name) ++taken;
        ++served;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(served, kThreads * kRequests);
  EXPECT_EQ(taken, 0);
  EXPECT_EQ(source.raced(), 0);
  EXPECT_LE(source.most_bytes(), 40U);
  EXPECT_GT(source.unloaded().size(), 10U);
}

}  // namespace
}  // namespace server
