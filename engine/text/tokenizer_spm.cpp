#include "engine/text/tokenizer_spm.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>

#include "engine/text/tokenizer_utf8.h"
#include "engine/text/tokenizer_word_cache.h"
#include "gguf/error.h"

namespace engine::text {
namespace {

constexpr std::string_view kScoresKey = "tokenizer.ggml.scores";
constexpr std::string_view kUnknownKey = "tokenizer.ggml.unknown_token_id";

// Symbols without a token: a code point, or past those a byte that is no valid UTF-8. -1 is not a
// symbol.
constexpr uint32_t kRawBytes = 0x110000;
Symbol RawSymbol(uint32_t code) { return -2 - static_cast<Symbol>(code); }
uint32_t RawCode(Symbol symbol) { return static_cast<uint32_t>(-2 - symbol); }

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

// The value of "<0x0A>"; nullopt for anything else.
std::optional<uint8_t> ByteOfPiece(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return std::nullopt;
  const int high = HexDigit(piece[3]);
  const int low = HexDigit(piece[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

// Equal scores get equal ranks, so that the leftmost of them is merged first; the highest score
// gets rank 0.
std::vector<uint32_t> RanksOfScores(const std::vector<double>& scores) {
  std::vector<double> distinct(scores);
  std::sort(distinct.begin(), distinct.end(), std::greater<>());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  std::vector<uint32_t> ranks;
  ranks.reserve(scores.size());
  for (const double score : scores) {
    const auto at = std::lower_bound(distinct.begin(), distinct.end(), score, std::greater<>());
    ranks.push_back(static_cast<uint32_t>(at - distinct.begin()));
  }
  return ranks;
}

std::vector<double> LoadScores(const gguf::Metadata& metadata, size_t count) {
  const std::optional<std::vector<double>> scores = metadata.FindFloats(kScoresKey);
  if (!scores) {
    throw gguf::FormatError("metadata key " + std::string(kScoresKey) +
                            " is missing, expected an array of floats");
  }
  if (scores->size() != count) {
    throw gguf::FormatError(std::string(kScoresKey) + " has " + std::to_string(scores->size()) +
                            " entries, expected " + std::to_string(count) +
                            " as in tokenizer.ggml.tokens");
  }
  for (size_t i = 0; i < count; ++i) {
    if (std::isnan((*scores)[i])) {
      throw gguf::FormatError(std::string(kScoresKey) + "[" + std::to_string(i) +
                              "] is not a number");
    }
  }
  return *scores;
}

// A space of the text is what U+2581 is in the pieces.
bool IsSpaceAt(std::string_view text, size_t at) {
  return text[at] == ' ' || text.substr(at, kSpacePiece.size()) == kSpacePiece;
}

}  // namespace

SpmTokenizer::SpmTokenizer(const gguf::Metadata& metadata)
    : Tokenizer(
          metadata,
          {.adds_bos = true, .bos_piece = "<s>", .eos_piece = "</s>", .escapes_spaces = true}),
      adds_space_prefix_(metadata.FindBool("tokenizer.ggml.add_space_prefix").value_or(true)) {
  LoadBytes();
  unknown_ = FindTokenId(metadata, kUnknownKey);
  if (!unknown_) {
    const auto at = std::find(kinds_.begin(), kinds_.end(), TokenKind::kUnknown);
    if (at != kinds_.end()) unknown_ = static_cast<TokenId>(at - kinds_.begin());
  }
  LoadMerges(metadata);
  const auto known = [](const std::optional<TokenId>& token) { return token.has_value(); };
  if (!std::all_of(byte_tokens_.begin(), byte_tokens_.end(), known)) return;
  // A space of a piece may stand for U+2581 in the text, so the stored form is the longest.
  for (const std::string& piece : pieces_) {
    max_bytes_per_token_ = std::max(max_bytes_per_token_, piece.size());
  }
}

void SpmTokenizer::LoadBytes() {
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (kinds_[i] != TokenKind::kByte) continue;
    const std::optional<uint8_t> byte = ByteOfPiece(pieces_[i]);
    if (!byte) {
      throw gguf::FormatError("tokenizer.ggml.tokens[" + std::to_string(i) +
                              "] is a byte token by its type, expected '<0x00>' to '<0xFF>'");
    }
    if (!byte_tokens_[*byte]) byte_tokens_[*byte] = static_cast<TokenId>(i);
  }
}

void SpmTokenizer::LoadMerges(const gguf::Metadata& metadata) {
  const std::vector<uint32_t> ranks = RanksOfScores(LoadScores(metadata, pieces_.size()));
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const std::string& piece = pieces_[i];
    if (kinds_[i] != TokenKind::kNormal || piece.empty()) continue;
    const Utf8Step step = NextUtf8(piece);
    if (step.valid && step.length == piece.size()) {
      char_tokens_.Insert(step.code, static_cast<uint64_t>(i));
    }
  }
  for (uint32_t code = 0; code < ascii_symbols_.size(); ++code) {
    const uint64_t* token = char_tokens_.Find(code == ' ' ? kSpaceCode : code);
    ascii_symbols_[code] =
        token != nullptr ? static_cast<Symbol>(*token) : RawSymbol(code == ' ' ? kSpaceCode : code);
  }
  AddMerges(ranks);
}

void SpmTokenizer::AddMerges(const std::vector<uint32_t>& ranks) {
  StringIndex normal(pieces_.size());
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (kinds_[i] == TokenKind::kNormal) normal.Insert(pieces_[i], static_cast<TokenId>(i));
  }
  std::vector<size_t> cuts;     // where the piece's characters begin
  std::vector<Symbol> symbols;  // of its characters
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const std::string_view piece = pieces_[i];
    if (kinds_[i] != TokenKind::kNormal || ValidUtf8Prefix(piece) != piece.size()) continue;
    if (normal.Find(piece) != static_cast<TokenId>(i)) continue;
    cuts.clear();
    symbols.clear();
    for (size_t at = 0; at < piece.size();) {
      const Utf8Step step = NextUtf8(piece.substr(at));
      cuts.push_back(at);
      symbols.push_back(CharSymbol(step.code));
      at += step.length;
    }
    const size_t count = cuts.size();
    for (size_t k = 1; k < count; ++k) {
      if (symbols[k] == CharSymbol(kSpaceCode)) {
        space_joins_.Insert(static_cast<uint32_t>(symbols[k - 1]), 1);
      }
      // A single character is a symbol with or without a token; longer parts need one.
      const auto left = k == 1 ? symbols[0] : normal.Find(piece.substr(0, cuts[k]));
      const auto right = k + 1 == count ? symbols[k] : normal.Find(piece.substr(cuts[k]));
      if (left && right) merges_.Add(*left, *right, ranks[i], static_cast<Symbol>(i));
    }
  }
}

