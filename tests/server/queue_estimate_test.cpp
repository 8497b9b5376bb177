// Who is turned away is told to come again when half of the queue will have had its turn, as the
// measured rate of endings says, between 1 s and 60 s.
#include "server/queue_estimate.h"

#include <gtest/gtest.h>

namespace server {
namespace {

Clock::time_point At(double seconds) {
  return Clock::time_point() +
         std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// Endings at a steady rate until `end`.
QueueEstimate& Fed(QueueEstimate& estimate, double per_second, double begin, double end) {
  for (double now = begin; now < end; now += 1 / per_second) estimate.OnEnded(At(now));
  return estimate;
}

TEST(QueueEstimate, IsHalfTheQueueOverTheRate) {
  QueueEstimate estimate;
  Fed(estimate, 4, 100, 400);
  EXPECT_NEAR(estimate.RetryAfterSeconds(200, At(400)), 25, 2);
  EXPECT_NEAR(estimate.RetryAfterSeconds(100, At(400)), 13, 2);
}

TEST(QueueEstimate, FollowsTheRateOfTheLastHalfMinute) {
  QueueEstimate estimate;
  Fed(estimate, 10, 100, 400);
  Fed(estimate, 1, 400, 550);
  EXPECT_NEAR(estimate.RetryAfterSeconds(60, At(550)), 30, 4);
  // A queue that stands still makes the estimate grow.
  EXPECT_EQ(estimate.RetryAfterSeconds(60, At(700)), 60);
}

TEST(QueueEstimate, HasBounds) {
  QueueEstimate estimate;
  EXPECT_EQ(estimate.RetryAfterSeconds(1000, At(1)), 5);  // nothing has ended yet
  Fed(estimate, 100, 100, 200);
  EXPECT_EQ(estimate.RetryAfterSeconds(0, At(200)), 1);
  EXPECT_EQ(estimate.RetryAfterSeconds(1, At(200)), 1);
  EXPECT_EQ(estimate.RetryAfterSeconds(1'000'000, At(200)), 60);
}

TEST(QueueEstimate, IsRightSoonAfterTheStart) {
  QueueEstimate estimate;
  Fed(estimate, 2, 100, 105);
  EXPECT_NEAR(estimate.RetryAfterSeconds(40, At(105)), 10, 2);
}

}  // namespace
}  // namespace server
