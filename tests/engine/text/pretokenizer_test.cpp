// How each named pre-tokenizer cuts text into words; that the words joined are always the text; and
// that texts made to explode an expression cost linear time.

#include "engine/text/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "engine/errors.h"
#include "engine/text/tokenizer_utf8.h"

namespace engine::text {
namespace {

using testing::ElementsAre;

std::vector<std::string> Words(const char* name, std::string_view text) {
  std::vector<std::string> words;
  Pretokenizer::Named(name)->Split(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

constexpr const char* kNames[] = {
    "llama-bpe", "falcon3",      "falcon_e",   "qwen2",          "qwen35",      "gpt-2",
    "mpt",       "smollm",       "starcoder",  "refact",         "falcon",      "tekken",
    "gpt-4o",    "deepseek-llm", "default",    "deepseek-coder", "deepseek-v3", "bloom",
    "viking",    "dbrx",         "bailingmoe", "seed-coder"};

TEST(Pretokenizer, SplitsNumbersAsTheModelsDo) {
  EXPECT_THAT(Words("llama-bpe", "a 12345"), ElementsAre("a", " ", "123", "45"));
  EXPECT_THAT(Words("falcon_e", "a 12345"), ElementsAre("a", " ", "123", "45"));
  EXPECT_THAT(Words("qwen2", "a 12345"), ElementsAre("a", " ", "1", "2", "3", "4", "5"));
  EXPECT_THAT(Words("gpt-2", "a 12345"), ElementsAre("a", " 12345"));
  EXPECT_THAT(Words("smollm", "a 123"), ElementsAre("a", " ", "1", "2", "3"));
  EXPECT_THAT(Words("tekken", "a 12"), ElementsAre("a", " ", "1", "2"));
  EXPECT_THAT(Words("falcon", "a 12345"), ElementsAre("a", " ", "123", "45"));
  EXPECT_THAT(Words("deepseek-llm", "a 12345"), ElementsAre("a", " ", "12345"));
}

TEST(Pretokenizer, SplitsContractions) {
  EXPECT_THAT(Words("llama-bpe", "I'll WE'VE"), ElementsAre("I", "'ll", " WE", "'VE"));
  EXPECT_THAT(Words("gpt-2", "I'll WE'VE"), ElementsAre("I", "'ll", " WE", "'", "VE"));
  EXPECT_THAT(Words("gpt-4o", "I'll don't"), ElementsAre("I'll", " don't"));
}

TEST(Pretokenizer, LeavesOneSpaceToTheWordThatFollows) {
  EXPECT_THAT(Words("llama-bpe", "a   b\n\n c  "),
              ElementsAre("a", "  ", " b", "\n\n", " c", "  "));
  EXPECT_THAT(Words("gpt-2", "a   b\n\n c  "), ElementsAre("a", "  ", " b", "\n\n", " c", "  "));
  EXPECT_THAT(Words("qwen2", "x=\n y"), ElementsAre("x", "=\n", " y"));
}

TEST(Pretokenizer, TekkenStartsAWordAtACapital) {
  EXPECT_THAT(Words("tekken", "helloWorld HTTPServer"),
              ElementsAre("hello", "World", " HTTPServer"));
}

TEST(Pretokenizer, Qwen35KeepsMarksWithTheirLetters) {
  const std::string text = "e\u0301a";
  EXPECT_THAT(Words("qwen35", text), ElementsAre(text));
  EXPECT_THAT(Words("qwen2", text), ElementsAre("e", "\u0301a"));
}

TEST(Pretokenizer, DeepseekSplitsScripts) {
  EXPECT_THAT(Words("deepseek-llm", "ab我们 x\ny  "),
              ElementsAre("ab", "我们", " x", "\n", "y", "  "));
  EXPECT_THAT(Words("deepseek-coder", "ab12\n我"), ElementsAre("ab", "1", "2", "\n", "我"));
}

TEST(Pretokenizer, WordsJoinedAreTheText) {
  std::mt19937 random(2);
  const auto code = [&]() -> uint32_t {
    static constexpr uint32_t kBlocks[][2] = {
        {0, 0x7F},           {0x20, 0x40},     {0x80, 0x24F},    {0x300, 0x36F},
        {0x600, 0x6FF},      {0x900, 0xE7F},   {0x2000, 0x20FF}, {0x3000, 0x30FF},
        {0x4E00, 0x9FFF},    {0xAC00, 0xD7FF}, {0xFF00, 0xFFFF}, {0x1F300, 0x1F6FF},
        {0x10FF00, 0x10FFFF}};
    const auto& block = kBlocks[random() % std::size(kBlocks)];
    return block[0] + static_cast<uint32_t>(random()) % (block[1] - block[0] + 1);
  };
  for (const char* name : kNames) {
    const auto pretokenizer = Pretokenizer::Named(name);
    for (int round = 0; round < 200; ++round) {
      std::string text;
      for (size_t i = random() % 60; i > 0; --i) AppendUtf8(code(), &text);
      std::string joined;
      pretokenizer->Split(text, [&](std::string_view word) {
        EXPECT_FALSE(word.empty());
        EXPECT_EQ(ValidUtf8Prefix(word), word.size());
        joined += word;
      });
      ASSERT_EQ(joined, text) << name;
    }
  }
}

TEST(Pretokenizer, LongRunsCostLinearTime) {
  // A quadratic expression would need minutes here.
  for (const char* name : kNames) {
    const auto pretokenizer = Pretokenizer::Named(name);
    for (const std::string& unit :
         {std::string(" "), std::string("a"), std::string("A"), std::string("1"), std::string("\n"),
          std::string(" \n"), std::string("'"), std::string("\u0301"), std::string("我"),
          std::string("  x"), std::string("!")}) {
      std::string text;
      while (text.size() < 300'000) text += unit;
      text += "x";
      size_t bytes = 0;
      pretokenizer->Split(text, [&](std::string_view word) { bytes += word.size(); });
      ASSERT_EQ(bytes, text.size()) << name;
    }
  }
}

TEST(Pretokenizer, PlainWordsEndWhereTheExpressionsEndThem) {
  // What is found without the expression must stop where it would: not before a letter or mark
  // past ASCII, nor within what another expression has cut off.
  for (const char* name : {"llama-bpe", "qwen2", "gpt-2", "smollm", "falcon", "default"}) {
    EXPECT_THAT(Words(name, " na\u00EFve caf\u00E9 x"),
                ElementsAre(" na\u00EFve", " caf\u00E9", " x"))
        << name;
    EXPECT_THAT(Words(name, "Hello world"), ElementsAre("Hello", " world")) << name;
  }
  EXPECT_THAT(Words("qwen35", "e\u0301"), ElementsAre("e\u0301"));
  EXPECT_THAT(Words("tekken", "aB"), ElementsAre("a", "B"));
  EXPECT_THAT(Words("deepseek-llm", " caf\u00E9"), ElementsAre(" caf", "\u00E9"));
}

TEST(Pretokenizer, NamesCarryTheirDefaults) {
  EXPECT_TRUE(Pretokenizer::Named("llama-bpe")->ignores_merges());
  EXPECT_TRUE(Pretokenizer::Named("tekken")->adds_bos());
  EXPECT_FALSE(Pretokenizer::Named("qwen2")->ignores_merges());
  EXPECT_FALSE(Pretokenizer::Named("qwen2")->adds_bos());
}

TEST(Pretokenizer, RefusesNamesThatAreNotKnown) {
  for (const char* name : {"", "llama", "bpe", "llama-bpe llama3", " ", "gpt"}) {
    EXPECT_THROW(Pretokenizer::Named(name), ModelError) << name;
  }
}

}  // namespace
}  // namespace engine::text
