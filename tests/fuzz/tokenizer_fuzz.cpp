// Any text in any vocabulary: metadata is accepted or refused with a sentence, ids are ids of the
// vocabulary, tokens decoded one by one make the text of all at once, and a vocabulary that has
// every byte gives every text back.
//
//   input := selector flags text             selector < 192: one of the fixed vocabularies
//          | selector flags vocabulary text  otherwise: metadata of the fuzzer's own

#include <fuzzer/FuzzedDataProvider.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine/errors.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_utf8.h"
#include "gguf/error.h"
#include "gguf/reader.h"
#include "tests/engine/text/vocabulary.h"

namespace {

using namespace engine::text;
using engine::TokenId;
using gguf::Metadata;

// One name of each rule of engine/text/pretokenizer.cpp.
constexpr const char* kPretokenizers[] = {
    "llama-bpe",    "dbrx",           "qwen2",       "qwen35",     "gpt-2",  "starcoder",
    "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon",     "tekken", "gpt-4o",
    "bloom",        "viking",         "bailingmoe",  "seed-coder", "default"};

struct Vocabulary {
  std::unique_ptr<const Tokenizer> tokenizer;
  bool has_every_byte = false;  // and nothing in it hides text
};

std::vector<Vocabulary> FixedVocabularies() {
  const std::vector<TestToken> words = SpmWords();
  Metadata without_prefix = SpmMetadata(words);
  SetBool(&without_prefix, "tokenizer.ggml.add_space_prefix", false);
  std::vector<TestToken> with_specials = words;
  with_specials.insert(with_specials.end(), {{"<|eot_id|>", 3}, {"[u]", 4}, {"[u][u]", 4}});

  std::vector<Vocabulary> all;
  const auto add = [&](const Metadata& metadata, bool has_every_byte) {
    all.push_back({Tokenizer::FromMetadata(metadata), has_every_byte});
  };
  add(SpmMetadata(words), true);
  add(without_prefix, true);
  add(SpmMetadata({}), true);
  add(SpmMetadata(with_specials), false);
  add(SpmMetadata(words, false), false);
  for (const char* pre : kPretokenizers) {
    add(BpeMetadata({"a b", "\xC4\xA0 a", "\xC3\x83 \xC2\xA9", "\xC4\xA0 \xC4\xA0"}, {}, pre),
        true);
  }
  add(BpeMetadata({"a b", "\xC4\xA0 a"}, {{"<|eot_id|>", 3}, {"[u]", 4}, {"[u][u]", 4}},
                  "llama-bpe"),
      false);
  add(gguf::File::Open(TERN_SOURCE_DIR "/models/tern-demo-7m-i2_s.gguf").metadata(), false);
  return all;
}

void Require(bool condition, const char* property) {
  if (!condition) throw std::logic_error(property);
}

void Exercise(const Vocabulary& vocabulary, const std::string& text, uint8_t flags) {
  const Tokenizer& tokenizer = *vocabulary.tokenizer;
  const bool show_special = (flags & 4) != 0;
  const EncodeOptions options = {.add_special = (flags & 1) != 0,
                                 .parse_special = (flags & 2) != 0};
  const std::vector<TokenId> ids = tokenizer.Encode(text, options);
  for (const TokenId id : ids) {
    Require(id >= 0 && static_cast<uint32_t>(id) < tokenizer.size(), "an id is no token's");
  }
  Require(ids.size() >= tokenizer.LeastTokens(text.size()), "fewer tokens than promised");

  const std::string whole = tokenizer.Decode(ids, show_special);
  Detokenizer detokenizer(tokenizer, show_special, tokenizer.adds_space_prefix());
  std::string joined;
  for (const TokenId id : ids) joined += detokenizer.Push(id);
  joined += detokenizer.Flush();
  Require(joined == SanitizeUtf8(whole), "tokens one by one are not the whole");

  // SPM's own sign for a space comes back as one.
  if (!vocabulary.has_every_byte || options.add_special || options.parse_special) return;
  if (text.find(kSpacePiece) != std::string::npos) return;
  Require(tokenizer.Decode(ids, false) == text, "a text did not come back");
}

std::vector<std::string> Strings(FuzzedDataProvider* data, size_t limit) {
  std::vector<std::string> strings(data->ConsumeIntegralInRange<size_t>(0, limit));
  for (std::string& text : strings) text = data->ConsumeRandomLengthString(16);
  return strings;
}

// Arrays of their own lengths and any ids, on top of all byte tokens or of nothing.
Metadata AnyMetadata(FuzzedDataProvider* data) {
  const bool spm = data->ConsumeBool();
  Metadata metadata;
  if (data->ConsumeBool()) {
    std::vector<TestToken> tokens;
    for (std::string& piece : Strings(data, 24)) {
      tokens.push_back({std::move(piece), data->ConsumeIntegralInRange<int64_t>(-1, 7),
                        data->ConsumeFloatingPoint<float>()});
    }
    metadata = spm ? SpmMetadata(tokens) : BpeMetadata(Strings(data, 12), tokens, "gpt-2");
  } else {
    SetString(&metadata, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    SetStrings(&metadata, "tokenizer.ggml.tokens", Strings(data, 40));
    SetStrings(&metadata, "tokenizer.ggml.merges", Strings(data, 12));
    std::vector<int64_t> types(data->ConsumeIntegralInRange<size_t>(0, 40));
    for (int64_t& type : types) type = data->ConsumeIntegralInRange<int64_t>(-1, 7);
    if (!types.empty()) SetInts(&metadata, "tokenizer.ggml.token_type", std::move(types));
  }
  if (data->ConsumeBool()) {
    SetString(&metadata, "tokenizer.ggml.pre", data->PickValueInArray(kPretokenizers));
  }
  for (const char* key : {"bos", "eos", "eot", "eom", "unknown"}) {
    if (!data->ConsumeBool()) continue;
    SetUint(&metadata, "tokenizer.ggml." + std::string(key) + "_token_id",
            data->ConsumeIntegralInRange<uint64_t>(0, 300));
  }
  for (const char* key : {"add_bos_token", "add_eos_token", "add_space_prefix"}) {
    if (data->ConsumeBool()) {
      SetBool(&metadata, "tokenizer.ggml." + std::string(key), data->ConsumeBool());
    }
  }
  return metadata;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::vector<Vocabulary> fixed = FixedVocabularies();
  if (size < 2) return 0;
  const uint8_t selector = data[0];
  const uint8_t flags = data[1];
  if (selector < 192) {
    Exercise(fixed[selector % fixed.size()],
             std::string(reinterpret_cast<const char*>(data + 2), size - 2), flags);
    return 0;
  }
  FuzzedDataProvider provider(data + 2, size - 2);
  try {
    const Metadata metadata = AnyMetadata(&provider);
    Exercise({Tokenizer::FromMetadata(metadata), false}, provider.ConsumeRemainingBytesAsString(),
             flags);
  } catch (const gguf::FormatError&) {
  } catch (const engine::ModelError&) {
  }
  return 0;
}
