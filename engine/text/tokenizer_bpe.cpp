#include "engine/text/tokenizer_bpe.h"

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <utility>

#include "engine/text/tokenizer_utf8.h"
#include "engine/text/tokenizer_word_cache.h"
#include "gguf/error.h"

namespace engine::text {
namespace {

constexpr std::string_view kMergesKey = "tokenizer.ggml.merges";
constexpr std::string_view kPreKey = "tokenizer.ggml.pre";
constexpr size_t kMaxMerges = size_t{1} << 23;
// Llama 3's vocabulary: BitNet b1.58 2B-4T's published files have it and no tokenizer.ggml.pre.
constexpr size_t kLlama3Tokens = 128256;

bool IsPrintable(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// GPT-2's alphabet: printable bytes of Latin-1 stand for themselves, the others for the characters
// from U+0100 on, in their order.
class ByteAlphabet {
 public:
  static constexpr uint32_t kEnd = 0x100 + 68;  // past the last character

  ByteAlphabet() {
    byte_of_.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t code = IsPrintable(byte) ? byte : next++;
      AppendUtf8(code, &characters_[byte]);
      byte_of_[code] = static_cast<int>(byte);
    }
  }

  const std::string& Character(size_t byte) const { return characters_[byte]; }

  // nullopt when a character is none of the alphabet.
  std::optional<std::string> Bytes(std::string_view piece) const {
    std::string bytes;
    for (size_t at = 0; at < piece.size();) {
      const Utf8Step step = NextUtf8(piece.substr(at));
      if (!step.valid || step.code >= kEnd || byte_of_[step.code] < 0) return std::nullopt;
      bytes.push_back(static_cast<char>(byte_of_[step.code]));
      at += step.length;
    }
    return bytes;
  }

 private:
  std::array<std::string, 256> characters_;
  std::array<int, kEnd> byte_of_;
};

const ByteAlphabet& Alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

std::unique_ptr<const Pretokenizer> LoadPretokenizer(const gguf::Metadata& metadata) {
  const std::string* name = metadata.FindString(kPreKey);
  if (name != nullptr) return Pretokenizer::Named(*name);
  const std::vector<std::string>* tokens = metadata.FindStrings("tokenizer.ggml.tokens");
  const bool llama3 = tokens != nullptr && tokens->size() == kLlama3Tokens;
  return Pretokenizer::Named(llama3 ? "llama-bpe" : "default");
}

// Text may become these; special pieces are matched before, or not at all.
bool IsText(TokenKind kind) { return kind == TokenKind::kNormal || kind == TokenKind::kUnused; }

}  // namespace

BpeTokenizer::BpeTokenizer(const gguf::Metadata& metadata)
    : BpeTokenizer(metadata, LoadPretokenizer(metadata)) {}

BpeTokenizer::BpeTokenizer(const gguf::Metadata& metadata,
                           std::unique_ptr<const Pretokenizer> pretokenizer)
    : Tokenizer(metadata, {.adds_bos = pretokenizer->adds_bos()}),
      pretokenizer_(std::move(pretokenizer)) {
  LoadBytes();
  LoadMerges(metadata);
  const auto has_token = [](Symbol symbol) { return symbol >= 0; };
  if (!std::all_of(byte_symbols_.begin(), byte_symbols_.end(), has_token)) return;
  for (const std::string& bytes : bytes_) {
    max_bytes_per_token_ = std::max(max_bytes_per_token_, bytes.size());
  }
}

void BpeTokenizer::LoadBytes() {
  bytes_.reserve(pieces_.size());
  for (size_t i = 0; i < pieces_.size(); ++i) {
    std::optional<std::string> bytes;
    if (IsText(kinds_[i])) bytes = Alphabet().Bytes(pieces_[i]);
    bytes_.push_back(bytes ? std::move(*bytes) : pieces_[i]);
  }
  words_ = std::make_unique<StringIndex>(pieces_.size());
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (IsText(kinds_[i])) words_->Insert(bytes_[i], static_cast<TokenId>(i));
  }
}

