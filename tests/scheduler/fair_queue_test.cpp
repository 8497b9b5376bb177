// Keys share by what they were served; within a key the better rank goes first.

#include "scheduler/fair_queue.h"

#include <gtest/gtest.h>

#include <map>

namespace scheduler {
namespace {

Sequence Of(const std::string& tenant, uint64_t id) {
  Sequence sequence;
  sequence.id = id;
  sequence.tenant = tenant;
  return sequence;
}

uint64_t First(const FairQueue& queue) {
  return queue.First([](uint64_t) { return true; });
}

TEST(FairQueue, WithinAKeyTheRankDecides) {
  FairQueue queue;
  queue.Insert(Of("a", 1), {5, 1});
  queue.Insert(Of("a", 2), {3, 2});
  queue.Insert(Of("a", 3), {3, 3});
  EXPECT_EQ(First(queue), 2U);
  queue.Erase(Of("a", 2), {3, 2});
  EXPECT_EQ(First(queue), 3U);
  EXPECT_EQ(queue.size(), 2U);
}

TEST(FairQueue, TheLeastServedKeyGoesFirst) {
  FairQueue queue;
  queue.Insert(Of("a", 1), {0, 1});
  queue.Insert(Of("b", 2), {9, 2});
  queue.Charge("a", 100);
  EXPECT_EQ(First(queue), 2U);
  queue.Charge("b", 101);
  EXPECT_EQ(First(queue), 1U);
}

TEST(FairQueue, WhoCannotStartIsPassedOver) {
  FairQueue queue;
  queue.Insert(Of("a", 1), {0, 1});
  queue.Insert(Of("a", 2), {0, 2});
  EXPECT_EQ(queue.First([](uint64_t id) { return id != 1; }), 2U);
  EXPECT_EQ(queue.First([](uint64_t) { return false; }), 0U);
}

TEST(FairQueue, BeingAwaySavesNothingUp) {
  FairQueue queue;
  queue.Insert(Of("a", 1), {0, 1});
  queue.Charge("a", 1000);
  queue.Insert(Of("b", 2), {0, 2});
  EXPECT_EQ(queue.served("b"), 1000);
  // Nor does it when nobody waits at the moment.
  queue.Erase(Of("a", 1), {0, 1});
  queue.Erase(Of("b", 2), {0, 2});
  queue.Insert(Of("c", 3), {0, 3});
  EXPECT_EQ(queue.served("c"), 1000);
}

// A key with a thousand requests and one with a few: while both wait, they get the same.
TEST(FairQueue, AFloodDoesNotCrowdOutAnotherKey) {
  FairQueue queue;
  std::map<uint64_t, std::string> owner;
  for (uint64_t id = 1; id <= 1000; ++id) {
    owner[id] = "flood";
    queue.Insert(Of("flood", id), {0, id});
  }
  for (uint64_t id = 1001; id <= 1050; ++id) {
    owner[id] = "few";
    queue.Insert(Of("few", id), {0, id});
  }
  std::map<std::string, int> served;
  for (int i = 0; i < 80; ++i) {
    const uint64_t id = First(queue);
    queue.Erase(Of(owner[id], id), {0, id});
    queue.Charge(owner[id], owner[id] == "few" ? 10 : 30);  // its requests are shorter
    served[owner[id]] += 1;
  }
  EXPECT_EQ(served["few"], 50);
  EXPECT_EQ(served["flood"], 30);
}

}  // namespace
}  // namespace scheduler
