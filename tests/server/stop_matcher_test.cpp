// Whatever the pieces in which text arrives, what is shown is the text up to the first stop string,
// nothing is shown that turns out to be part of one, and nothing is held back without reason.
#include "server/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace server {
namespace {

struct Expected {
  std::string text;
  bool matched = false;
};

// The definition: the match whose end comes first, the longest of those that end there.
Expected Reference(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0) {
        longest = std::max(longest, stop.size());
      }
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBecomeAStopString) {
  StopMatcher matcher({"<end>"});
  EXPECT_EQ(matcher.Push("Hello <e"), "Hello ");
  EXPECT_EQ(matcher.Push("n"), "");
  EXPECT_EQ(matcher.held(), 3U);
  EXPECT_EQ(matcher.Push("tropy"), "<entropy");
  EXPECT_EQ(matcher.Push("<"), "");
  EXPECT_EQ(matcher.Flush(), "<");
}

TEST(StopMatcher, TextAfterTheMatchIsDropped) {
  StopMatcher matcher({"STOP"});
  EXPECT_EQ(matcher.Push("abcSTOPdef"), "abc");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.Push("more"), "");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcher, FindsAMatchThatOverlapsAFailedOne) {
  StopMatcher matcher({"aab"});
  EXPECT_EQ(matcher.Push("a"), "");
  EXPECT_EQ(matcher.Push("a"), "");
  EXPECT_EQ(matcher.Push("a"), "a");
  EXPECT_EQ(matcher.Push("b"), "");
  EXPECT_TRUE(matcher.matched());
}

TEST(StopMatcher, MultiByteCharactersMatchAcrossPieces) {
  StopMatcher matcher({"\xE2\x82\xAC!"});
  EXPECT_EQ(matcher.Push("5 \xE2\x82\xAC"), "5 ");
  EXPECT_EQ(matcher.Push("!"), "");
  EXPECT_TRUE(matcher.matched());
}

TEST(StopMatcher, EqualsTheDefinitionForEveryWayOfCutting) {
  std::mt19937 random(20260101);
  const auto below = [&](size_t n) { return random() % n; };
  const auto word = [&](size_t longest) {
    std::string text;
    for (size_t n = below(longest) + 1; n > 0; --n) text += static_cast<char>('a' + below(3));
    return text;
  };
  for (int round = 0; round < 20'000; ++round) {
    std::vector<std::string> stops;
    for (size_t n = below(4); n > 0; --n) stops.push_back(word(5));
    const std::string text = word(30);
    const Expected expected = Reference(text, stops);

    StopMatcher matcher(stops);
    std::string shown;
    for (size_t begin = 0; begin < text.size();) {
      const size_t length = 1 + below(4);
      shown += matcher.Push(std::string_view(text).substr(begin, length));
      begin += length;
      ASSERT_EQ(expected.text.compare(0, shown.size(), shown), 0)
          << text << " showed too much: " << shown;
      const std::string so_far = text.substr(0, std::min(begin, text.size()));
      size_t longest_prefix = 0;
      for (const std::string& stop : stops) {
        for (size_t k = 1; k < stop.size(); ++k) {
          if (so_far.ends_with(stop.substr(0, k))) longest_prefix = std::max(longest_prefix, k);
        }
      }
      if (!matcher.matched()) {
        ASSERT_EQ(matcher.held(), longest_prefix);
      }
    }
    shown += matcher.Flush();
    ASSERT_EQ(shown, expected.text) << text;
    ASSERT_EQ(matcher.matched(), expected.matched) << text;
  }
}

TEST(StopMatcher, LongStopStringsCostNoMoreThanShortOnes) {
  // Quadratic matching would take hours here.
  StopMatcher matcher({std::string(1'000'000, 'a') + "b"});
  std::string shown = matcher.Push(std::string(3'000'000, 'a'));
  EXPECT_EQ(shown.size(), 2'000'000U);
  shown += matcher.Flush();
  EXPECT_EQ(shown.size(), 3'000'000U);
}

}  // namespace
}  // namespace server
