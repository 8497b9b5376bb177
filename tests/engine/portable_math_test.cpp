// Elementary functions agree with the C library's to a few units in the last place, and their bits
// are pinned, so that a compiler or machine that changes them is noticed.

#include "engine/portable_math.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <random>

namespace engine {
namespace {

TEST(PortableMath, AgreesWithTheLibrary) {
  std::mt19937_64 random(1);
  std::uniform_real_distribution<double> exponent(-300.0, 300.0);
  std::uniform_real_distribution<double> angle(-1048576.0, 1048576.0);
  for (int i = 0; i < 100'000; ++i) {
    const double x = exponent(random);
    EXPECT_NEAR(PortableExp(x) / std::exp(x), 1.0, 2e-15) << x;
    const double positive = std::exp(x);
    EXPECT_NEAR(PortableLog(positive), std::log(positive), 1e-15 * (1 + std::abs(x))) << positive;
    const double a = i % 2 == 0 ? angle(random) : angle(random) * 1e-6;
    double sine = 0;
    double cosine = 0;
    PortableSinCos(a, &sine, &cosine);
    EXPECT_NEAR(sine, std::sin(a), 4e-16) << a;
    EXPECT_NEAR(cosine, std::cos(a), 4e-16) << a;
  }
}

TEST(PortableMath, ExactWhereTheResultIs) {
  EXPECT_EQ(PortableExp(0.0), 1.0);
  EXPECT_EQ(PortableLog(1.0), 0.0);
  double sine = 1;
  double cosine = 0;
  PortableSinCos(0.0, &sine, &cosine);
  EXPECT_EQ(sine, 0.0);
  EXPECT_EQ(cosine, 1.0);
}

TEST(PortableMath, BitsArePinned) {
  uint64_t hash = 14695981039346656037ULL;
  const auto add = [&hash](double x) {
    hash = (hash ^ std::bit_cast<uint64_t>(x)) * 1099511628211ULL;
  };
  for (int i = 1; i < 20'000; ++i) {
    double sine = 0;
    double cosine = 0;
    PortableSinCos(i * 0.737, &sine, &cosine);
    add(sine);
    add(cosine);
    add(PortableLog(i * 1.37));
    add(PortableExp(i * 0.01 - 100.0));
  }
  EXPECT_EQ(hash, 15972999873510526868ULL);
}

}  // namespace
}  // namespace engine
