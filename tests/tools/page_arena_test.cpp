// Property: blocks of an arena do not overlap, read as zeros, give their pages back, and join their
// neighbours, whichever threads take them.

#include "tools/intercept/page_arena.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <thread>
#include <vector>

namespace intercept {
namespace {

constexpr size_t kPage = PageArena::kPageBytes;

TEST(PageArena, HandsOutWholePagesAndJoinsFreeNeighbours) {
  PageArena arena;
  ASSERT_TRUE(arena.Reserve(8 * kPage));
  EXPECT_FALSE(arena.Reserve(kPage));
  void* a = arena.Allocate(1);
  void* b = arena.Allocate(3 * kPage);
  void* c = arena.Allocate(4 * kPage);
  ASSERT_TRUE(a != nullptr && b != nullptr && c != nullptr);
  EXPECT_EQ(arena.Allocate(1), nullptr);
  EXPECT_EQ(arena.BlockBytes(b), 3 * kPage);
  EXPECT_EQ(arena.BlockBytes(static_cast<char*>(b) + kPage), 0U);
  EXPECT_FALSE(arena.Free(static_cast<char*>(b) + kPage));
  EXPECT_EQ(arena.used_bytes(), 8 * kPage);
  EXPECT_TRUE(arena.Free(b));
  EXPECT_FALSE(arena.Free(b));
  EXPECT_EQ(arena.Allocate(4 * kPage), nullptr);
  EXPECT_TRUE(arena.Free(a));
  EXPECT_EQ(arena.Allocate(4 * kPage), a);
  EXPECT_TRUE(arena.Free(c));
  EXPECT_TRUE(arena.Free(a));
  EXPECT_EQ(arena.Allocate(8 * kPage), a);
  EXPECT_EQ(arena.Allocate(SIZE_MAX), nullptr);
}

TEST(PageArena, KnowsItsAddresses) {
  PageArena arena;
  int outside = 0;
  EXPECT_FALSE(arena.Contains(&outside));
  ASSERT_TRUE(arena.Reserve(4 * kPage));
  char* a = static_cast<char*>(arena.Allocate(4 * kPage));
  EXPECT_TRUE(arena.Contains(a + 4 * kPage - 1));
  EXPECT_FALSE(arena.Contains(a + 4 * kPage));
  EXPECT_FALSE(arena.Contains(a - 1));
  EXPECT_TRUE(arena.Meets(a - 1, 2));
  EXPECT_FALSE(arena.Meets(a - 1, 1));
  EXPECT_FALSE(arena.Contains(&outside));
}

TEST(PageArena, RetiredBlocksAreNeverHandedOutAgain) {
  PageArena arena;
  ASSERT_TRUE(arena.Reserve(4 * kPage));
  char* a = static_cast<char*>(arena.Allocate(2 * kPage));
  arena.Retire(a + kPage);
  EXPECT_FALSE(arena.Free(a));
  EXPECT_EQ(arena.Allocate(2 * kPage), a + 2 * kPage);
  EXPECT_EQ(arena.Allocate(1), nullptr);
}

TEST(PageArena, ThreadsGetBlocksOfTheirOwnThatReadAsZeros) {
  PageArena arena;
  ASSERT_TRUE(arena.Reserve(512 * kPage));
  const auto work = [&](unsigned char mark) {
    std::minstd_rand random(mark);
    for (int i = 0; i < 300; ++i) {
      const size_t bytes = 1 + random() % (20 * kPage);
      auto* block = static_cast<unsigned char*>(arena.Allocate(bytes));
      if (block == nullptr) continue;
      for (size_t at = 0; at < bytes; at += 512) ASSERT_EQ(block[at], 0);
      std::memset(block, mark, bytes);
      for (size_t at = 0; at < bytes; at += 512) ASSERT_EQ(block[at], mark);
      ASSERT_TRUE(arena.Free(block));
    }
  };
  std::vector<std::thread> threads;
  for (unsigned char mark = 1; mark <= 4; ++mark) threads.emplace_back(work, mark);
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(arena.used_bytes(), 0U);
  EXPECT_NE(arena.Allocate(512 * kPage), nullptr);
}

}  // namespace
}  // namespace intercept
