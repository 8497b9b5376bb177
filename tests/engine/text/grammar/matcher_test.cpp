// Masks equal brute force: a token is allowed exactly when its bytes lead to a text of the grammar,
// decided by trying every token alone. Rollback restores the state; tokens may end inside a
// character; stop tokens are allowed exactly where the text is complete.

#include "engine/text/grammar/matcher.h"

#include <gtest/gtest.h>

#include <bit>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "engine/text/grammar/grammar.h"
#include "tests/engine/text/template_values.h"
#include "tests/engine/text/vocabulary.h"

namespace engine::text::grammar {
namespace {

bool Allows(std::span<const uint64_t> mask, TokenId token) {
  const auto bit = static_cast<size_t>(token);
  return ((mask[bit / 64] >> (bit % 64)) & 1) != 0;
}

// Byte tokens and some longer ones, many of which cross the borders of JSON's parts.
std::shared_ptr<const TokenTrie> SmallTrie(uint32_t seed, std::vector<TokenId>* stops) {
  std::mt19937 random(seed);
  const std::vector<std::string> parts = {"\"",   "a",  "b",  "{",  "}",  ":",   ",",   " ", "\xC3",
                                          "\xA9", "1",  "-",  "[",  "]",  "\\",  "e",   "n", "x",
                                          "\n",   "tr", "ue", "nu", "ll", "\"a", "\":", "é", "🎉"};
  std::vector<TestToken> words;
  for (int i = 0; i < 300; ++i) {
    std::string piece;
    const size_t count = 1 + random() % 4;
    for (size_t j = 0; j < count; ++j) piece += parts[random() % parts.size()];
    words.push_back({piece});
  }
  const auto tokenizer = Tokenizer::FromMetadata(SpmMetadata(words));
  if (stops != nullptr) stops->assign(1, 2);
  return std::make_shared<const TokenTrie>(*tokenizer);
}

std::vector<GrammarSource> Sources() {
  const auto schema = [](const char* text) {
    return JsonSchema{tests::ToValue(nlohmann::ordered_json::parse(text))};
  };
  return {
      AnyJsonObject{},
      schema(
          R"({"properties": {"a": {"type": "string", "maxLength": 3}, "b": {"type": "number"}}})"),
      schema(
          R"({"type": "array", "items": {"enum": ["a", "b1", true, null, "é"]}, "maxItems": 4})"),
      schema(R"({"$defs": {"t": {"type": "object", "properties": {
              "a": {"anyOf": [{"$ref": "#/$defs/t"}, {"type": "integer"}, {"type": "string"}]}},
              "additionalProperties": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"})"),
      schema(R"({"type": "string", "pattern": "^[^x]*é+$"})"),
      Regex{"([ab\"]{2,9}|é*)(1-)+"},
      Gbnf{"root ::= \"{\" root \"}\" root | [a-n]* \"é\"?"},
      Choices{{"a", "ab", "true", "é🎉"}},
  };
}

class MaskTest : public testing::TestWithParam<int> {};

TEST_P(MaskTest, EqualsTryingEveryToken) {
  const auto seed = static_cast<uint32_t>(GetParam());
  std::vector<TokenId> stops;
  const auto trie = SmallTrie(seed, &stops);
  std::mt19937 random(seed);
  size_t allowed_tokens = 0;
  size_t ended = 0;
  for (const GrammarSource& source : Sources()) {
    const auto constraint = std::make_shared<Constraint>(CompileGrammar(source), trie);
    for (int text = 0; text < 6; ++text) {
      const bool drops_space = text % 2 == 1;
      Matcher matcher(constraint, stops, drops_space);
      for (int step = 0; step < 40 && !matcher.IsTerminated(); ++step) {
        const auto view = matcher.Mask();
        const std::vector<uint64_t> mask(view.begin(), view.end());
        std::vector<TokenId> allowed;
        for (uint32_t id = 0; id < trie->vocabulary(); ++id) {
          const auto token = static_cast<TokenId>(id);
          const bool accepted = matcher.Accept(token);
          if (accepted) matcher.Rollback(1);
          ASSERT_EQ(Allows(mask, token), accepted) << "token " << token;
          if (accepted) allowed.push_back(token);
        }
        ASSERT_FALSE(allowed.empty());
        allowed_tokens += allowed.size();
        ASSERT_TRUE(matcher.Accept(allowed[random() % allowed.size()]));
      }
      ended += matcher.IsTerminated() ? 1 : 0;
    }
  }
  EXPECT_GT(allowed_tokens, 1000U);
  EXPECT_GT(ended, 5U);
}

INSTANTIATE_TEST_SUITE_P(Seeds, MaskTest, testing::Range(0, 12));

TEST(Matcher, RollbackRestoresMasks) {
  std::vector<TokenId> stops;
  const auto trie = SmallTrie(7, &stops);
  const auto constraint = std::make_shared<Constraint>(CompileGrammar(AnyJsonObject{}), trie);
  Matcher matcher(constraint, stops);
  std::mt19937 random(7);
  std::vector<std::vector<uint64_t>> masks;
  for (int step = 0; step < 60; ++step) {
    const auto mask = matcher.Mask();
    masks.emplace_back(mask.begin(), mask.end());
    auto token = static_cast<TokenId>(random() % trie->vocabulary());
    while (token == stops.front() || !matcher.Accept(token)) {
      token = static_cast<TokenId>((static_cast<uint32_t>(token) + 1) % trie->vocabulary());
    }
    const auto back = static_cast<uint32_t>(std::min<size_t>(random() % 5, masks.size()));
    matcher.Rollback(back);
    masks.resize(masks.size() - back);
    ASSERT_EQ(matcher.accepted(), masks.size());
  }
  while (!masks.empty()) {
    matcher.Rollback(1);
    const auto mask = matcher.Mask();
    ASSERT_TRUE(std::equal(mask.begin(), mask.end(), masks.back().begin(), masks.back().end()));
    masks.pop_back();
  }
}

TEST(Matcher, TokensMayEndInsideACharacter) {
  const auto tokenizer = Tokenizer::FromMetadata(BpeMetadata({}, {{"<end>", 3}}, "default"));
  const auto trie = std::make_shared<const TokenTrie>(*tokenizer);
  const auto constraint = std::make_shared<Constraint>(CompileGrammar(Regex{"[é日]+"}), trie);
  Matcher matcher(constraint, {256});
  EXPECT_FALSE(Allows(matcher.Mask(), 256)) << "an empty text does not match";
  ASSERT_TRUE(matcher.Accept(0xE6));
  EXPECT_FALSE(Allows(matcher.Mask(), 256)) << "half a character is not complete";
  EXPECT_FALSE(matcher.Accept(0xC3));
  ASSERT_TRUE(matcher.Accept(0x97));
  ASSERT_TRUE(matcher.Accept(0xA5));
  EXPECT_TRUE(Allows(matcher.Mask(), 256));
  EXPECT_FALSE(matcher.IsExhausted());
  ASSERT_TRUE(matcher.Accept(256));
  EXPECT_TRUE(matcher.IsTerminated());
  EXPECT_FALSE(matcher.Accept(0xC3));
}

TEST(Matcher, SeesTheEndWhenNothingCanFollow) {
  const auto trie = SmallTrie(1, nullptr);
  const auto constraint = std::make_shared<Constraint>(CompileGrammar(Choices{{"ab"}}), trie);
  Matcher matcher(constraint, {2});
  const auto byte_token = [](char byte) { return TokenId{3 + static_cast<uint8_t>(byte)}; };
  ASSERT_TRUE(matcher.Accept(byte_token('a')));
  EXPECT_FALSE(matcher.IsComplete());
  ASSERT_TRUE(matcher.Accept(byte_token('b')));
  EXPECT_TRUE(matcher.IsExhausted());
  size_t allowed = 0;
  for (const uint64_t word : matcher.Mask()) allowed += static_cast<size_t>(std::popcount(word));
  EXPECT_EQ(allowed, 1U) << "the stop token";
}

// The tables of a long text are exchanged for fresh ones on the way; the masks stay right.
TEST(Matcher, SurvivesFullTables) {
  const auto trie = SmallTrie(3, nullptr);
  const auto constraint = std::make_shared<Constraint>(
      CompileGrammar(Gbnf{"root ::= \"a\" root \"b\" | \"x\"{1,1000000}"}), trie);
  Matcher matcher(constraint, {2});
  const auto byte_token = [](char byte) { return TokenId{3 + static_cast<uint8_t>(byte)}; };
  constexpr int kDepth = 5000;
  for (int i = 0; i < kDepth; ++i) ASSERT_TRUE(matcher.Accept(byte_token('a'))) << i;
  for (int i = 0; i < 200'000; ++i) ASSERT_TRUE(matcher.Accept(byte_token('x'))) << i;
  for (int i = 0; i < kDepth; ++i) {
    ASSERT_FALSE(matcher.IsComplete());
    ASSERT_TRUE(matcher.Accept(byte_token('b'))) << i;
  }
  EXPECT_TRUE(matcher.IsExhausted());
}

TEST(Matcher, BoundsTheNesting) {
  const auto trie = SmallTrie(3, nullptr);
  const auto constraint =
      std::make_shared<Constraint>(CompileGrammar(Gbnf{"root ::= \"[\" root \"]\" | \"x\""}), trie);
  Matcher matcher(constraint, {2});
  const auto byte_token = [](char byte) { return TokenId{3 + static_cast<uint8_t>(byte)}; };
  size_t depth = 0;
  while (matcher.Accept(byte_token('['))) ++depth;
  EXPECT_GT(depth, 5000U);
  EXPECT_LE(depth, StateSets::kMaxDepth + 1);
  EXPECT_FALSE(Allows(matcher.Mask(), byte_token('[')));
  ASSERT_TRUE(matcher.Accept(byte_token('x')));
  while (matcher.Accept(byte_token(']'))) --depth;
  EXPECT_EQ(depth, 0U);
  EXPECT_TRUE(matcher.IsExhausted());
}

TEST(Matcher, ThreadsShareAConstraint) {
  std::vector<TokenId> stops;
  const auto trie = SmallTrie(5, &stops);
  const auto constraint = std::make_shared<Constraint>(CompileGrammar(AnyJsonObject{}), trie);
  const auto walk = [&](uint32_t seed) {
    std::mt19937 random(seed);
    Matcher matcher(constraint, stops);
    std::vector<TokenId> tokens;
    while (tokens.size() < 300 && !matcher.IsTerminated()) {
      const auto mask = matcher.Mask();
      auto token = static_cast<TokenId>(random() % trie->vocabulary());
      while (!Allows(mask, token)) {
        token = static_cast<TokenId>((static_cast<uint32_t>(token) + 1) % trie->vocabulary());
      }
      if (!matcher.Accept(token)) break;
      tokens.push_back(token);
    }
    return tokens;
  };
  std::vector<std::vector<TokenId>> results(8);
  {
    std::vector<std::jthread> threads;
    for (uint32_t i = 0; i < results.size(); ++i) {
      threads.emplace_back([&, i] { results[i] = walk(i % 4); });
    }
  }
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_FALSE(results[i].empty());
    EXPECT_EQ(results[i], results[i + 4]);
    EXPECT_EQ(results[i], walk(i));
  }
}

}  // namespace
}  // namespace engine::text::grammar
