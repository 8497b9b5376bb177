// What tokens a text becomes in small vocabularies: merge order, byte fallback, added spaces,
// special tokens, BOS and EOS, stop tokens; and which metadata is refused, with what words.

#include "engine/text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "gguf/error.h"
#include "tests/engine/text/vocabulary.h"

namespace engine::text {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kSpacePiece = "\xE2\x96\x81";
constexpr TokenId kUnk = 0;
constexpr TokenId kBos = 1;
constexpr TokenId kEos = 2;
constexpr TokenId kFirstWord = 259;  // see SpmMetadata()

TokenId ByteToken(int byte) { return 3 + byte; }

std::vector<TokenId> Ids(const gguf::Metadata& metadata, std::string_view text,
                         const EncodeOptions& options = {.add_special = false}) {
  return Tokenizer::FromMetadata(metadata)->Encode(text, options);
}

std::string WordOf(const char* text) { return kSpacePiece + std::string(text); }

gguf::Metadata AbcVocabulary() {
  return SpmMetadata({{kSpacePiece, 1, -10},
                      {"a", 1, -11},
                      {"b", 1, -12},
                      {"c", 1, -13},
                      {"bc", 1, -1},
                      {"ab", 1, -2},
                      {WordOf("a"), 1, -3},
                      {"aa", 1, -4}});
}

TEST(SpmTokenizer, MergesTheHighestScoreFirst) {
  gguf::Metadata metadata = AbcVocabulary();
  SetBool(&metadata, "tokenizer.ggml.add_space_prefix", false);
  // "bc" beats "ab".
  EXPECT_THAT(Ids(metadata, "abc"), ElementsAre(kFirstWord + 1, kFirstWord + 4));
}

TEST(SpmTokenizer, MergesTheLeftmostOfEqualScores) {
  gguf::Metadata metadata = AbcVocabulary();
  SetBool(&metadata, "tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(Ids(metadata, "aaa"), ElementsAre(kFirstWord + 7, kFirstWord + 1));
}

TEST(SpmTokenizer, AddsASpaceUnlessToldNotTo) {
  gguf::Metadata metadata = AbcVocabulary();
  EXPECT_THAT(Ids(metadata, "a"), ElementsAre(kFirstWord + 6));
  EXPECT_THAT(Ids(metadata, " a"), ElementsAre(kFirstWord, kFirstWord + 6));
  SetBool(&metadata, "tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(Ids(metadata, "a"), ElementsAre(kFirstWord + 1));
  EXPECT_THAT(Ids(metadata, " a"), ElementsAre(kFirstWord + 6));
}

TEST(SpmTokenizer, EmptyTextHasNoTokensButBos) {
  EXPECT_THAT(Ids(AbcVocabulary(), ""), IsEmpty());
  EXPECT_THAT(Ids(AbcVocabulary(), "", {.add_special = true}), ElementsAre(kBos));
}

TEST(SpmTokenizer, FallsBackToBytes) {
  gguf::Metadata metadata = AbcVocabulary();
  SetBool(&metadata, "tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(Ids(metadata, "a\xC3\xA9"),
              ElementsAre(kFirstWord + 1, ByteToken(0xC3), ByteToken(0xA9)));
  EXPECT_THAT(Ids(metadata, "\xFF\x80"), ElementsAre(ByteToken(0xFF), ByteToken(0x80)));
}

TEST(SpmTokenizer, OneUnknownTokenForARunWithoutByteTokens) {
  gguf::Metadata metadata = SpmMetadata({{"a", 1, -1}}, false);
  SetBool(&metadata, "tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(Ids(metadata, "xyazx"), ElementsAre(kUnk, 3, kUnk));
}

TEST(SpmTokenizer, AByteTokensNameInTextIsNoByte) {
  const auto tokenizer = Tokenizer::FromMetadata(AbcVocabulary());
  const auto ids = tokenizer->Encode("<0x41>", {.add_special = false, .parse_special = true});
  EXPECT_EQ(ids.size(), 7U);  // the added space and six characters
  EXPECT_EQ(tokenizer->Decode(ids, false), "<0x41>");
}

TEST(SpmTokenizer, TextNeverBecomesAControlTokenUnlessParsed) {
  // "s>" is a piece, so that a merge to "<s>" would be found by its text.
  gguf::Metadata metadata = SpmMetadata({{"<", 1, -5}, {"s", 1, -6}, {">", 1, -7}, {"s>", 1, -1}});
  SetBool(&metadata, "tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(Ids(metadata, "<s>"), ElementsAre(kFirstWord, kFirstWord + 3));
  EXPECT_THAT(Ids(metadata, "<s>", {.add_special = false, .parse_special = true}),
              ElementsAre(kBos));
}

TEST(SpmTokenizer, MatchesTheLongestSpecialTokenAndUserDefinedOnesAlways) {
  gguf::Metadata metadata =
      SpmMetadata({{"a", 1, -1}, {"<|x|>", 3}, {"<|x|>a", 3}, {"[u]", 4}, {"", 4}});
  SetBool(&metadata, "tokenizer.ggml.add_space_prefix", false);
  const EncodeOptions parse{.add_special = false, .parse_special = true};
  EXPECT_THAT(Ids(metadata, "<|x|>aa<|x|>", parse),
              ElementsAre(kFirstWord + 2, kFirstWord, kFirstWord + 1));
  EXPECT_THAT(Ids(metadata, "a[u]a"), ElementsAre(kFirstWord, kFirstWord + 3, kFirstWord));
}

TEST(SpmTokenizer, DecodingUndoesTheSpaceAfterEverySpecialTokenThatShows) {
  gguf::Metadata metadata = AbcVocabulary();
  const auto tokenizer = Tokenizer::FromMetadata(metadata);
  const std::string text = "a</s>b</s> c";
  const auto ids = tokenizer->Encode(text, {.add_special = false, .parse_special = true});
  EXPECT_EQ(tokenizer->Decode(ids, true), text);
  EXPECT_EQ(tokenizer->Decode(ids, false), "a b  c");
}

TEST(SpmTokenizer, AddsBosByDefaultAndEosWhenAsked) {
  gguf::Metadata metadata = AbcVocabulary();
  const EncodeOptions all{};
  EXPECT_THAT(Ids(metadata, "a", all), ElementsAre(kBos, kFirstWord + 6));
  SetBool(&metadata, "tokenizer.ggml.add_bos_token", false);
  SetBool(&metadata, "tokenizer.ggml.add_eos_token", true);
  EXPECT_THAT(Ids(metadata, "a", all), ElementsAre(kFirstWord + 6, kEos));
}

TEST(SpmTokenizer, MetadataMovesBosAndEos) {
  gguf::Metadata metadata = AbcVocabulary();
  SetUint(&metadata, "tokenizer.ggml.bos_token_id", kEos);
  SetUint(&metadata, "tokenizer.ggml.eos_token_id", 0xFFFFFFFF);
  const auto tokenizer = Tokenizer::FromMetadata(metadata);
  EXPECT_EQ(tokenizer->bos(), kEos);
  EXPECT_EQ(tokenizer->eos(), kEos);  // "</s>" by its piece
}

TEST(SpmTokenizer, LongTextWithoutASpaceIsMergedAsAShortOne) {
  gguf::Metadata metadata = AbcVocabulary();
  SetBool(&metadata, "tokenizer.ggml.add_space_prefix", false);
  const auto tokenizer = Tokenizer::FromMetadata(metadata);
  const std::string text(1000001, 'a');
  const auto ids = tokenizer->Encode(text, {.add_special = false});
  ASSERT_EQ(ids.size(), 500001U);
  EXPECT_EQ(ids.front(), kFirstWord + 7);
  EXPECT_EQ(ids.back(), kFirstWord + 1);
  EXPECT_EQ(tokenizer->Decode(ids, false), text);
}

std::vector<TestToken> Llama3Specials() {
  return {{"<|begin_of_text|>", 3}, {"<|end_of_text|>", 3}, {"<|eot_id|>", 3}};
}

TEST(BpeTokenizer, MergesByRank) {
  const gguf::Metadata metadata = BpeMetadata({"b c", "a b", "ab c"}, {}, "gpt-2");
  EXPECT_THAT(Ids(metadata, "abc"), ElementsAre('a', 256));
  EXPECT_THAT(Ids(metadata, "abab"), ElementsAre(257, 257));
}

TEST(BpeTokenizer, AWordThatIsAPieceIsThatTokenWhenMergesAreIgnored) {
  const std::vector<std::string> merges = {"b c", "a b", "ab c"};
  EXPECT_THAT(Ids(BpeMetadata(merges, {}, "gpt-2"), "abc"), ElementsAre('a', 256));
  EXPECT_THAT(Ids(BpeMetadata(merges, {}, "llama-bpe"), "abc"), ElementsAre(258));
}

TEST(BpeTokenizer, DoesNotMergeAcrossWords) {
  const gguf::Metadata metadata = BpeMetadata({"a Ġ"}, {}, "gpt-2");
  EXPECT_THAT(Ids(metadata, "a a"), ElementsAre('a', ' ', 'a'));
}

TEST(BpeTokenizer, MergesThroughPartsThatAreNoTokens) {
  gguf::Metadata metadata = BpeMetadata({"a b", "ab c"}, {}, "gpt-2");
  std::vector<std::string> tokens = *metadata.FindStrings("tokenizer.ggml.tokens");
  tokens[256] = "zz";  // was "ab"
  SetStrings(&metadata, "tokenizer.ggml.tokens", tokens);
  EXPECT_THAT(Ids(metadata, "abc"), ElementsAre(257));
  EXPECT_THAT(Ids(metadata, "ab"), ElementsAre('a', 'b'));
}

TEST(BpeTokenizer, EncodesInvalidUtf8ByteByByte) {
  const gguf::Metadata metadata = BpeMetadata({"a b"}, {}, "llama-bpe");
  EXPECT_THAT(Ids(metadata, "ab\xFF\xE2\x82"), ElementsAre(256, 0xFF, 0xE2, 0x82));
}

TEST(BpeTokenizer, AByteWithoutATokenBecomesTheReplacementCharacter) {
  gguf::Metadata metadata = BpeMetadata({}, {}, "gpt-2");
  std::vector<std::string> tokens = *metadata.FindStrings("tokenizer.ggml.tokens");
  tokens[0xFF] = "other";
  SetStrings(&metadata, "tokenizer.ggml.tokens", tokens);
  EXPECT_THAT(Ids(metadata, "\xFF"), ElementsAre(0xEF, 0xBF, 0xBD));
}

TEST(BpeTokenizer, TextNeverBecomesAControlTokenUnlessParsed) {
  const gguf::Metadata metadata = BpeMetadata({}, Llama3Specials(), "llama-bpe");
  EXPECT_EQ(Ids(metadata, "<|eot_id|>").size(), 10U);
  EXPECT_THAT(Ids(metadata, "<|eot_id|>", {.add_special = false, .parse_special = true}),
              ElementsAre(258));
}

TEST(BpeTokenizer, BosDefaultsByPretokenizer) {
  for (const auto& [pre, adds] : {std::pair{"llama-bpe", true}, {"gpt-2", false}}) {
    gguf::Metadata metadata = BpeMetadata({}, Llama3Specials(), pre);
    SetUint(&metadata, "tokenizer.ggml.bos_token_id", 256);
    EXPECT_EQ(Tokenizer::FromMetadata(metadata)->adds_bos(), adds) << pre;
  }
}

TEST(BpeTokenizer, DefaultsToLlama3ForItsVocabularySize) {
  gguf::Metadata full = BpeMetadata({}, {}, "llama-bpe");
  std::vector<std::string> tokens = *full.FindStrings("tokenizer.ggml.tokens");
  for (size_t i = tokens.size(); i < 128256; ++i) tokens.push_back("pad" + std::to_string(i));
  tokens[300] = "1234";
  gguf::Metadata metadata;
  SetString(&metadata, "tokenizer.ggml.model", "gpt2");
  SetStrings(&metadata, "tokenizer.ggml.tokens", tokens);
  SetStrings(&metadata, "tokenizer.ggml.merges", {});
  // Llama 3 ignores merges and splits numbers into three digits at most.
  EXPECT_EQ(Ids(metadata, "1234").size(), 4U);
  tokens[300] = "123";
  SetStrings(&metadata, "tokenizer.ggml.tokens", tokens);
  EXPECT_THAT(Ids(metadata, "1234"), ElementsAre(300, '4'));
}

TEST(Tokenizer, StopTokensAreEosEotAndKnownSpecialPieces) {
  gguf::Metadata metadata = BpeMetadata(
      {},
      {{"<|end_of_text|>", 3}, {"<|eot_id|>", 3}, {"<|im_end|>", 1}, {"<|end|>", 4}, {"eom", 1}},
      "llama-bpe");
  SetUint(&metadata, "tokenizer.ggml.eos_token_id", 256);
  SetUint(&metadata, "tokenizer.ggml.eom_token_id", 260);
  const auto tokenizer = Tokenizer::FromMetadata(metadata);
  EXPECT_THAT(tokenizer->stop_tokens(), ElementsAre(256, 257, 259, 260));
  EXPECT_TRUE(tokenizer->IsStop(257));
  EXPECT_FALSE(tokenizer->IsStop(258));
  EXPECT_FALSE(tokenizer->IsStop(-1));
  EXPECT_EQ(tokenizer->TokenBytes(260, false), "");  // named as EOM, so not text
}

TEST(Tokenizer, NoTextHasFewerTokensThanPromised) {
  gguf::Metadata spm = AbcVocabulary();
  SetBool(&spm, "tokenizer.ggml.add_space_prefix", false);
  const gguf::Metadata bpe = BpeMetadata({"a b", "ab c"}, Llama3Specials(), "llama-bpe");
  const std::vector<std::string> texts = {"",
                                          "abcabc",
                                          "   a  bc ",
                                          std::string(1000, 'a'),
                                          std::string("\0\0\0", 3),
                                          "\xE2\x96\x81\xE2\x96\x81",
                                          "\xF0\x9F\x98\x80\xFF\xC3",
                                          "<|eot_id|><|eot_id|>"};
  for (const gguf::Metadata& metadata : {spm, bpe}) {
    const auto tokenizer = Tokenizer::FromMetadata(metadata);
    EXPECT_GT(tokenizer->LeastTokens(1000), 50U);
    for (const std::string& text : texts) {
      const auto ids = tokenizer->Encode(text, {.add_special = false, .parse_special = true});
      EXPECT_GE(ids.size(), tokenizer->LeastTokens(text.size())) << text;
    }
  }
}

TEST(Tokenizer, NothingIsPromisedWhereARunCanBeOneToken) {
  const auto tokenizer = Tokenizer::FromMetadata(SpmMetadata({{"a", 1, -1}}, false));
  EXPECT_EQ(tokenizer->LeastTokens(1 << 20), 0U);
}

TEST(Tokenizer, AnyIdIsSafe) {
  for (const gguf::Metadata& metadata : {AbcVocabulary(), BpeMetadata({}, {}, "gpt-2")}) {
    const auto tokenizer = Tokenizer::FromMetadata(metadata);
    for (const TokenId id : {TokenId{-1}, TokenId{1 << 30}, std::numeric_limits<TokenId>::min()}) {
      EXPECT_EQ(tokenizer->TokenBytes(id, true), "");
      EXPECT_EQ(tokenizer->piece(id), "");
      EXPECT_EQ(tokenizer->kind(id), TokenKind::kUnused);
      EXPECT_EQ(tokenizer->Decode(std::vector<TokenId>{id, id}, true), "");
    }
  }
}

// The words of the error, or "" when the metadata is accepted.
template <typename Error>
std::string ErrorOf(const gguf::Metadata& metadata) {
  try {
    Tokenizer::FromMetadata(metadata);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(TokenizerErrors, NamesAnUnknownModelAndTheKnownOnes) {
  gguf::Metadata metadata = AbcVocabulary();
  SetString(&metadata, "tokenizer.ggml.model", "plamo2");
  EXPECT_THAT(ErrorOf<ModelError>(metadata),
              testing::AllOf(HasSubstr("'plamo2'"), HasSubstr("'llama'"), HasSubstr("'gpt2'")));
}

TEST(TokenizerErrors, NamesAnUnknownPretokenizerAndTheKnownOnes) {
  EXPECT_THAT(ErrorOf<ModelError>(BpeMetadata({}, {}, "nonsense")),
              testing::AllOf(HasSubstr("'nonsense'"), HasSubstr("llama-bpe"), HasSubstr("tekken")));
  EXPECT_NE(ErrorOf<ModelError>(BpeMetadata({}, {}, "")), "");
  EXPECT_NE(ErrorOf<ModelError>(BpeMetadata({}, {}, "gpt-2 phi-2")), "");
}

TEST(TokenizerErrors, RefusesMissingOrMistypedArrays) {
  EXPECT_THAT(ErrorOf<gguf::FormatError>(gguf::Metadata()), HasSubstr("tokenizer.ggml.model"));
  gguf::Metadata metadata;
  SetString(&metadata, "tokenizer.ggml.model", "llama");
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("tokenizer.ggml.tokens"));
  SetInts(&metadata, "tokenizer.ggml.tokens", {1, 2});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("tokenizer.ggml.tokens"));
  SetStrings(&metadata, "tokenizer.ggml.tokens", {});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("0 entries"));
  SetStrings(&metadata, "tokenizer.ggml.tokens", {"a", "b"});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("tokenizer.ggml.scores"));
  SetFloats(&metadata, "tokenizer.ggml.scores", {1});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("1 entries, expected 2"));
  SetInts(&metadata, "tokenizer.ggml.scores", {1, 2});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("tokenizer.ggml.scores"));
  SetFloats(&metadata, "tokenizer.ggml.scores", {1, std::nan("")});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("scores[1] is not a number"));
  SetFloats(&metadata, "tokenizer.ggml.scores", {1, 2});
  EXPECT_EQ(ErrorOf<gguf::FormatError>(metadata), "");
  SetInts(&metadata, "tokenizer.ggml.token_type", {1});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("1 entries, expected 2"));
  SetInts(&metadata, "tokenizer.ggml.token_type", {1, 77});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("token_type[1] is 77"));
  SetFloats(&metadata, "tokenizer.ggml.token_type", {1, 1});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("tokenizer.ggml.token_type"));
}

