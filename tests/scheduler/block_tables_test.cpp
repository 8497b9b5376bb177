// A sequence writes only blocks that it alone holds; sharing costs references, not blocks.

#include "scheduler/block_tables.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace scheduler {
namespace {

constexpr uint32_t kBlock = 16;

TEST(BlockTables, GrowsByWholeBlocks) {
  BlockTables tables({.capacity = 4, .geometry = {.block_size = kBlock}});
  Sequence sequence;
  std::vector<BlockMove> copies;
  EXPECT_EQ(tables.Missing(sequence, 16), 1U);
  EXPECT_EQ(tables.Missing(sequence, 17), 2U);
  tables.Extend(sequence, 16, &copies);
  EXPECT_EQ(sequence.blocks.size(), 1U);
  sequence.num_computed = 16;
  EXPECT_EQ(tables.Missing(sequence, 17), 1U);
  tables.Extend(sequence, 17, &copies);
  EXPECT_EQ(sequence.blocks.size(), 2U);
  EXPECT_TRUE(copies.empty());
}

TEST(BlockTables, ReleaseGivesEverythingBack) {
  BlockTables tables({.capacity = 4, .geometry = {.block_size = kBlock}});
  Sequence sequence;
  std::vector<BlockMove> copies;
  tables.Extend(sequence, 60, &copies);
  sequence.num_computed = 60;
  tables.Release(sequence, true);
  EXPECT_EQ(tables.pool().free(), 4U);
  EXPECT_EQ(sequence.num_computed, 0U);
  EXPECT_TRUE(sequence.blocks.empty());
}

TEST(BlockTables, TheSecondWriterOfASharedBlockCopiesIt) {
  BlockTables tables({.capacity = 8, .geometry = {.block_size = kBlock}});
  Sequence first;
  Sequence second;
  std::vector<BlockMove> copies;
  tables.Extend(first, 20, &copies);
  first.num_computed = 20;
  tables.Share(first, second, 19);
  EXPECT_EQ(second.blocks, first.blocks);
  EXPECT_EQ(tables.pool().used(), 2U);

  EXPECT_EQ(tables.Missing(second, 20), 1U);
  tables.Extend(second, 20, &copies);
  ASSERT_EQ(copies.size(), 1U);
  EXPECT_EQ(copies[0].from, first.blocks[1]);
  EXPECT_EQ(copies[0].to, second.blocks[1]);
  EXPECT_EQ(second.blocks[0], first.blocks[0]);
  EXPECT_NE(second.blocks[1], first.blocks[1]);

  // The other holder is alone now and writes in place.
  EXPECT_EQ(tables.Missing(first, 21), 0U);
  tables.Extend(first, 21, &copies);
  EXPECT_EQ(copies.size(), 1U);
  EXPECT_EQ(tables.pool().used(), 3U);
}

TEST(BlockTables, SharingFullBlocksNeedsNoCopy) {
  BlockTables tables({.capacity = 8, .geometry = {.block_size = kBlock}});
  Sequence first;
  Sequence second;
  std::vector<BlockMove> copies;
  tables.Extend(first, 33, &copies);
  first.num_computed = 33;
  tables.Share(first, second, 32);
  EXPECT_EQ(second.blocks.size(), 2U);
  tables.Extend(second, 33, &copies);
  EXPECT_TRUE(copies.empty());
  EXPECT_NE(second.blocks[2], first.blocks[2]);
}

// 32,768 tokens in a window of 2,048 beside 4 sinks: 129 blocks of 16 are never exceeded.
TEST(BlockTables, AWindowGivesBackWhatNoPositionWillSee) {
  const engine::KvGeometry geometry = {.block_size = kBlock,
                                       .window = {.tokens = 2048, .sinks = 4}};
  EXPECT_EQ(geometry.MostBlocks(32768, 1), 129U);
  EXPECT_EQ(geometry.MostBlocks(100, 512), 7U);
  BlockTables tables({.capacity = 129, .geometry = geometry});
  Sequence sequence;
  std::vector<BlockMove> copies;
  uint32_t most = 0;
  for (uint32_t n = 0; n < 32768; ++n) {
    ASSERT_LE(tables.Missing(sequence, n + 1), tables.available());
    tables.Extend(sequence, n + 1, &copies);
    sequence.num_computed = n + 1;
    tables.DropUnseen(sequence);
    const uint32_t begin = geometry.window.Begin(n + 1);
    ASSERT_GE(n + 2 - begin, std::min(n + 2, 2048U - 15));
    ASSERT_LE(n + 2 - begin, 2048U);
    for (const uint32_t p : {0U, 3U, begin, begin + 16, n}) {
      ASSERT_TRUE(p > n || sequence.Holds(p / kBlock)) << p << " of " << n;
    }
    most = std::max(most, tables.pool().used());
    ASSERT_EQ(tables.pool().used(), sequence.held_blocks());
  }
  EXPECT_EQ(most, 129U);
  EXPECT_EQ(sequence.blocks.size(), 2048U);
  tables.Release(sequence, false);
  EXPECT_EQ(tables.pool().free(), 129U);
}

// A sibling begins where the prompt ends, and needs what the holder may have left behind.
TEST(BlockTables, APromptIsSharedWhileItsHolderStillHasTheWindow) {
  const engine::KvGeometry geometry = {.block_size = kBlock, .window = {.tokens = 32, .sinks = 1}};
  BlockTables tables({.capacity = 20, .geometry = geometry});
  Sequence first;
  std::vector<BlockMove> copies;
  const auto advance = [&](uint32_t end) {
    tables.Extend(first, end, &copies);
    first.num_computed = end;
    tables.DropUnseen(first);
  };
  advance(100);
  EXPECT_EQ(first.hole_begin, 1U);
  EXPECT_EQ(first.hole_end, geometry.window.Begin(100) / kBlock);
  EXPECT_FALSE(tables.CanShare(first, 101));
  ASSERT_TRUE(tables.CanShare(first, 99));
  Sequence second;
  tables.Share(first, second, 99);
  EXPECT_EQ(second.held_blocks(), first.held_blocks());
  EXPECT_EQ(tables.pool().used(), first.held_blocks());
  advance(120);
  EXPECT_FALSE(tables.CanShare(first, 99));
  tables.Release(first, false);
  tables.Release(second, false);
  EXPECT_EQ(tables.pool().free(), 20U);
}

}  // namespace
}  // namespace scheduler