Symbol SpmTokenizer::CharSymbol(uint32_t code) const {
  if (code < ascii_symbols_.size()) return ascii_symbols_[code];
  const uint64_t* token = char_tokens_.Find(code);
  return token != nullptr ? static_cast<Symbol>(*token) : RawSymbol(code);
}

// True when a piece may span the boundary before the space at text[space]. Elsewhere no merge can
// cross it, so the two sides are encoded apart: that makes words of a text.
bool SpmTokenizer::JoinsSpace(std::string_view text, size_t space) const {
  if (space_joins_.size() == 0) return false;
  size_t begin = space - 1;
  while (begin > 0 && space - begin < 4 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) {
    --begin;
  }
  const Utf8Step step = NextUtf8(text.substr(begin, space - begin));
  if (!step.valid || step.length != space - begin) return false;
  return space_joins_.Find(static_cast<uint32_t>(CharSymbol(step.code))) != nullptr;
}

size_t SpmTokenizer::ChunkEnd(std::string_view text, size_t begin) const {
  for (size_t at = begin + 1; at < text.size(); ++at) {
    const char byte = text[at];
    if (byte != ' ' && byte != kSpacePiece[0]) continue;
    if (IsSpaceAt(text, at) && !JoinsSpace(text, at)) return at;
  }
  return text.size();
}

void SpmTokenizer::EncodeText(std::string_view text, std::vector<TokenId>* out) const {
  std::vector<Symbol> word;
  WordCache cache(text.size());
  bool with_prefix = adds_space_prefix_;
  // The added space and a first space of the text may be one piece: they are one chunk then.
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = ChunkEnd(text, begin);
    const std::string_view chunk = text.substr(begin, end - begin);
    begin = end;
    if (!with_prefix && cache.Append(chunk, out)) continue;
    const size_t first = out->size();
    EncodeChunk(chunk, with_prefix, &word, out);
    if (!with_prefix) cache.Remember(chunk, first, *out);
    with_prefix = false;
  }
}

void SpmTokenizer::EncodeChunk(std::string_view chunk, bool with_prefix, std::vector<Symbol>* word,
                               std::vector<TokenId>* out) const {
  word->clear();
  if (with_prefix) word->push_back(ascii_symbols_[' ']);
  for (size_t at = 0; at < chunk.size();) {
    const auto byte = static_cast<uint8_t>(chunk[at]);
    if (byte < 0x80) {
      word->push_back(ascii_symbols_[byte]);
      ++at;
      continue;
    }
    const Utf8Step step = NextUtf8(chunk.substr(at));
    if (step.valid) {
      word->push_back(CharSymbol(step.code));
    } else {
      for (uint32_t i = 0; i < step.length; ++i) {
        word->push_back(RawSymbol(kRawBytes + static_cast<uint8_t>(chunk[at + i])));
      }
    }
    at += step.length;
  }

  merges_.Apply(word);
  const size_t chunk_begin = out->size();
  for (const Symbol symbol : *word) {
    if (symbol >= 0) {
      out->push_back(symbol);
    } else {
      AppendFallback(symbol, chunk_begin, out);
    }
  }
}

// Byte tokens where the vocabulary has them all, else one unknown token for a run of such symbols.
void SpmTokenizer::AppendFallback(Symbol symbol, size_t chunk_begin,
                                  std::vector<TokenId>* out) const {
  const uint32_t code = RawCode(symbol);
  std::string bytes;
  if (code >= kRawBytes) {
    bytes.push_back(static_cast<char>(code - kRawBytes));
  } else {
    AppendUtf8(code == kSpaceCode ? ' ' : code, &bytes);
  }
  const auto token_of = [&](char byte) { return byte_tokens_[static_cast<uint8_t>(byte)]; };
  if (std::all_of(bytes.begin(), bytes.end(), token_of)) {
    for (const char byte : bytes) out->push_back(*token_of(byte));
    return;
  }
  const bool repeated = out->size() > chunk_begin && out->back() == unknown_;
  if (unknown_ && !repeated) out->push_back(*unknown_);
}

std::string SpmTokenizer::TokenBytes(TokenId token, bool special) const {
  const std::string& bytes = piece(token);
  switch (kind(token)) {
    case TokenKind::kControl:
    case TokenKind::kUnknown:
      return special ? bytes : std::string();
    case TokenKind::kByte:
      return std::string(1, static_cast<char>(ByteOfPiece(bytes).value()));
    case TokenKind::kNormal:
    case TokenKind::kUserDefined:
    case TokenKind::kUnused:
      return WithSpaces(bytes);
  }
  return {};
}

}  // namespace engine::text