// Pr25969: "<0x-1>" was an index before the table, "<0xZZ>" an exception that nobody caught.
TEST(TokenizerErrors, Pr25969_RefusesMalformedBytePieces) {
  for (const char* piece : {"<0xZZ>", "<0x-1>", "<0x1>", "", "<0x123>", "0x41"}) {
    EXPECT_THAT(ErrorOf<gguf::FormatError>(SpmMetadata({{piece, 6}})), HasSubstr("tokens[259]"))
        << piece;
  }
}

TEST(TokenizerErrors, RefusesIdsOutsideTheVocabulary) {
  for (const char* key : {"bos", "eos", "eot", "eom", "unknown"}) {
    gguf::Metadata metadata = AbcVocabulary();
    SetUint(&metadata, std::string("tokenizer.ggml.") + key + "_token_id", 267);
    EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata),
                HasSubstr("is 267, expected a token id below 267"))
        << key;
  }
}

TEST(TokenizerErrors, RefusesMalformedMerges) {
  gguf::Metadata metadata = BpeMetadata({}, {}, "gpt-2");
  for (const char* merge : {"", "ab", " ", "a ", " b"}) {
    SetStrings(&metadata, "tokenizer.ggml.merges", {merge});
    EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("merges[0]")) << merge;
  }
  SetInts(&metadata, "tokenizer.ggml.merges", {1});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("tokenizer.ggml.merges"));
}

