// A block is free, idle or referenced: exactly one of them.

#include "scheduler/block_pool.h"

#include <gtest/gtest.h>

#include <set>

namespace scheduler {
namespace {

TEST(BlockPool, HandsOutEveryBlockOnceAndThenNone) {
  BlockPool pool(5);
  std::set<BlockId> blocks;
  for (int i = 0; i < 5; ++i) blocks.insert(pool.Allocate().value());
  EXPECT_EQ(blocks, (std::set<BlockId>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  EXPECT_EQ(pool.free(), 0U);
  EXPECT_EQ(pool.used(), 5U);
  pool.CheckIntegrity();
}

TEST(BlockPool, FreesBlockWhenLastReferenceDrops) {
  BlockPool pool(1);
  const BlockId block = pool.Allocate().value();
  pool.AddReference(block);
  EXPECT_EQ(pool.references(block), 2U);
  EXPECT_FALSE(pool.Release(block));
  EXPECT_EQ(pool.free(), 0U);
  EXPECT_TRUE(pool.Release(block));
  pool.Free(block);
  EXPECT_EQ(pool.free(), 1U);
  EXPECT_EQ(pool.references(block), 0U);
  pool.CheckIntegrity();
}

TEST(BlockPool, GivesAFreedBlockAgain) {
  BlockPool pool(2);
  const BlockId first = pool.Allocate().value();
  pool.Allocate();
  pool.Release(first);
  pool.Free(first);
  EXPECT_EQ(pool.Allocate(), first);
}

TEST(BlockPool, AnIdleBlockIsNeitherFreeNorUsedUntilItIsWantedAgain) {
  BlockPool pool(2);
  const BlockId block = pool.Allocate().value();
  pool.Release(block);
  EXPECT_EQ(pool.idle(), 1U);
  EXPECT_EQ(pool.free(), 1U);
  EXPECT_EQ(pool.used(), 0U);
  pool.CheckIntegrity();
  pool.AddReference(block);
  EXPECT_EQ(pool.idle(), 0U);
  EXPECT_EQ(pool.used(), 1U);
  pool.CheckIntegrity();
}

TEST(BlockPool, WithoutCapacityHasNothing) {
  BlockPool pool(0);
  EXPECT_EQ(pool.Allocate(), std::nullopt);
  pool.CheckIntegrity();
}

}  // namespace
}  // namespace scheduler
