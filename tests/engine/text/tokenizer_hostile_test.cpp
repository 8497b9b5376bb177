// Metadata mutated at random is accepted or refused with FormatError or ModelError, never worse,
// and what is accepted encodes and decodes anything. Byte-fallback vocabularies give every byte
// back.

#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <string>
#include <thread>
#include <variant>
#include <vector>

#include "engine/errors.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_utf8.h"
#include "gguf/error.h"
#include "tests/engine/text/vocabulary.h"

namespace engine::text {
namespace {

using gguf::Metadata;
using gguf::MetadataArray;
using gguf::MetadataValue;
using gguf::ValueType;

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  uint32_t Below(uint32_t end) { return static_cast<uint32_t>(random_()) % end; }

  std::string Bytes(uint32_t limit) {
    std::string bytes;
    for (uint32_t i = Below(limit); i > 0; --i) bytes.push_back(static_cast<char>(Below(256)));
    return bytes;
  }

  std::string Piece() {
    static const std::string kPieces[] = {"",
                                          "a",
                                          "ab",
                                          "<0xZZ>",
                                          "<0x-1>",
                                          "<0x41>",
                                          "\xE2\x96\x81",
                                          "<s>",
                                          " ",
                                          "a b",
                                          "<|eot_id|>",
                                          "\xE2\x96",
                                          "\xFF",
                                          std::string(1, '\0'),
                                          "[UNK]",
                                          "Ġa",
                                          "a\nb",
                                          std::string(2048, 'a'),
                                          "</s>"};
    return Below(3) == 0 ? Bytes(8) : kPieces[Below(std::size(kPieces))];
  }

  MetadataValue AnyValue() {
    switch (Below(8)) {
      case 0:
        return {ValueType::kUint32, uint64_t{Below(600)}};
      case 1:
        return {ValueType::kInt32, -static_cast<int64_t>(Below(3))};
      case 2:
        return {ValueType::kUint64, std::numeric_limits<uint64_t>::max()};
      case 3:
        return {ValueType::kFloat32, std::numeric_limits<double>::quiet_NaN()};
      case 4:
        return {ValueType::kBool, Below(2) == 0};
      case 5:
        return {ValueType::kString, Piece()};
      case 6:
        return {ValueType::kArray,
                MetadataArray{ValueType::kString, std::vector<std::string>{Piece(), Piece()}}};
      default:
        return {ValueType::kArray, MetadataArray{ValueType::kUint8, std::vector<uint64_t>{1, 255}}};
    }
  }

  void MutateArray(MetadataArray* array) {
    std::visit(
        [&](auto& values) {
          if (values.empty()) return;
          const size_t at = Below(static_cast<uint32_t>(values.size()));
          switch (Below(4)) {
            case 0:
              values.erase(values.begin() + static_cast<ptrdiff_t>(at));
              break;
            case 1:
              values.push_back(values[at]);
              break;
            case 2:
              values.resize(at);
              break;
            default:
              Replace(&values[at]);
          }
        },
        array->values);
  }

  void Mutate(Metadata* metadata) {
    static const std::string kKeys[] = {"tokenizer.ggml.tokens",
                                        "tokenizer.ggml.token_type",
                                        "tokenizer.ggml.scores",
                                        "tokenizer.ggml.merges",
                                        "tokenizer.ggml.bos_token_id",
                                        "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.pre",
                                        "tokenizer.ggml.model",
                                        "tokenizer.ggml.add_bos_token",
                                        "tokenizer.ggml.add_space_prefix",
                                        "tokenizer.ggml.unknown_token_id"};
    // Arrays most of the time: whole values are refused at once.
    const std::string& key = kKeys[Below(10) < 8 ? Below(4) : Below(std::size(kKeys))];
    const MetadataValue* old = metadata->FindValue(key);
    if (old == nullptr || !std::holds_alternative<MetadataArray>(old->value) || Below(20) == 0) {
      metadata->Set(key, AnyValue());
      return;
    }
    MetadataValue value = *old;
    MutateArray(&std::get<MetadataArray>(value.value));
    metadata->Set(key, std::move(value));
  }

 private:
  void Replace(std::string* value) { *value = Piece(); }
  void Replace(int64_t* value) { *value = static_cast<int64_t>(Below(9)) - 1; }
  void Replace(uint64_t* value) { *value = Below(9); }
  void Replace(double* value) {
    static constexpr double kScores[] = {0,
                                         -1,
                                         1e308,
                                         -1e308,
                                         std::numeric_limits<double>::infinity(),
                                         std::numeric_limits<double>::quiet_NaN()};
    *value = kScores[Below(std::size(kScores))];
  }
  void Replace(MetadataArray*) {}

