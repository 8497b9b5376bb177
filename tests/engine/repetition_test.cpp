// Repetitions are found as their definition says, for every small text.
#include "engine/repetition.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

namespace engine {
namespace {

std::map<TokenId, uint32_t> ByDefinition(const std::vector<TokenId>& tokens,
                                         const std::vector<TokenId>& breakers, uint32_t least) {
  const auto breaks = [&](TokenId token) {
    return std::binary_search(breakers.begin(), breakers.end(), token);
  };
  std::map<TokenId, uint32_t> longest;
  for (size_t next = 0; next < tokens.size(); ++next) {
    uint32_t length = 0;
    while (length < next) {
      const TokenId before = tokens[next - 1 - length];
      if (before != tokens[tokens.size() - 1 - length] || breaks(before)) break;
      ++length;
    }
    if (length < std::max(least, 1U) || breaks(tokens[next])) continue;
    longest[tokens[next]] = std::max(longest[tokens[next]], length);
  }
  return longest;
}

TEST(FindRepetitions, EqualsItsDefinitionForRandomTexts) {
  std::mt19937_64 random(7);
  size_t found = 0;
  for (int round = 0; round < 3000; ++round) {
    std::vector<TokenId> tokens(random() % 40);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 4);
    const std::vector<TokenId> breakers =
        random() % 2 == 0 ? std::vector<TokenId>{} : std::vector<TokenId>{3};
    const auto least = static_cast<uint32_t>(random() % 4);
    std::map<TokenId, uint32_t> actual;
    for (const Repetition& repetition : FindRepetitions(tokens, breakers, least)) {
      EXPECT_TRUE(actual.emplace(repetition.token, repetition.length).second);
    }
    ASSERT_EQ(actual, ByDefinition(tokens, breakers, least));
    found += actual.size();
  }
  EXPECT_GT(found, 3000U);
}

TEST(FindRepetitions, OneTokenRepeatedForeverIsLinear) {
  const std::vector<TokenId> tokens(1 << 20, 5);
  const auto found = FindRepetitions(tokens, {}, 2);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found[0].token, 5);
  EXPECT_EQ(found[0].length, (1U << 20) - 1);
}

}  // namespace
}  // namespace engine
