// Drafts are what followed the longest and latest earlier match; their length follows acceptance.

#include "scheduler/drafting.h"

#include <gtest/gtest.h>

namespace scheduler {
namespace {

using engine::TokenId;
using Tokens = std::vector<TokenId>;

TEST(DraftFromText, ContinuesTheEarlierPlace) {
  EXPECT_EQ(DraftFromText(Tokens{1, 2, 3, 4, 5, 9, 1, 2, 3}, 2), (Tokens{4, 5}));
}

TEST(DraftFromText, TheLongestMatchWins) {
  EXPECT_EQ(DraftFromText(Tokens{7, 1, 2, 3, 50, 8, 1, 2, 3, 60, 7, 1, 2, 3}, 1), (Tokens{50}));
}

TEST(DraftFromText, AmongEqualsTheLatestWins) {
  EXPECT_EQ(DraftFromText(Tokens{1, 2, 3, 50, 9, 1, 2, 3, 60, 8, 1, 2, 3}, 1), (Tokens{60}));
}

TEST(DraftFromText, ARepetitionGoesOn) {
  EXPECT_EQ(DraftFromText(Tokens{5, 6, 5, 6, 5, 6}, 5), (Tokens{5, 6, 5, 6, 5}));
  EXPECT_EQ(DraftFromText(Tokens{4, 4, 4, 4}, 3), (Tokens{4, 4, 4}));
}

TEST(DraftFromText, TwoTokensAreNoMatch) {
  EXPECT_TRUE(DraftFromText(Tokens{1, 2, 5, 6, 1, 2}, 4).empty());
  EXPECT_TRUE(DraftFromText(Tokens{1}, 4).empty());
  EXPECT_TRUE(DraftFromText(Tokens{1, 2, 3}, 4).empty());
}

TEST(DraftControl, DraftsMoreWhileAllIsAccepted) {
  DraftControl control;
  const uint32_t first = control.Length();
  EXPECT_GE(first, 2U);
  for (int i = 0; i < 20; ++i) control.OnDraft(control.Length(), control.Length());
  EXPECT_GT(control.Length(), 2 * first);
}

TEST(DraftControl, RestsBelowHalfAndLongerEachTime) {
  DraftControl control;
  uint32_t drafted = 0;
  uint32_t drafts = 0;
  constexpr uint32_t kTokens = 2000;
  for (uint32_t i = 0; i < kTokens; ++i) {
    const uint32_t length = control.Length();
    if (length == 0) {
      control.OnPlainToken();
      continue;
    }
    control.OnDraft(length, 0);
    drafted += length;
    ++drafts;
  }
  EXPECT_GE(drafts, 3U);
  // At 0.15 steps each this is less than one percent of the text.
  EXPECT_LE(drafted, kTokens / 20);
}

TEST(DraftControl, CostlyGuessesAreFewerAndMustBeRightMoreOften) {
  DraftControl cheap;
  DraftControl costly;
  for (int i = 0; i < 20; ++i) {
    cheap.OnDraft(4, 4, 0.05);
    costly.OnDraft(4, 4, 0.6);
  }
  EXPECT_EQ(cheap.Length(0.05), 16U);
  for (int i = 0; i < 2; ++i) {
    cheap.OnDraft(4, 1, 0.05);
    costly.OnDraft(4, 1, 0.6);
  }
  EXPECT_GT(cheap.Length(0.05), 1U);
  EXPECT_EQ(costly.Length(0.6), 0U) << "three of four are not enough for guesses that cost 0.75";
  EXPECT_EQ(DraftControl().Length(0.9), 1U) << "one is tried, or nothing would be learnt";
}

TEST(DraftControl, StopIsForGood) {
  DraftControl control;
  control.Stop();
  for (int i = 0; i < 5000; ++i) control.OnPlainToken();
  EXPECT_EQ(control.Length(), 0U);
}

}  // namespace
}  // namespace scheduler
