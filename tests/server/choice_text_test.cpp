// Pieces of a text get the tokens whose text begins in them, each token once; markers have none.

#include "server/choice_text.h"

#include <gtest/gtest.h>

#include "tests/engine/text/vocabulary.h"

namespace server {
namespace {

using engine::text::Tokenizer;

constexpr engine::TokenId kAb = 256;
constexpr engine::TokenId kAbc = 257;

// Token b is the byte b, and there are "ab" and "abc".
const Tokenizer& Vocabulary() {
  static const auto tokenizer =
      Tokenizer::FromMetadata(engine::text::BpeMetadata({"a b", "ab c"}, {}, "default"));
  return *tokenizer;
}

class TokenSharesTest : public ::testing::Test {
 protected:
  void Add(const std::vector<engine::TokenId>& tokens) {
    std::vector<ReportedToken> reports;
    for (const engine::TokenId token : tokens) {
      reports.push_back({.logprob = {.token = token}, .top = {}, .text_offset = 0});
    }
    shares_.Add(reports);
  }
  std::vector<engine::TokenId> Take(std::string_view text, bool verbatim = true) {
    std::vector<engine::TokenId> tokens;
    for (const ReportedToken& token : shares_.Take(text, verbatim)) {
      tokens.push_back(token.logprob.token);
    }
    return tokens;
  }

 private:
  TokenShares shares_{Vocabulary()};
};

using Tokens = std::vector<engine::TokenId>;

TEST_F(TokenSharesTest, AWholeTextHasAllTokens) {
  ASSERT_EQ(Vocabulary().TokenBytes(kAbc, true), "abc");
  Add({kAbc, 'd'});
  EXPECT_EQ(Take("abcd"), (Tokens{kAbc, 'd'}));
  EXPECT_EQ(Take("abcd"), Tokens{});
}

TEST_F(TokenSharesTest, ATokenIsOfThePieceInWhichItBegins) {
  Add({kAb, 'c', kAb});
  EXPECT_EQ(Take("a"), Tokens{kAb});
  EXPECT_EQ(Take("bca"), (Tokens{'c', kAb}));
  EXPECT_EQ(Take("b"), Tokens{});
  Add({'b'});
  EXPECT_EQ(Take("b"), Tokens{'b'});
}

TEST_F(TokenSharesTest, WhatStandsBetweenPiecesIsDropped) {
  Add({'<', 't', '>', 'h', 'm'});
  EXPECT_EQ(Take("hm"), (Tokens{'h', 'm'}));
  Add({'<', '/', 't', '>', ' ', kAb});
  EXPECT_EQ(Take("ab"), Tokens{kAb});
}

// Arguments that became JSON, and characters that were none.
TEST_F(TokenSharesTest, WhatWasWrittenOtherwiseHasNoneOrAll) {
  Add({'x', '=', '1'});
  EXPECT_EQ(Take("{\"x\":", false), Tokens{});
  Add({kAb});
  EXPECT_EQ(Take("ab"), Tokens{kAb});
  Add({0xC3, 'a'});
  EXPECT_EQ(Take("\xEF\xBF\xBD"
                 "a"),
            (Tokens{0xC3, 'a'}));
  EXPECT_EQ(Take("a"), Tokens{});
}

}  // namespace
}  // namespace server