void BpeTokenizer::LoadMerges(const gguf::Metadata& metadata) {
  const std::vector<std::string>* merges = metadata.FindStrings(kMergesKey);
  if (merges == nullptr) {
    throw gguf::FormatError("metadata key " + std::string(kMergesKey) +
                            " is missing, expected an array of strings");
  }
  if (merges->size() > kMaxMerges) {
    throw gguf::FormatError(std::string(kMergesKey) + " has " + std::to_string(merges->size()) +
                            " entries, expected at most " + std::to_string(kMaxMerges));
  }

  std::unordered_map<std::string, Symbol> without_token;
  const auto symbol_of = [&](std::string_view part) -> Symbol {
    const std::optional<TokenId> token = Find(part);
    if (token && IsText(kind(*token))) return *token;
    const auto next = static_cast<Symbol>(-2 - static_cast<Symbol>(no_token_.size()));
    const auto [entry, added] = without_token.try_emplace(std::string(part), next);
    if (added) no_token_.push_back(Alphabet().Bytes(part).value_or(std::string(part)));
    return entry->second;
  };
  for (size_t byte = 0; byte < 256; ++byte) {
    byte_symbols_[byte] = symbol_of(Alphabet().Character(byte));
  }

  merges_ = MergeTable(merges->size());
  std::string joined;
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = (*merges)[i];
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      throw gguf::FormatError(std::string(kMergesKey) + "[" + std::to_string(i) +
                              "] is not two pieces with a space between them");
    }
    joined.assign(merge.substr(0, space));
    joined.append(merge.substr(space + 1));
    const Symbol left = symbol_of(merge.substr(0, space));
    const Symbol right = symbol_of(merge.substr(space + 1));
    merges_.Add(left, right, static_cast<uint32_t>(i), symbol_of(joined));
  }
}

void BpeTokenizer::EncodeText(std::string_view text, std::vector<TokenId>* out) const {
  std::vector<Symbol> symbols;
  WordCache cache(text.size());
  const auto word = [&](std::string_view bytes) {
    if (cache.Append(bytes, out)) return;
    const size_t first = out->size();
    EncodeWord(bytes, &symbols, out);
    cache.Remember(bytes, first, *out);
  };
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    pretokenizer_->Split(text.substr(0, valid), word);
    text.remove_prefix(valid);
    if (text.empty()) break;
    const size_t invalid = NextUtf8(text).length;
    AppendBytes(text.substr(0, invalid), out);
    text.remove_prefix(invalid);
  }
}

void BpeTokenizer::EncodeWord(std::string_view word, std::vector<Symbol>* symbols,
                              std::vector<TokenId>* out) const {
  if (pretokenizer_->ignores_merges()) {
    if (const std::optional<TokenId> token = words_->Find(word)) {
      out->push_back(*token);
      return;
    }
  }
  symbols->clear();
  for (const char byte : word) symbols->push_back(byte_symbols_[static_cast<uint8_t>(byte)]);
  merges_.Apply(symbols);
  for (const Symbol symbol : *symbols) {
    if (symbol >= 0) {
      out->push_back(symbol);
    } else {
      AppendBytes(no_token_[static_cast<size_t>(-2 - symbol)], out);
    }
  }
}

// The tokens of single bytes. A byte that has none can't be said in this vocabulary: U+FFFD is said
// in its place, as far as there are tokens for that.
void BpeTokenizer::AppendBytes(std::string_view bytes, std::vector<TokenId>* out) const {
  for (const char byte : bytes) {
    const Symbol symbol = byte_symbols_[static_cast<uint8_t>(byte)];
    if (symbol >= 0) {
      out->push_back(symbol);
      continue;
    }
    for (const char part : kReplacementCharacter) {
      const Symbol replacement = byte_symbols_[static_cast<uint8_t>(part)];
      if (replacement >= 0) out->push_back(replacement);
    }
  }
}

std::string BpeTokenizer::TokenBytes(TokenId token, bool special) const {
  const TokenKind token_kind = kind(token);
  const bool hidden = token_kind == TokenKind::kControl || token_kind == TokenKind::kUnknown;
  if (token < 0 || static_cast<size_t>(token) >= bytes_.size() || (hidden && !special)) return {};
  return bytes_[static_cast<size_t>(token)];
}

}  // namespace engine::text
