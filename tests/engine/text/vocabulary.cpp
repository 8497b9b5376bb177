#include "tests/engine/text/vocabulary.h"

#include <algorithm>

#include "engine/text/tokenizer_utf8.h"

namespace engine::text {

std::string ByteCharacter(int byte) {
  uint32_t next = 0x100;
  for (int b = 0; b <= byte; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    const uint32_t code = printable ? static_cast<uint32_t>(b) : next++;
    if (b == byte) {
      std::string character;
      AppendUtf8(code, &character);
      return character;
    }
  }
  return {};
}

gguf::Metadata BpeMetadata(const std::vector<std::string>& merges,
                           const std::vector<TestToken>& specials, const std::string& pre) {
  std::vector<TestToken> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back({ByteCharacter(byte)});
  for (const std::string& merge : merges) {
    std::string piece = merge;
    std::erase(piece, ' ');
    const bool known = std::any_of(tokens.begin(), tokens.end(),
                                   [&](const TestToken& token) { return token.piece == piece; });
    if (!known) tokens.push_back({piece});
  }
  tokens.insert(tokens.end(), specials.begin(), specials.end());
  gguf::Metadata metadata;
  SetString(&metadata, "tokenizer.ggml.model", "gpt2");
  SetString(&metadata, "tokenizer.ggml.pre", pre);
  SetTokens(&metadata, tokens);
  SetStrings(&metadata, "tokenizer.ggml.merges", merges);
  return metadata;
}

}  // namespace engine::text
