// The generator gives the published answers, and uniforms are uniform and depend on every input.

#include "engine/philox.h"

#include <gtest/gtest.h>

#include <set>

#include "engine/sampler.h"

namespace engine {
namespace {

// Known answers of Random123, philox4x32-10.
TEST(Philox, GivesThePublishedAnswers) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}),
            (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_EQ(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(CounterUniform, DependsOnEveryInputAndNothingElse) {
  const double base = CounterUniform(1, 2, 3, 4);
  EXPECT_EQ(CounterUniform(1, 2, 3, 4), base);
  EXPECT_NE(CounterUniform(2, 2, 3, 4), base);
  EXPECT_NE(CounterUniform(1 + (uint64_t{1} << 32), 2, 3, 4), base);
  EXPECT_NE(CounterUniform(1, 3, 3, 4), base);
  EXPECT_NE(CounterUniform(1, 2, 4, 4), base);
  EXPECT_NE(CounterUniform(1, 2, 3, 5), base);
}

TEST(CounterUniform, FillsTheUnitIntervalEvenly) {
  constexpr int kBins = 20;
  constexpr int kDraws = 100'000;
  std::array<int, kBins> bins = {};
  for (uint32_t position = 0; position < kDraws; ++position) {
    const double uniform = CounterUniform(42, 0, position, 0);
    ASSERT_GE(uniform, 0.0);
    ASSERT_LT(uniform, 1.0);
    ++bins[static_cast<size_t>(uniform * kBins)];
  }
  double chi_squared = 0;
  for (const int count : bins) {
    const double expected = static_cast<double>(kDraws) / kBins;
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_squared, 43.8);  // 19 degrees of freedom, p = 0.001
}

}  // namespace
}  // namespace engine
