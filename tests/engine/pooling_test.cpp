// A pooled vector does not depend on how the positions came, holds what its kind says, and has
// length one after Normalized().

#include "engine/pooling.h"

#include <gtest/gtest.h>

#include <cmath>

namespace engine {
namespace {

std::vector<float> State(uint32_t position) {
  const auto p = static_cast<float>(position);
  return {p + 1, 0.1F * p, -p * p};
}

std::vector<float> Pool(Pooling pooling, uint32_t tokens) {
  Pooler pooler(pooling, tokens);
  for (uint32_t p = 0; p < tokens; ++p) {
    if (pooler.Needs(p)) pooler.Add(p, State(p));
  }
  return pooler.Result();
}

TEST(Pooler, TakesThePositionsOfItsKind) {
  EXPECT_EQ(Pool(Pooling::kLast, 5), State(4));
  EXPECT_EQ(Pool(Pooling::kCls, 5), State(0));
  EXPECT_EQ(Pool(Pooling::kMean, 3), (std::vector<float>{2, 0.1F, -5.0F / 3}));
  EXPECT_EQ(Pool(Pooling::kMean, 1), State(0));
}

TEST(Pooler, APositionCountsOnceThoughItIsComputedAgain) {
  Pooler pooler(Pooling::kMean, 4);
  for (const uint32_t p : {0U, 1U, 2U}) pooler.Add(p, State(p));
  for (const uint32_t p : {0U, 1U, 2U}) EXPECT_FALSE(pooler.Needs(p));
  ASSERT_TRUE(pooler.Needs(3));
  pooler.Add(3, State(3));
  EXPECT_EQ(pooler.Result(), Pool(Pooling::kMean, 4));
}

TEST(Normalized, HasLengthOneAfterTheCut) {
  const std::vector<float> vector = {3, 4, 12};
  const auto length = [](const std::vector<float>& v) {
    double squares = 0;
    for (const float x : v) squares += double{x} * double{x};
    return std::sqrt(squares);
  };
  EXPECT_EQ(Normalized(vector, 2), (std::vector<float>{0.6F, 0.8F}));
  EXPECT_NEAR(length(Normalized(vector, 0)), 1, 1e-7);
  EXPECT_EQ(Normalized(vector, 3), Normalized(vector, 0));
  EXPECT_EQ(Normalized(std::vector<float>{0, 0}, 0), (std::vector<float>{0, 0}));
}

}  // namespace
}  // namespace engine
