// Property: bind, bundle and similarity are the trit-wise operations that they are named after, and
// what was bound can be found again.

#include "fabric/sparse/hypervector.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace fabric::sparse {
namespace {

constexpr uint32_t kDimensions = 10000;

TEST(Hypervector, BindAndBundleAreTritwise) {
  const Hypervector a = Hypervector::Random(1000, 1, 0.3);
  const Hypervector b = Hypervector::Random(1000, 2, 0.3);
  const Hypervector bound = Bind(a, b);
  const Hypervector sum = Bundle(a, b);
  for (uint32_t i = 0; i < a.dimensions(); ++i) {
    EXPECT_EQ(bound.Get(i), a.Get(i) * b.Get(i));
    EXPECT_EQ(sum.Get(i), std::clamp(a.Get(i) + b.Get(i), -1, 1));
  }
  EXPECT_EQ(Bind(a, b), Bind(b, a));
}

TEST(Hypervector, RandomOnesAreReproducibleAndNearlyOrthogonal) {
  const Hypervector a = Hypervector::Random(kDimensions, 1);
  EXPECT_EQ(a, Hypervector::Random(kDimensions, 1));
  EXPECT_EQ(a.nonzeros(), kDimensions);
  // A cosine of independent vectors has deviation 1 / sqrt(10000) = 0.01.
  EXPECT_LT(std::abs(Similarity(a, Hypervector::Random(kDimensions, 2))), 0.05);
  EXPECT_DOUBLE_EQ(Similarity(a, a), 1.0);
  const Hypervector third = Hypervector::Random(kDimensions, 3, 1.0 / 3);
  EXPECT_NEAR(static_cast<double>(third.nonzeros()), kDimensions * 2.0 / 3, 250);
}

TEST(Hypervector, BindUndoesItself) {
  const Hypervector key = Hypervector::Random(kDimensions, 3);
  const Hypervector value = Hypervector::Random(kDimensions, 4, 0.4);
  EXPECT_EQ(Bind(Bind(value, key), key), value);
}

TEST(Hypervector, ZeroIsSimilarToNothing) {
  const Hypervector zero(100);
  EXPECT_EQ(Similarity(zero, Hypervector::Random(100, 1)), 0.0);
}

TEST(Hypervector, BundleAllCutsTheSum) {
  const std::vector<Hypervector> items = {Hypervector::Random(500, 1), Hypervector::Random(500, 2),
                                          Hypervector::Random(500, 3)};
  const Hypervector bundle = BundleAll(items, 1.0);
  for (uint32_t i = 0; i < 500; ++i) {
    const int sum = items[0].Get(i) + items[1].Get(i) + items[2].Get(i);
    EXPECT_EQ(bundle.Get(i), std::abs(sum) > 1 ? (sum > 0 ? 1 : -1) : 0);
  }
}

// One hundred key-value pairs in one vector of 10,000 trits; the capacity curve is in
// docs/fabric.md.
TEST(Hypervector, FindsWhatWasBound) {
  ItemMemory values;
  std::vector<Hypervector> pairs;
  constexpr size_t kPairs = 100;
  for (size_t i = 0; i < kPairs; ++i) {
    values.Add(Hypervector::Random(kDimensions, 1000 + i));
    pairs.push_back(Bind(Hypervector::Random(kDimensions, 2000 + i), values[i]));
  }
  const Hypervector memory = BundleAll(pairs);
  size_t found = 0;
  for (size_t i = 0; i < kPairs; ++i) {
    found +=
        values.Cleanup(Bind(memory, Hypervector::Random(kDimensions, 2000 + i))) == i ? 1U : 0U;
  }
  EXPECT_EQ(found, kPairs);
}

TEST(Hypervector, FindsThroughThreeLevels) {
  const auto random = [](uint64_t seed) { return Hypervector::Random(kDimensions, seed); };
  ItemMemory leaves;
  for (uint64_t i = 0; i < 50; ++i) leaves.Add(random(i));
  // leaf 7 at key 101 of a record, which is at key 102 of another, which is at key 103 of the last.
  Hypervector record = leaves[7];
  for (uint64_t level = 1; level <= 3; ++level) {
    const std::vector<Hypervector> fields = {Bind(random(100 + level), record),
                                             Bind(random(200 + level), leaves[level]),
                                             Bind(random(300 + level), leaves[level + 10])};
    record = BundleAll(fields);
  }
  const Hypervector inner = Bind(Bind(Bind(record, random(103)), random(102)), random(101));
  EXPECT_EQ(leaves.Cleanup(inner), 7U);
}

}  // namespace
}  // namespace fabric::sparse
