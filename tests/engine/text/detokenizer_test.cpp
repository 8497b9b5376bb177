// Streamed text is always valid UTF-8 and, joined, the sanitised text of all tokens, in whatever
// order tokens come and wherever characters are cut.

#include "engine/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "engine/text/tokenizer_utf8.h"
#include "tests/engine/text/vocabulary.h"

namespace engine::text {
namespace {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

TEST(SanitizeUtf8, ReplacesEachMaximalPart) {
  const std::string bad = kReplacement;
  EXPECT_EQ(SanitizeUtf8("a\xC3\xA9z"), "a\xC3\xA9z");
  EXPECT_EQ(SanitizeUtf8("a\xFFz"), "a" + bad + "z");
  EXPECT_EQ(SanitizeUtf8("\xE2\x82"), bad);  // a cut character is one
  EXPECT_EQ(SanitizeUtf8("\xE2\x82z"), bad + "z");
  EXPECT_EQ(SanitizeUtf8("\xC0\xAF"), bad + bad);                      // overlong
  EXPECT_EQ(SanitizeUtf8("\xED\xA0\x80"), bad + bad + bad);            // surrogate
  EXPECT_EQ(SanitizeUtf8("\xF4\x90\x80\x80"), bad + bad + bad + bad);  // above U+10FFFF
  EXPECT_EQ(SanitizeUtf8("\xF0\x9F\x98\xF0\x9F\x98\x80"), bad + "\xF0\x9F\x98\x80");
}

TEST(CompleteUtf8Prefix, EndsBeforeACharacterThatMayStillBeCompleted) {
  EXPECT_EQ(CompleteUtf8Prefix(""), 0U);
  EXPECT_EQ(CompleteUtf8Prefix("ab"), 2U);
  EXPECT_EQ(CompleteUtf8Prefix("ab\xC3"), 2U);
  EXPECT_EQ(CompleteUtf8Prefix("a\xF0\x9F\x98"), 1U);
  EXPECT_EQ(CompleteUtf8Prefix("a\xF0\x9F\x98\x80"), 5U);
  EXPECT_EQ(CompleteUtf8Prefix("a\xE0\x80"), 3U);  // no character begins so
  EXPECT_EQ(CompleteUtf8Prefix("\x80\x80\x80"), 3U);
}

TEST(AppendUtf8, RoundTripsEveryCodePoint) {
  for (uint32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string bytes;
    AppendUtf8(code, &bytes);
    const Utf8Step step = NextUtf8(bytes);
    ASSERT_TRUE(step.valid && step.code == code && step.length == bytes.size()) << code;
  }
}

std::string RandomBytes(std::mt19937& random, size_t length) {
  // Mostly bytes that begin or continue characters.
  static constexpr uint8_t kBytes[] = {0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2,
                                       0xDF, 0xE0, 0xE2, 0xED, 0xEF, 0xF0, 0xF3, 0xF4, 0xFF};
  std::string bytes;
  while (bytes.size() < length) {
    bytes.push_back(static_cast<char>(kBytes[random() % std::size(kBytes)]));
  }
  return bytes;
}

TEST(SanitizeUtf8, CuttingAtACompletePrefixChangesNothing) {
  std::mt19937 random(3);
  for (int round = 0; round < 20000; ++round) {
    const std::string bytes = RandomBytes(random, random() % 12);
    const size_t at = CompleteUtf8Prefix(bytes);
    ASSERT_LE(bytes.size() - at, 3U);
    ASSERT_EQ(SanitizeUtf8(bytes.substr(0, at)) + SanitizeUtf8(bytes.substr(at)),
              SanitizeUtf8(bytes));
    const std::string clean = SanitizeUtf8(bytes);
    ASSERT_EQ(ValidUtf8Prefix(clean), clean.size());
  }
}

std::vector<gguf::Metadata> Vocabularies() {
  const std::vector<TestToken> words = {{"\xE2\x96\x81", 1},
                                        {"\xE2\x96\x81"
                                         "a",
                                         1},
                                        {"\xF0\x9F", 1},  // no valid UTF-8: a hostile file's
                                        {"\x98\x80", 1},
                                        {"[u]", 4},
                                        {"\xE2\x96\x81[v]", 4},
                                        {"<|x|>", 3},
                                        {"unused", 5}};
  gguf::Metadata without_prefix = SpmMetadata(words);
  SetBool(&without_prefix, "tokenizer.ggml.add_space_prefix", false);
  return {SpmMetadata(words), without_prefix,
          BpeMetadata({"a b", "\xC3\xB0 \xC5\x81"}, {{"<|x|>", 3}, {"[u]", 4}}, "gpt-2")};
}

TEST(Detokenizer, JoinedOutputIsTheSanitisedWholeForAnyTokens) {
  std::mt19937 random(4);
  for (const gguf::Metadata& metadata : Vocabularies()) {
    const auto tokenizer = Tokenizer::FromMetadata(metadata);
    for (int round = 0; round < 4000; ++round) {
      std::vector<TokenId> tokens;
      for (size_t i = random() % 20; i > 0; --i) {
        tokens.push_back(static_cast<TokenId>(random() % (size_t{tokenizer->size()} + 2)) - 1);
      }
      const bool special = random() % 2 == 0;
      Detokenizer detokenizer(*tokenizer, special, tokenizer->adds_space_prefix());
      std::string joined;
      for (const TokenId token : tokens) {
        const std::string text = detokenizer.Push(token);
        ASSERT_EQ(ValidUtf8Prefix(text), text.size());
        joined += text;
      }
      joined += detokenizer.Flush();
      ASSERT_EQ(joined, SanitizeUtf8(tokenizer->Decode(tokens, special)));
    }
  }
}

TEST(Detokenizer, HoldsACutCharacterUntilItIsWhole) {
  const auto tokenizer = Tokenizer::FromMetadata(SpmMetadata({}));
  for (const std::string& character : {std::string("é"), std::string("€"), std::string("😀")}) {
    Detokenizer detokenizer(*tokenizer);
    for (size_t i = 0; i < character.size(); ++i) {
      const std::string text = detokenizer.Push(3 + static_cast<uint8_t>(character[i]));
      EXPECT_EQ(text, i + 1 == character.size() ? character : "");
    }
    EXPECT_EQ(detokenizer.Flush(), "");
  }
}

TEST(Detokenizer, ReplacesACharacterThatIsNeverCompleted) {
  const auto tokenizer = Tokenizer::FromMetadata(SpmMetadata({{"x", 1}}));
  Detokenizer detokenizer(*tokenizer);
  EXPECT_EQ(detokenizer.Push(3 + 0xE2), "");
  EXPECT_EQ(detokenizer.Push(259), std::string(kReplacement) + "x");
  EXPECT_EQ(detokenizer.Push(3 + 0xF0), "");
  EXPECT_EQ(detokenizer.Push(3 + 0x9F), "");
  EXPECT_EQ(detokenizer.Flush(), kReplacement);
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST(Detokenizer, DropsTheLeadingSpaceOnlyWhereTextBegins) {
  const auto tokenizer =
      Tokenizer::FromMetadata(SpmMetadata({{"\xE2\x96\x81"
                                            "a",
                                            1}}));
  Detokenizer continues(*tokenizer, false, false);
  EXPECT_EQ(continues.Push(259), " a");
  Detokenizer begins(*tokenizer, false, true);
  EXPECT_EQ(begins.Push(1), "");  // BOS shows nothing, the text begins after it
  EXPECT_EQ(begins.Push(259), "a");
  EXPECT_EQ(begins.Push(259), " a");
}

}  // namespace
}  // namespace engine::text
