// The cache finds the longest known beginning of a text, in its own space only, and gives up what
// was idle for longest; after thousands of random changes it still equals a plain model of itself.

#include "scheduler/prefix_cache.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

namespace scheduler {
namespace {

using engine::TokenId;
using Tokens = std::vector<TokenId>;

constexpr uint32_t kBlock = 4;
constexpr SipKey kKey = {1, 2};

class PrefixCacheTest : public testing::Test {
 protected:
  PrefixCache cache_{16, kBlock, kKey};
};

TEST_F(PrefixCacheTest, FindsWholeBlocksInOrder) {
  EXPECT_EQ(cache_.InsertFull("", std::nullopt, Tokens{1, 2, 3, 4}, 7), 7U);
  EXPECT_EQ(cache_.InsertFull("", 7, Tokens{5, 6, 7, 8}, 3), 3U);
  const auto match = cache_.Find("", Tokens{1, 2, 3, 4, 5, 6, 7, 8, 9});
  EXPECT_EQ(match.blocks, (std::vector<BlockId>{7, 3}));
  EXPECT_EQ(match.tokens, 8U);
  cache_.CheckIntegrity();
}

TEST_F(PrefixCacheTest, ABlockIsKnownByWhatIsBeforeItToo) {
  cache_.InsertFull("", std::nullopt, Tokens{1, 2, 3, 4}, 0);
  cache_.InsertFull("", 0, Tokens{5, 6, 7, 8}, 1);
  EXPECT_EQ(cache_.Find("", Tokens{5, 6, 7, 8}).tokens, 0U);
}

TEST_F(PrefixCacheTest, PartOfABlockServesToo) {
  cache_.InsertFull("", std::nullopt, Tokens{1, 2, 3, 4}, 0);
  cache_.InsertFull("", 0, Tokens{5, 6, 7, 8}, 1);
  cache_.InsertFull("", 0, Tokens{5, 6, 9, 9}, 2);
  const auto match = cache_.Find("", Tokens{1, 2, 3, 4, 5, 6, 9, 1});
  EXPECT_EQ(match.blocks, (std::vector<BlockId>{0, 2}));
  EXPECT_EQ(match.tokens, 7U);
  EXPECT_EQ(cache_.Find("", Tokens{1, 2, 3}).tokens, 3U);
}

TEST_F(PrefixCacheTest, ATailIsFoundUntilItEnds) {
  cache_.InsertFull("", std::nullopt, Tokens{1, 2, 3, 4}, 0);
  EXPECT_TRUE(cache_.InsertTail("", 0, Tokens{5, 6}, 1));
  EXPECT_EQ(cache_.Find("", Tokens{1, 2, 3, 4, 5, 6, 7, 8}).tokens, 6U);
  EXPECT_FALSE(cache_.InsertTail("", 0, Tokens{5}, 2)) << "it adds nothing";
  EXPECT_FALSE(cache_.InsertTail("", 1, Tokens{7}, 2)) << "a tail is nobody's parent";
  cache_.CheckIntegrity();
}

TEST_F(PrefixCacheTest, EqualContentKeepsTheOlderBlock) {
  cache_.InsertFull("", std::nullopt, Tokens{1, 2, 3, 4}, 0);
  EXPECT_EQ(cache_.InsertFull("", std::nullopt, Tokens{1, 2, 3, 4}, 5), 0U);
  EXPECT_FALSE(cache_.Contains(5));
}

TEST_F(PrefixCacheTest, SpacesAreApart) {
  cache_.InsertFull("a", std::nullopt, Tokens{1, 2, 3, 4}, 0);
  EXPECT_EQ(cache_.Find("b", Tokens{1, 2, 3, 4}).tokens, 0U);
  EXPECT_EQ(cache_.InsertFull("b", std::nullopt, Tokens{1, 2, 3, 4}, 1), 1U);
  cache_.SetIdle(0);
  std::vector<BlockId> freed;
  cache_.EvictOldest(&freed);
  EXPECT_EQ(cache_.Find("a", Tokens{1, 2, 3, 4}).tokens, 0U);
  EXPECT_EQ(cache_.Find("b", Tokens{1, 2, 3, 4}).tokens, 4U);
  cache_.CheckIntegrity();
}

TEST_F(PrefixCacheTest, TheLongestIdleGoesFirst) {
  cache_.InsertFull("", std::nullopt, Tokens{1, 1, 1, 1}, 0);
  cache_.InsertFull("", std::nullopt, Tokens{2, 2, 2, 2}, 1);
  cache_.SetIdle(0);
  cache_.SetIdle(1);
  cache_.SetUsed(0);
  cache_.SetIdle(0);
  std::vector<BlockId> freed;
  cache_.EvictOldest(&freed);
  EXPECT_EQ(freed, std::vector<BlockId>{1});
}

TEST_F(PrefixCacheTest, WhatIsBehindAnEvictedBlockGoesWithIt) {
  cache_.InsertFull("", std::nullopt, Tokens{1, 1, 1, 1}, 0);
  cache_.InsertFull("", 0, Tokens{2, 2, 2, 2}, 1);
  cache_.InsertTail("", 1, Tokens{3}, 2);
  cache_.SetIdle(0);
  cache_.SetIdle(2);  // block 1 is in use
  std::vector<BlockId> freed;
  cache_.EvictOldest(&freed);
  EXPECT_EQ(std::set(freed.begin(), freed.end()), (std::set<BlockId>{0, 2}));
  EXPECT_FALSE(cache_.Contains(1));
  EXPECT_EQ(cache_.size(), 0U);
  cache_.CheckIntegrity();
}

TEST_F(PrefixCacheTest, ATailThatWasContinuedGoesFirst) {
  cache_.InsertFull("", std::nullopt, Tokens{9, 9, 9, 9}, 4);
  cache_.SetIdle(4);
  cache_.InsertTail("", std::nullopt, Tokens{1, 2}, 0);
  cache_.SetIdle(0);
  cache_.InsertFull("", std::nullopt, Tokens{1, 2, 3, 4}, 1);
  std::vector<BlockId> freed;
  cache_.EvictOldest(&freed);
  EXPECT_EQ(freed, std::vector<BlockId>{0});
}

TEST_F(PrefixCacheTest, EntriesNameParentsBeforeChildren) {
  cache_.InsertFull("s", std::nullopt, Tokens{1, 1, 1, 1}, 8);
  cache_.InsertFull("s", 8, Tokens{2, 2, 2, 2}, 3);
  cache_.InsertTail("s", 8, Tokens{3}, 5);
  const auto entries = cache_.Entries();
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries[0].block, 8U);
  EXPECT_EQ(entries[0].space, "s");
  EXPECT_EQ(entries[1].parent, 8U);
  EXPECT_EQ(entries[2].parent, 8U);
}

// Against a plain list of (space, all tokens up to the block's end).
TEST(PrefixCache, RandomChangesEqualAPlainModel) {
  std::mt19937 random(7);
  const auto pick = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  constexpr uint32_t kBlocks = 40;
  PrefixCache cache(kBlocks, kBlock, kKey);
  struct Known {
    std::string space;
    Tokens text;  // from the beginning to this block's end
    bool idle = false;
  };
  std::map<BlockId, Known> known;
  uint64_t hits = 0;
  uint64_t evictions = 0;
  for (int round = 0; round < 20000; ++round) {
    const std::string space(1, static_cast<char>('a' + pick(2)));
    Tokens text(1 + pick(4 * kBlock));
    for (TokenId& token : text) token = static_cast<TokenId>(pick(2));

    uint32_t longest = 0;
    for (const auto& [block, entry] : known) {
      if (entry.space != space) continue;
      const size_t limit = std::min(entry.text.size(), text.size());
      uint32_t common = 0;
      while (common < limit && entry.text[common] == text[common]) ++common;
      longest = std::max(longest, common);
    }
    const auto match = cache.Find(space, text);
    ASSERT_EQ(match.tokens, longest);
    hits += match.tokens;
    if (match.tokens > 0) {
      const Known& last = known.at(match.blocks.back());
      ASSERT_GE(last.text.size(), match.tokens);
      ASSERT_TRUE(std::equal(text.begin(), text.begin() + match.tokens, last.text.begin()));
    }

    // Index what is missing, as a sequence that has computed `text` would.
    std::optional<BlockId> parent;
    for (size_t first = 0; first < text.size(); first += kBlock) {
      BlockId block = 0;
      while (block < kBlocks && known.contains(block)) ++block;
      if (block == kBlocks) break;
      const size_t count = std::min<size_t>(kBlock, text.size() - first);
      const auto part = std::span(text).subspan(first, count);
      const Tokens whole(text.begin(), text.begin() + static_cast<ptrdiff_t>(first + count));
      if (count < kBlock) {
        if (cache.InsertTail(space, parent, part, block)) known[block] = {space, whole};
        break;
      }
      const auto kept = cache.InsertFull(space, parent, part, block);
      ASSERT_TRUE(kept.has_value());
      if (*kept == block) known[block] = {space, whole};
      ASSERT_EQ(known.at(*kept).text, whole);
      parent = kept;
    }

    for (auto& [block, entry] : known) {
      if (pick(4) != 0) continue;
      entry.idle ? cache.SetUsed(block) : cache.SetIdle(block);
      entry.idle = !entry.idle;
    }
    while (cache.idle() > 0 && known.size() > kBlocks / 2) {
      std::vector<BlockId> freed;
      cache.EvictOldest(&freed);
      ASSERT_FALSE(freed.empty());
      evictions += freed.size();
      for (const BlockId block : freed) ASSERT_TRUE(known.at(block).idle);
      std::erase_if(known, [&](const auto& item) { return !cache.Contains(item.first); });
    }
    ASSERT_EQ(cache.size(), known.size());
    if (round % 100 == 0) cache.CheckIntegrity();
  }
  EXPECT_GT(hits, 10000U);
  EXPECT_GT(evictions, 10000U);
}

}  // namespace
}  // namespace scheduler
