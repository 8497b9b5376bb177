#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/fim_tokens.h"
#include "engine/token.h"
#include "gguf/metadata.h"

namespace engine::text {

class SpecialMatcher;
class StringIndex;

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

  // Special tokens in the text are matched leftmost first, the longest at each place.
  std::vector<TokenId> Encode(std::string_view text, const EncodeOptions& options) const;

  // No text of so many bytes has fewer tokens: told without encoding it. 0 for a vocabulary that
  // cannot say every byte, where a run of any length may become one token.
  uint64_t LeastTokens(uint64_t text_bytes) const;

  // The bytes that a token stands for in running text: a byte token is one raw byte, SPM's U+2581
  // is a space, a control token is empty unless `special` asks for its name.
  virtual std::string TokenBytes(TokenId token, bool special) const = 0;

  // Bytes of all tokens joined; SPM's leading space is dropped where Encode() added one. May be cut
  // inside a UTF-8 sequence if the tokens are.
  virtual std::string Decode(std::span<const TokenId> tokens, bool special) const;

  // One step of Decode(). *drop_space: the next text starts what Encode() would prefix with a space
  // (the whole, or what follows a special token that is shown); kept up to date.
  void AppendText(TokenId token, bool special, bool* drop_space, std::string* out) const;

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
  const FimTokens& fim() const { return fim_; }

 protected:
  // What holds where the metadata says nothing.
  struct Defaults {
    bool adds_bos = false;
    std::string_view bos_piece =
        {};  // BOS and EOS, where the vocabulary has them as control tokens
    std::string_view eos_piece = {};
    bool escapes_spaces = false;  // U+2581 in a user-defined piece is a space of the text
  };
  Tokenizer(const gguf::Metadata& metadata, const Defaults& defaults);

  // The token that a key names; nullopt when it is absent or says -1.
  std::optional<TokenId> FindTokenId(const gguf::Metadata& metadata, std::string_view key) const;

  FimTokens FindFimTokens(const gguf::Metadata& metadata) const;

  // The family's part of Encode(): a text between special tokens, not empty; appends its ids.
  virtual void EncodeText(std::string_view text, std::vector<TokenId>* out) const = 0;

  std::vector<std::string> pieces_;
  std::vector<TokenKind> kinds_;
  std::shared_ptr<const StringIndex> index_;
  std::optional<TokenId> bos_;
  std::optional<TokenId> eos_;
  bool adds_bos_ = false;
  bool adds_eos_ = false;
  std::vector<TokenId> stop_tokens_;  // ascending
  FimTokens fim_;
  // The longest text that becomes one token; 0 = no bound.
  size_t max_bytes_per_token_ = 0;
  // Finds special tokens in text: all of them, and those that users of the vocabulary added.
  std::shared_ptr<const SpecialMatcher> all_specials_;
  std::shared_ptr<const SpecialMatcher> user_defined_;
};

}  // namespace engine::text
