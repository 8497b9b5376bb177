#pragma once

#include <array>
#include <string>
#include <vector>

#include "engine/text/bpe_merger.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_index.h"

namespace engine::text {

// SentencePiece BPE ("llama"): characters are merged to the pieces with the highest scores, spaces
// are U+2581 and what has no piece falls back to byte tokens, or to the unknown token.
//
// Control, unknown and byte pieces are never made from text; SentencePiece keeps them out likewise.
class SpmTokenizer : public Tokenizer {
 public:
  explicit SpmTokenizer(const gguf::Metadata& metadata);

  std::string TokenBytes(TokenId token, bool special) const override;
  bool adds_space_prefix() const override { return adds_space_prefix_; }

 private:
  void EncodeText(std::string_view text, std::vector<TokenId>* out) const override;

  void LoadBytes();
  void LoadMerges(const gguf::Metadata& metadata);
  void AddMerges(const std::vector<uint32_t>& ranks);
  Symbol CharSymbol(uint32_t code) const;
  bool JoinsSpace(std::string_view text, size_t space) const;
  size_t ChunkEnd(std::string_view text, size_t begin) const;
  void EncodeChunk(std::string_view chunk, bool with_prefix, std::vector<Symbol>* word,
                   std::vector<TokenId>* out) const;
  void AppendFallback(Symbol symbol, size_t chunk_begin, std::vector<TokenId>* out) const;

  bool adds_space_prefix_;
  MergeTable merges_{0};
  FlatMap char_tokens_;                    // code point -> the token of that one character
  std::array<Symbol, 128> ascii_symbols_;  // the same for ASCII, a space being U+2581
  FlatMap space_joins_;                    // symbols that some piece has before a U+2581
  std::array<std::optional<TokenId>, 256> byte_tokens_;
  std::optional<TokenId> unknown_;
};

}  // namespace engine::text
