#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "gguf/metadata.h"

namespace engine::text {

// Metadata of small vocabularies, made in memory.

struct TestToken {
  std::string piece;
  int64_t type = 1;
  double score = 0;
};

inline void SetStrings(gguf::Metadata* metadata, std::string key, std::vector<std::string> values) {
  gguf::MetadataArray array{gguf::ValueType::kString, std::move(values)};
  metadata->Set(std::move(key), {gguf::ValueType::kArray, std::move(array)});
}

inline void SetInts(gguf::Metadata* metadata, std::string key, std::vector<int64_t> values) {
  gguf::MetadataArray array{gguf::ValueType::kInt32, std::move(values)};
  metadata->Set(std::move(key), {gguf::ValueType::kArray, std::move(array)});
}

inline void SetFloats(gguf::Metadata* metadata, std::string key, std::vector<double> values) {
  gguf::MetadataArray array{gguf::ValueType::kFloat32, std::move(values)};
  metadata->Set(std::move(key), {gguf::ValueType::kArray, std::move(array)});
}

inline void SetString(gguf::Metadata* metadata, std::string key, std::string value) {
  metadata->Set(std::move(key), {gguf::ValueType::kString, std::move(value)});
}

inline void SetUint(gguf::Metadata* metadata, std::string key, uint64_t value) {
  metadata->Set(std::move(key), {gguf::ValueType::kUint32, value});
}

inline void SetBool(gguf::Metadata* metadata, std::string key, bool value) {
  metadata->Set(std::move(key), {gguf::ValueType::kBool, value});
}

inline void SetTokens(gguf::Metadata* metadata, const std::vector<TestToken>& tokens) {
  std::vector<std::string> pieces;
  std::vector<int64_t> types;
  std::vector<double> scores;
  for (const TestToken& token : tokens) {
    pieces.push_back(token.piece);
    types.push_back(token.type);
    scores.push_back(token.score);
  }
  SetStrings(metadata, "tokenizer.ggml.tokens", std::move(pieces));
  SetInts(metadata, "tokenizer.ggml.token_type", std::move(types));
  SetFloats(metadata, "tokenizer.ggml.scores", std::move(scores));
}

inline std::string BytePiece(int byte) {
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  return {'<', '0', 'x', kHex[static_cast<size_t>(byte / 16)], kHex[static_cast<size_t>(byte % 16)],
          '>'};
}

// <unk> 0, <s> 1, </s> 2, byte tokens 3..258, then `words` from 259 on.
inline gguf::Metadata SpmMetadata(const std::vector<TestToken>& words, bool byte_tokens = true) {
  std::vector<TestToken> tokens = {{"<unk>", 2}, {"<s>", 3}, {"</s>", 3}};
  for (int byte = 0; byte_tokens && byte < 256; ++byte) tokens.push_back({BytePiece(byte), 6});
  tokens.insert(tokens.end(), words.begin(), words.end());
  gguf::Metadata metadata;
  SetString(&metadata, "tokenizer.ggml.model", "llama");
  SetTokens(&metadata, tokens);
  return metadata;
}

// Some words with spaces, two bytes and both, for SpmMetadata().
inline std::vector<TestToken> SpmWords() {
  return {{"\xE2\x96\x81", 1, -1},
          {"a", 1, -2},
          {"\xE2\x96\x81"
           "a",
           1, -3},
          {"\xC3\xA9", 1, -4},
          {"a\xC3\xA9", 1, -5},
          {"\xE2\x96\x81\xE2\x96\x81", 1, -6},
          {"a\xE2\x96\x81", 1, -7}};
}

// Byte-level BPE: token b is the byte b; then the merges' results, then `specials`.
gguf::Metadata BpeMetadata(const std::vector<std::string>& merges,
                           const std::vector<TestToken>& specials, const std::string& pre);

// The character of GPT-2's alphabet for a byte.
std::string ByteCharacter(int byte);

}  // namespace engine::text
