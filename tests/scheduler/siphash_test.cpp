// SipHash-2-4 equals the published reference vectors.

#include "scheduler/siphash.h"

#include <gtest/gtest.h>

#include <vector>

namespace scheduler {
namespace {

constexpr SipKey kKey = {0x0706050403020100U, 0x0f0e0d0c0b0a0908U};

std::vector<std::byte> Counting(size_t length) {
  std::vector<std::byte> bytes(length);
  for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>(i);
  return bytes;
}

TEST(SipHash, EqualsThePublishedVectors) {
  EXPECT_EQ(SipHash(kKey, {}, {}), 0x726fdb47dd0e0e31U);
  EXPECT_EQ(SipHash(kKey, {}, Counting(1)), 0x74f839c593dc67fdU);
  EXPECT_EQ(SipHash(kKey, {}, Counting(15)), 0xa129ca6149be45e5U);
}

TEST(SipHash, WordsAreTheBeginningOfTheMessage) {
  const uint64_t word = 0x0706050403020100U;
  const std::vector<std::byte> bytes = Counting(15);
  EXPECT_EQ(SipHash(kKey, {&word, 1}, std::span(bytes).subspan(8)), 0xa129ca6149be45e5U);
}

TEST(SipHash, AnotherKeyIsAnotherHash) {
  EXPECT_NE(SipHash({1, 2}, {}, Counting(15)), SipHash({1, 3}, {}, Counting(15)));
}

}  // namespace
}  // namespace scheduler
