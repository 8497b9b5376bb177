// Whatever arrives, is cancelled, fails or runs out of memory: the scheduler keeps its rules
// (listed in simulator.h), and the sample of seeds reaches every one of them.

#include "tests/scheduler/simulator.h"

#include <gtest/gtest.h>

namespace scheduler {
namespace {

TEST(Simulator, TwoThousandSeedsKeepEveryRule) {
  PrintReplayOnAbort();
  SimulationReport total;
  for (uint64_t seed = 1; seed <= 2000; ++seed) total += Simulate(seed);
  EXPECT_GT(total.preemptions, 100U);
  EXPECT_GT(total.copies, 100U);
  EXPECT_GT(total.shared_starts, 100U);
  EXPECT_GT(total.swaps, 100U);
  EXPECT_GT(total.cached_tokens, 1000U);
  EXPECT_GT(total.partial_hits, 100U);
  EXPECT_GT(total.evictions, 1000U);
  EXPECT_GT(total.drafts, 1000U);
  EXPECT_GT(total.model_drafts, 1000U);
  EXPECT_GT(total.accepted_drafts, 1000U);
  EXPECT_GT(total.dropped_drafts, 10U);
  EXPECT_GT(total.refusals, 100U);
  EXPECT_GT(total.cancels, 100U);
  EXPECT_GT(total.failures, 100U);
  EXPECT_GT(total.deadlines, 100U);
  EXPECT_GT(total.windows, 500U);
  EXPECT_GT(total.dropped_blocks, 1000U);
  EXPECT_GT(total.beyond_pool, 100U);
}

TEST(Simulator, ASeedReplaysExactly) {
  EXPECT_EQ(Simulate(42).ToString(), Simulate(42).ToString());
  EXPECT_NE(Simulate(42).ToString(), Simulate(43).ToString());
}

}  // namespace
}  // namespace scheduler
