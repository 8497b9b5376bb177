// MergeTable::Apply equals the definition (the lowest rank first, the leftmost among equals) for
// any rules, ranks that repeat and lower-ranked results included, on words of every length class.

#include "engine/text/bpe_merger.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <utility>
#include <vector>

namespace engine::text {
namespace {

struct Rule {
  uint32_t rank;
  Symbol result;
};
using Rules = std::map<std::pair<Symbol, Symbol>, Rule>;

std::vector<Symbol> MergeByDefinition(const Rules& rules, std::vector<Symbol> word) {
  while (true) {
    const Rule* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < word.size(); ++i) {
      const auto rule = rules.find({word[i], word[i + 1]});
      if (rule == rules.end() || (best != nullptr && rule->second.rank >= best->rank)) continue;
      best = &rule->second;
      at = i;
    }
    if (best == nullptr) return word;
    word[at] = best->result;
    word.erase(word.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

TEST(MergeTable, EqualsTheDefinitionForRandomRules) {
  std::mt19937 random(1);
  for (int round = 0; round < 400; ++round) {
    const int symbols = 2 + static_cast<int>(random() % 6);
    const auto any = [&] {
      return static_cast<Symbol>(random() % static_cast<uint32_t>(symbols)) - 4;
    };
    Rules rules;
    MergeTable table(0);
    for (size_t i = random() % 20; i > 0; --i) {
      // -1 is not a symbol.
      const Symbol left = any() * 2;
      const Symbol right = any() * 2;
      const Rule rule{static_cast<uint32_t>(random() % 8), any() * 2};
      rules.insert({{left, right}, rule});
      table.Add(left, right, rule.rank, rule.result);
    }
    for (const size_t length : {0, 1, 2, 7, 47, 48, 49, 200}) {
      std::vector<Symbol> word;
      for (size_t i = 0; i < length; ++i) word.push_back(any() * 2);
      const std::vector<Symbol> expected = MergeByDefinition(rules, word);
      table.Apply(&word);
      ASSERT_EQ(word, expected) << "round " << round << ", length " << length;
    }
  }
}

TEST(MergeTable, TheFirstRuleForAPairStays) {
  MergeTable table(0);
  table.Add(1, 2, 5, 10);
  table.Add(1, 2, 1, 20);
  std::vector<Symbol> word = {1, 2};
  table.Apply(&word);
  EXPECT_EQ(word, std::vector<Symbol>{10});
  EXPECT_EQ(table.size(), 1U);
}

}  // namespace
}  // namespace engine::text
