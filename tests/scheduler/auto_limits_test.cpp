// Limits that are not given follow the machine, and fit each other.

#include "scheduler/auto_limits.h"

#include <gtest/gtest.h>

namespace scheduler {
namespace {

constexpr uint64_t kMuchMemory = 1 << 20;

TEST(AutoLimits, ATwoBillionModelOnTwoCoresGetsShortSteps) {
  const SchedulerOptions limits = WithAutomaticLimits(
      {}, {.macs_per_token = 2.08e9, .macs_per_second = 500e9, .kv_tokens = kMuchMemory});
  EXPECT_EQ(limits.max_sequences, 60U);
  EXPECT_EQ(limits.max_batch_tokens, 92U);
  EXPECT_EQ(limits.prefill_chunk, 23U);
}

TEST(AutoLimits, ASmallModelGetsLongOnes) {
  const SchedulerOptions limits = WithAutomaticLimits(
      {}, {.macs_per_token = 7e6, .macs_per_second = 500e9, .kv_tokens = kMuchMemory});
  EXPECT_EQ(limits.max_sequences, 64U);
  EXPECT_EQ(limits.max_batch_tokens, 512U);
  EXPECT_EQ(limits.prefill_chunk, 128U);
}

TEST(AutoLimits, MemoryBoundsTheSequences) {
  const SchedulerOptions limits = WithAutomaticLimits(
      {}, {.macs_per_token = 7e6, .macs_per_second = 500e9, .kv_tokens = 10 * 256});
  EXPECT_EQ(limits.max_sequences, 10U);
}

TEST(AutoLimits, WhatIsGivenStays) {
  SchedulerOptions given;
  given.max_sequences = 3;
  given.max_batch_tokens = 7;
  given.prefill_chunk = 5;
  const SchedulerOptions limits = WithAutomaticLimits(
      given, {.macs_per_token = 2e9, .macs_per_second = 1e9, .kv_tokens = kMuchMemory});
  EXPECT_EQ(limits.max_sequences, 3U);
  EXPECT_EQ(limits.max_batch_tokens, 7U);
  EXPECT_EQ(limits.prefill_chunk, 5U);
}

TEST(AutoLimits, AGivenBudgetBoundsTheSequences) {
  SchedulerOptions given;
  given.max_batch_tokens = 8;
  const SchedulerOptions limits = WithAutomaticLimits(
      given, {.macs_per_token = 7e6, .macs_per_second = 500e9, .kv_tokens = kMuchMemory});
  EXPECT_EQ(limits.max_sequences, 8U);
}

TEST(AutoLimits, TheSlowestMachineStillWorks) {
  const SchedulerOptions limits =
      WithAutomaticLimits({}, {.macs_per_token = 1e12, .macs_per_second = 1e9, .kv_tokens = 0});
  EXPECT_GE(limits.max_sequences, 1U);
  EXPECT_GT(limits.max_batch_tokens, limits.max_sequences);
  EXPECT_GE(limits.prefill_chunk, 16U);
}

}  // namespace
}  // namespace scheduler
