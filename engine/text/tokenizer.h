#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/token.h"
#include "gguf/metadata.h"

namespace engine::text {

enum class TokenKind : uint8_t { kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct EncodeOptions {
  bool add_special = true;     // BOS (and EOS, separators) as the model's metadata says
  bool parse_special = false;  // recognise control tokens written in the text, e.g. "<|user|>"
};

// Text <-> token ids of one vocabulary.
//
// Threads: immutable; const calls from any thread.
// Errors:  FromMetadata() throws gguf::FormatError or engine::ModelError. Encode() takes any bytes:
//          what is no valid UTF-8 is encoded byte by byte. Decode functions accept any id; ids
//          outside the vocabulary give no text.
class Tokenizer {
 public:
  // Picks the family from tokenizer.ggml.model ("llama" = SPM, "gpt2" = byte-level BPE).
  static std::unique_ptr<const Tokenizer> FromMetadata(const gguf::Metadata& metadata);
  virtual ~Tokenizer() = default;

  virtual std::vector<TokenId> Encode(std::string_view text,
                                      const EncodeOptions& options) const = 0;

  // The bytes that a token stands for in running text: a byte token is one raw byte, SPM's U+2581
  // is a space, a control token is empty unless `special` asks for its name.
  virtual std::string TokenBytes(TokenId token, bool special) const = 0;

  // Bytes of all tokens joined; SPM's leading space is dropped where the model added one. May be
  // cut inside a UTF-8 sequence if the tokens are.
  virtual std::string Decode(std::span<const TokenId> tokens, bool special) const = 0;

  // True when the first token's leading space was added by Encode() and Decode() drops it.
  virtual bool adds_space_prefix() const = 0;

  uint32_t size() const { return static_cast<uint32_t>(kinds_.size()); }
  TokenKind kind(TokenId token) const;
  // As stored in the file: "<0x0A>", "\u2581the".
  const std::string& piece(TokenId token) const;
  std::optional<TokenId> Find(std::string_view piece) const;

  std::optional<TokenId> bos() const { return bos_; }
  std::optional<TokenId> eos() const { return eos_; }
  bool adds_bos() const { return adds_bos_; }
  // Every token that ends a turn: EOS, EOT and the known end-of-turn pieces of the vocabulary.
  std::span<const TokenId> stop_tokens() const { return stop_tokens_; }
  bool IsStop(TokenId token) const;

 protected:
  struct PieceIndex;
  explicit Tokenizer(const gguf::Metadata& metadata);

  std::vector<std::string> pieces_;
  std::vector<TokenKind> kinds_;
  std::shared_ptr<const PieceIndex> index_;
  std::optional<TokenId> bos_;
  std::optional<TokenId> eos_;
  bool adds_bos_ = false;
  bool adds_eos_ = false;
  std::vector<TokenId> stop_tokens_;  // ascending
};

}  // namespace engine::text