  std::mt19937 random_;
};

void Exercise(const Tokenizer& tokenizer, Mutator* mutator) {
  for (int i = 0; i < 3; ++i) {
    std::string text;
    for (uint32_t parts = mutator->Below(6); parts > 0; --parts) text += mutator->Piece();
    for (const bool parse : {false, true}) {
      const std::vector<TokenId> ids = tokenizer.Encode(text, {.parse_special = parse});
      for (const TokenId id : ids) {
        ASSERT_GE(id, 0);
        ASSERT_LT(static_cast<uint32_t>(id), tokenizer.size());
      }
      Detokenizer detokenizer(tokenizer, parse, tokenizer.adds_space_prefix());
      std::string joined;
      for (const TokenId id : ids) joined += detokenizer.Push(id);
      joined += detokenizer.Flush();
      ASSERT_EQ(joined, SanitizeUtf8(tokenizer.Decode(ids, parse)));
    }
  }
}

void MutateAndExercise(const Metadata& original, uint32_t seed, int rounds) {
  Mutator mutator(seed);
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    Metadata metadata = original;
    for (uint32_t i = 1 + mutator.Below(3); i > 0; --i) mutator.Mutate(&metadata);
    try {
      const auto tokenizer = Tokenizer::FromMetadata(metadata);
      ++accepted;
      Exercise(*tokenizer, &mutator);
    } catch (const gguf::FormatError& error) {
      EXPECT_GT(std::string(error.what()).size(), 20U);
    } catch (const ModelError& error) {
      EXPECT_GT(std::string(error.what()).size(), 20U);
    }
  }
  // Both outcomes must have been seen for the test to mean anything.
  EXPECT_GT(accepted, rounds / 50);
  EXPECT_LT(accepted, rounds);
}

TEST(TokenizerHostile, SurvivesMutatedSpmMetadata) {
  Metadata metadata = SpmMetadata({{"\xE2\x96\x81", 1, -1},
                                   {"a", 1, -2},
                                   {"b", 1, -3},
                                   {"ab", 1, -4},
                                   {"\xE2\x96\x81"
                                    "ab",
                                    1, -5},
                                   {"[u]", 4},
                                   {"<|eot_id|>", 3}});
  SetUint(&metadata, "tokenizer.ggml.bos_token_id", 1);
  SetUint(&metadata, "tokenizer.ggml.eos_token_id", 2);
  MutateAndExercise(metadata, 5, 3000);
}

TEST(TokenizerHostile, SurvivesMutatedBpeMetadata) {
  Metadata metadata =
      BpeMetadata({"a b", "Ġ a", "Ġa b", "Ã ©"}, {{"<|eot_id|>", 3}, {"[u]", 4}}, "llama-bpe");
  SetUint(&metadata, "tokenizer.ggml.bos_token_id", 261);
  MutateAndExercise(metadata, 6, 3000);
}

std::vector<Metadata> ByteFallbackVocabularies() {
  const std::vector<TestToken> words = SpmWords();
  Metadata without_prefix = SpmMetadata(words);
  SetBool(&without_prefix, "tokenizer.ggml.add_space_prefix", false);
  std::vector<Metadata> all = {SpmMetadata(words), without_prefix, SpmMetadata({})};
  for (const char* pre : {"llama-bpe", "gpt-2", "deepseek-llm", "tekken", "default"}) {
    all.push_back(BpeMetadata({"a b", "Ġ a", "Ã ©", "Ġ Ġ"}, {}, pre));
  }
  return all;
}

TEST(TokenizerHostile, GivesEveryByteStringBack) {
  std::mt19937 random(7);
  for (const Metadata& metadata : ByteFallbackVocabularies()) {
    const auto tokenizer = Tokenizer::FromMetadata(metadata);
    for (int round = 0; round < 2000; ++round) {
      std::string text;
      for (size_t i = random() % 30; i > 0; --i) {
        static const std::string kUnits[] = {
            " ", "a", "\xC3\xA9", "\xC3", "\xE2\x96", "\xF0\x9F\x98", "\n"};
        text += random() % 2 == 0 ? kUnits[random() % std::size(kUnits)]
                                  : std::string(1, static_cast<char>(random()));
      }
      // SPM's own sign for a space comes back as one.
      if (text.find(kSpacePiece) != std::string::npos) continue;
      const auto ids = tokenizer->Encode(text, {.add_special = false});
      ASSERT_EQ(tokenizer->Decode(ids, false), text);
    }
  }
}

TEST(TokenizerHostile, EncodesFromManyThreadsAtOnce) {
  for (const Metadata& metadata : ByteFallbackVocabularies()) {
    const auto tokenizer = Tokenizer::FromMetadata(metadata);
    const std::string text = "a b, a\xC3\xA9 \xFF 12345 'll a  a\n" + std::string(100, 'a');
    const std::vector<TokenId> expected = tokenizer->Encode(text, {});
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (int round = 0; round < 20; ++round) EXPECT_EQ(tokenizer->Encode(text, {}), expected);
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
}

}  // namespace
}  // namespace engine::text
