// Every vocabulary of the tokenizer corpus encodes its cases to the expected ids, and the ids
// decode to the text again.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "engine/text/detokenizer.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"
#include "gguf/reader.h"

namespace engine::text {
namespace {

std::filesystem::path DataFolder() {
  const char* folder = std::getenv("TERN_TEST_DATA");
  return folder != nullptr ? folder : TERN_SOURCE_DIR "/../shared/data";
}

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// A case ends at "\n__ggml_vocab_test__\n"; its ids are the line of the same number.
std::vector<std::string> ReadCases(const std::filesystem::path& path) {
  static constexpr std::string_view kEnd = "\n__ggml_vocab_test__\n";
  const std::string text = ReadText(path);
  std::vector<std::string> cases;
  size_t begin = 0;
  for (size_t end = text.find(kEnd); end != std::string::npos; end = text.find(kEnd, begin)) {
    cases.push_back(text.substr(begin, end - begin));
    begin = end + kEnd.size();
  }
  return cases;
}

std::vector<std::vector<TokenId>> ReadIds(const std::filesystem::path& path) {
  std::istringstream lines(ReadText(path));
  std::vector<std::vector<TokenId>> all;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    std::vector<TokenId> ids;
    for (TokenId id; numbers >> id;) ids.push_back(id);
    all.push_back(std::move(ids));
  }
  return all;
}

class TokenizerCorpus : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerCorpus, EncodesCasesToExpectedIdsAndBack) {
  const std::filesystem::path base = DataFolder() / "tokenizers" / GetParam();
  const std::string vocabulary = base.string() + ".gguf";
  if (!std::filesystem::exists(vocabulary)) GTEST_SKIP() << "no vocabulary at " << vocabulary;
  const auto tokenizer = Tokenizer::FromMetadata(gguf::File::Open(vocabulary).metadata());
  const std::vector<std::string> cases = ReadCases(base.string() + ".inp");
  const std::vector<std::vector<TokenId>> ids = ReadIds(base.string() + ".out");
  ASSERT_GE(cases.size(), 40U);
  ASSERT_LE(cases.size(), ids.size());

  size_t tokens = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::vector<TokenId> encoded = tokenizer->Encode(cases[i], {.add_special = false});
    EXPECT_EQ(encoded, ids[i]) << "case " << i << ": " << cases[i];
    EXPECT_EQ(tokenizer->Decode(encoded, false), cases[i]) << "case " << i;

    Detokenizer detokenizer(*tokenizer, false, tokenizer->adds_space_prefix());
    std::string streamed;
    for (const TokenId token : encoded) streamed += detokenizer.Push(token);
    streamed += detokenizer.Flush();
    EXPECT_EQ(streamed, cases[i]) << "case " << i;
    tokens += encoded.size();
  }
  std::printf("%s: %zu cases, %zu tokens, both directions\n", GetParam(), cases.size(), tokens);
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, TokenizerCorpus,
                         testing::Values("llama-spm", "phi-3", "llama-bpe", "gpt-2",
                                         "deepseek-llm"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::erase(name, '-');
                           return name;
                         });

TEST(TokenizerCorpusSplit, Qwen2CasesHaveATokenForEveryWordAndDigit) {
  const std::filesystem::path base = DataFolder() / "tokenizers" / "qwen2";
  const std::string path = base.string() + ".inp";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "no cases at " << path;
  const std::vector<std::string> cases = ReadCases(path);
  const std::vector<std::vector<TokenId>> ids = ReadIds(base.string() + ".out");
  ASSERT_GE(cases.size(), 40U);
  ASSERT_LE(cases.size(), ids.size());

  const auto pretokenizer = Pretokenizer::Named("qwen2");
  for (size_t i = 0; i < cases.size(); ++i) {
    size_t words = 0;
    bool plain = true;  // digits, and words that certainly are one token
    pretokenizer->Split(cases[i], [&](std::string_view word) {
      ++words;
      plain = plain && (word == "Hello" || word == " Hello" || word == " World" ||
                        word == " world" || word.size() == 1);
    });
    EXPECT_LE(words, ids[i].size()) << "case " << i << ": " << cases[i];
    if (plain) {
      EXPECT_EQ(words, ids[i].size()) << "case " << i << ": " << cases[i];
    }
  }
}

}  // namespace
}  // namespace engine::text