TEST(TokenizerErrors, Cve2025_49847_RefusesHugePieces) {
  EXPECT_THAT(ErrorOf<gguf::FormatError>(SpmMetadata({{std::string(2049, 'a'), 1}})),
              HasSubstr("tokens[259] has 2049 bytes, expected at most 2048"));
}

// A million crafted tokens wrapped a sum of lengths in 32 bits elsewhere: the sum is bounded here.
TEST(TokenizerErrors, RefusesVocabulariesOfTooManyBytes) {
  const std::vector<TestToken> words(16384, {std::string(2048, 'a'), 1});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(SpmMetadata(words)),
              HasSubstr("bytes in all, expected at most 33554432"));
}

TEST(TokenizerErrors, Pr26690_RefusesScoresAndTypesOfOtherKinds) {
  gguf::Metadata metadata = AbcVocabulary();
  const std::vector<uint64_t> bytes(267, 1);
  metadata.Set("tokenizer.ggml.scores",
               {gguf::ValueType::kArray, gguf::MetadataArray{gguf::ValueType::kUint8, bytes}});
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("tokenizer.ggml.scores"));
  metadata = AbcVocabulary();
  SetFloats(&metadata, "tokenizer.ggml.token_type", std::vector<double>(267, 1));
  EXPECT_THAT(ErrorOf<gguf::FormatError>(metadata), HasSubstr("tokenizer.ggml.token_type"));
}

// Counts are sizes of vectors: a text with more tokens than any buffer was meant for just has them.
TEST(Tokenizer, Cve2025_52566_ManyTokensAreCountedAsTheyAre) {
  const auto tokenizer = Tokenizer::FromMetadata(SpmMetadata({}));
  const std::string text(3'000'000, '\xFF');
  EXPECT_GE(tokenizer->Encode(text, {.add_special = false}).size(), text.size());
}

TEST(Tokenizer, DuplicateAndEmptyPiecesAreHarmless) {
  gguf::Metadata metadata = SpmMetadata(
      {{"a", 1, -1}, {"a", 1, 5}, {"", 1}, {"", 3}, {"aa", 1, -2}, {"aa", 1, 9}, {"\xFF", 1}});
  SetBool(&metadata, "tokenizer.ggml.add_space_prefix", false);
  EXPECT_THAT(Ids(metadata, "aa", {.add_special = false, .parse_special = true}),
              ElementsAre(kFirstWord + 4));
}

}  // namespace
}  // namespace engine::text
