// Shares of a step sum to the step, figure by figure and layer by layer, and only what was counted
// between two readings is charged.
#include "scheduler/request_cost.h"

#include <gtest/gtest.h>

namespace scheduler {
namespace {

CostReading Reading(uint64_t scale) {
  CostReading reading;
  reading.device.weight_bytes = 100 * scale;
  reading.device.dense_bytes = 40 * scale;
  reading.device.total_ops = 1000 * scale;
  reading.device.active_ops = 300 * scale;
  reading.device.fabric_seconds = 0.5 * static_cast<double>(scale);
  reading.device.energy_picojoules = 7.0 * static_cast<double>(scale);
  reading.layers = {{600 * scale, 200 * scale}, {400 * scale, 100 * scale}};
  reading.kv_bytes = 60 * scale;
  reading.step_seconds = 2.0 * static_cast<double>(scale);
  return reading;
}

TEST(RequestCost, SharesOfAStepSumToTheStep) {
  const CostReading before = Reading(3);
  const CostReading after = Reading(5);
  RequestCost sum;
  for (const uint32_t tokens : {1U, 5U, 10U}) {
    RequestCost row;
    Charge(before, after, tokens, 16, &row);
    EXPECT_DOUBLE_EQ(row.bytes, 400.0 * tokens / 16);
    AddCost(row, &sum);
  }
  EXPECT_DOUBLE_EQ(sum.tokens, 16);
  EXPECT_DOUBLE_EQ(sum.bytes, 400);
  EXPECT_DOUBLE_EQ(sum.total_ops, 2000);
  EXPECT_DOUBLE_EQ(sum.active_ops, 600);
  EXPECT_DOUBLE_EQ(sum.fabric_seconds, 1);
  EXPECT_DOUBLE_EQ(sum.step_seconds, 4);
  EXPECT_DOUBLE_EQ(sum.energy_picojoules, 14);
  ASSERT_EQ(sum.layers.size(), 2U);
  EXPECT_DOUBLE_EQ(sum.layers[0].total_ops, 1200);
  EXPECT_DOUBLE_EQ(sum.layers[0].active_ops, 400);
  EXPECT_DOUBLE_EQ(sum.layers[1].active_ops, 200);
}

TEST(RequestCost, StepsAddUp) {
  RequestCost cost;
  Charge(Reading(0), Reading(1), 1, 2, &cost);
  Charge(Reading(1), Reading(4), 1, 1, &cost);
  EXPECT_DOUBLE_EQ(cost.tokens, 2);
  EXPECT_DOUBLE_EQ(cost.total_ops, 3500);
  EXPECT_DOUBLE_EQ(cost.layers[1].total_ops, 1400);
}

}  // namespace
}  // namespace scheduler
