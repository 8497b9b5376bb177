#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/bpe_merger.h"
#include "engine/text/pretokenizer.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_index.h"

namespace engine::text {

// Byte-level BPE ("gpt2"): a text is cut into words, each word's bytes are merged by the rules of
// tokenizer.ggml.merges in their order. Pieces are stored in GPT-2's alphabet of printable
// characters, one for each byte.
//
// Control and unknown pieces are never made from text.
class BpeTokenizer : public Tokenizer {
 public:
  explicit BpeTokenizer(const gguf::Metadata& metadata);

  std::string TokenBytes(TokenId token, bool special) const override;
  bool adds_space_prefix() const override { return false; }

 private:
  BpeTokenizer(const gguf::Metadata& metadata, std::unique_ptr<const Pretokenizer> pretokenizer);

  void EncodeText(std::string_view text, std::vector<TokenId>* out) const override;

  void LoadBytes();
  void LoadMerges(const gguf::Metadata& metadata);
  void EncodeWord(std::string_view word, std::vector<Symbol>* symbols,
                  std::vector<TokenId>* out) const;
  void AppendBytes(std::string_view bytes, std::vector<TokenId>* out) const;

  std::unique_ptr<const Pretokenizer> pretokenizer_;
  MergeTable merges_{0};
  std::vector<std::string> bytes_;      // of each token, as TokenBytes() gives them
  std::unique_ptr<StringIndex> words_;  // bytes -> the token that text can become
  std::array<Symbol, 256> byte_symbols_;
  // Parts of merges that have no token; the symbol of no_token_[i] is -2 - i.
  std::vector<std::string> no_token_;
};

}  // namespace engine::text
