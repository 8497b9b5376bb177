// A sequence writes only blocks that it alone holds; sharing costs references, not blocks.

#include "scheduler/block_tables.h"

#include <gtest/gtest.h>

namespace scheduler {
namespace {

constexpr uint32_t kBlock = 16;

TEST(BlockTables, GrowsByWholeBlocks) {
  BlockTables tables({.capacity = 4, .block_size = kBlock});
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
  BlockTables tables({.capacity = 4, .block_size = kBlock});
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
  BlockTables tables({.capacity = 8, .block_size = kBlock});
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
  BlockTables tables({.capacity = 8, .block_size = kBlock});
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

}  // namespace
}  // namespace scheduler
