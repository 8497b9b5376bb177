#include "engine/text/tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "engine/errors.h"
#include "engine/text/tokenizer_bpe.h"
#include "engine/text/tokenizer_index.h"
#include "engine/text/tokenizer_special.h"
#include "engine/text/tokenizer_spm.h"
#include "engine/text/tokenizer_utf8.h"
#include "gguf/error.h"

namespace engine::text {
namespace {

constexpr std::string_view kTokensKey = "tokenizer.ggml.tokens";
constexpr std::string_view kTypesKey = "tokenizer.ggml.token_type";

// Sixteen times the largest vocabulary in use, and its bytes; what is built from it takes up to
// sixty times as much memory.
constexpr size_t kMaxTokens = size_t{1} << 22;
constexpr size_t kMaxVocabularyBytes = size_t{1} << 25;
// The longest pieces in use are runs of 128 to 256 spaces or dashes.
constexpr size_t kMaxPieceBytes = 2048;
// Positions of symbols are 31 bits; a request body is far smaller.
constexpr size_t kMaxTextBytes = size_t{1} << 30;

// Pieces that end a turn or a text in the models of the field. They count when the vocabulary marks
// them as special, whatever the metadata names as EOS: a chat model that ends its turns with
// another token than EOS would never stop otherwise.
constexpr std::string_view kStopPieces[] = {
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
    "<|end_of_turn|>",
    "<EOT>",
    "[EOS]",
    "[EOT]",
    "<|return|>",
    "<|call|>",
    "<turn|>",
    "<end_of_utterance>",
};

std::vector<std::string> LoadPieces(const gguf::Metadata& metadata) {
  const std::vector<std::string>* tokens = metadata.FindStrings(kTokensKey);
  if (tokens == nullptr) {
    throw gguf::FormatError("metadata key " + std::string(kTokensKey) +
                            " is missing, expected an array of strings");
  }
  if (tokens->empty() || tokens->size() > kMaxTokens) {
    throw gguf::FormatError(std::string(kTokensKey) + " has " + std::to_string(tokens->size()) +
                            " entries, expected 1 to " + std::to_string(kMaxTokens));
  }
  size_t bytes = 0;
  for (size_t i = 0; i < tokens->size(); ++i) {
    bytes += (*tokens)[i].size();
    if ((*tokens)[i].size() > kMaxPieceBytes) {
      throw gguf::FormatError(std::string(kTokensKey) + "[" + std::to_string(i) + "] has " +
                              std::to_string((*tokens)[i].size()) + " bytes, expected at most " +
                              std::to_string(kMaxPieceBytes));
    }
  }
  if (bytes > kMaxVocabularyBytes) {
    throw gguf::FormatError(std::string(kTokensKey) + " has " + std::to_string(bytes) +
                            " bytes in all, expected at most " +
                            std::to_string(kMaxVocabularyBytes));
  }
  return *tokens;
}

// By the value in the file; 0 is "undefined" and was written for plain tokens.
std::optional<TokenKind> KindOf(int64_t type) {
  switch (type) {
    case 0:
    case 1:
      return TokenKind::kNormal;
    case 2:
      return TokenKind::kUnknown;
    case 3:
      return TokenKind::kControl;
    case 4:
      return TokenKind::kUserDefined;
    case 5:
      return TokenKind::kUnused;
    case 6:
      return TokenKind::kByte;
    default:
      return std::nullopt;
  }
}

std::vector<TokenKind> LoadKinds(const gguf::Metadata& metadata, size_t count) {
  std::vector<TokenKind> kinds(count, TokenKind::kNormal);
  const std::optional<std::vector<int64_t>> types = metadata.FindInts(kTypesKey);
  if (!types) return kinds;
  if (types->size() != count) {
    throw gguf::FormatError(std::string(kTypesKey) + " has " + std::to_string(types->size()) +
                            " entries, expected " + std::to_string(count) + " as in " +
                            std::string(kTokensKey));
  }
  for (size_t i = 0; i < count; ++i) {
    const std::optional<TokenKind> kind = KindOf((*types)[i]);
    if (!kind) {
      throw gguf::FormatError(std::string(kTypesKey) + "[" + std::to_string(i) + "] is " +
                              std::to_string((*types)[i]) + ", expected 0 to 6");
    }
    kinds[i] = *kind;
  }
  return kinds;
}

bool IsSpecial(TokenKind kind) {
  return kind == TokenKind::kControl || kind == TokenKind::kUserDefined ||
         kind == TokenKind::kUnknown;
}

std::shared_ptr<const StringIndex> MakeIndex(const std::vector<std::string>& pieces) {
  auto index = std::make_shared<StringIndex>(pieces.size());
  for (size_t i = 0; i < pieces.size(); ++i) index->Insert(pieces[i], static_cast<TokenId>(i));
  return index;
}

}  // namespace

std::unique_ptr<const Tokenizer> Tokenizer::FromMetadata(const gguf::Metadata& metadata) {
  const std::string& model = metadata.GetString("tokenizer.ggml.model");
  if (model == "llama") return std::make_unique<SpmTokenizer>(metadata);
  if (model == "gpt2") return std::make_unique<BpeTokenizer>(metadata);
  throw ModelError("tokenizer.ggml.model is '" + model +
                   "', expected 'llama' (SPM) or 'gpt2' (byte-level BPE)");
}

Tokenizer::Tokenizer(const gguf::Metadata& metadata, const Defaults& defaults)
    : pieces_(LoadPieces(metadata)),
      kinds_(LoadKinds(metadata, pieces_.size())),
      index_(MakeIndex(pieces_)),
      bos_(FindTokenId(metadata, "tokenizer.ggml.bos_token_id")),
      eos_(FindTokenId(metadata, "tokenizer.ggml.eos_token_id")) {
  const auto default_id = [&](std::string_view piece) -> std::optional<TokenId> {
    const std::optional<TokenId> id = Find(piece);
    return id && kind(*id) == TokenKind::kControl ? id : std::nullopt;
  };
  if (!bos_) bos_ = default_id(defaults.bos_piece);
  if (!eos_) eos_ = default_id(defaults.eos_piece);
  const auto eot = FindTokenId(metadata, "tokenizer.ggml.eot_token_id");
  const auto eom = FindTokenId(metadata, "tokenizer.ggml.eom_token_id");
  // A plain kind for a token that the metadata names would put its name into the text.
  for (const std::optional<TokenId>& id : {bos_, eos_, eot, eom}) {
    if (!id) continue;
    TokenKind& kind = kinds_[static_cast<size_t>(*id)];
    if (kind == TokenKind::kNormal || kind == TokenKind::kUnused) kind = TokenKind::kControl;
  }
  for (const std::optional<TokenId>& id : {eos_, eot, eom}) {
    if (id) stop_tokens_.push_back(*id);
  }
  for (const std::string_view piece : kStopPieces) {
    const std::optional<TokenId> id = Find(piece);
    if (id && (kind(*id) == TokenKind::kControl || kind(*id) == TokenKind::kUserDefined)) {
      stop_tokens_.push_back(*id);
    }
  }
  fim_ = FindFimTokens(metadata);
  std::sort(stop_tokens_.begin(), stop_tokens_.end());
  stop_tokens_.erase(std::unique(stop_tokens_.begin(), stop_tokens_.end()), stop_tokens_.end());

  adds_bos_ = metadata.FindBool("tokenizer.ggml.add_bos_token").value_or(defaults.adds_bos) && bos_;
  adds_eos_ = metadata.FindBool("tokenizer.ggml.add_eos_token").value_or(false) && eos_;

  auto all = std::make_shared<SpecialMatcher>();
  auto user_defined = std::make_shared<SpecialMatcher>();
  for (size_t i = 0; i < pieces_.size(); ++i) {
    if (!IsSpecial(kinds_[i])) continue;
    const bool by_user = kinds_[i] == TokenKind::kUserDefined;
    const std::string piece =
        by_user && defaults.escapes_spaces ? WithSpaces(pieces_[i]) : pieces_[i];
    all->Add(piece, static_cast<TokenId>(i));
    if (by_user) user_defined->Add(piece, static_cast<TokenId>(i));
  }
  all_specials_ = std::move(all);
  user_defined_ = std::move(user_defined);
}

std::optional<TokenId> Tokenizer::FindTokenId(const gguf::Metadata& metadata,
                                              std::string_view key) const {
  const gguf::MetadataValue* value = metadata.FindValue(key);
  if (value == nullptr) return std::nullopt;
  // Converters write -1, signed or not, for "none".
  const int64_t* as_signed = std::get_if<int64_t>(&value->value);
  if (as_signed != nullptr && *as_signed == -1) return std::nullopt;
  const uint64_t id = metadata.GetUint(key);
  if (id == std::numeric_limits<uint32_t>::max()) return std::nullopt;
  if (id >= size()) {
    throw gguf::FormatError(std::string(key) + " is " + std::to_string(id) +
                            ", expected a token id below " + std::to_string(size()));
  }
  return static_cast<TokenId>(id);
}

// What the metadata names counts; else the pieces of the models of the field, where the vocabulary
// marks them as special.
FimTokens Tokenizer::FindFimTokens(const gguf::Metadata& metadata) const {
  const auto find = [&](std::initializer_list<std::string_view> keys,
                        std::initializer_list<std::string_view> known) {
    for (const std::string_view key : keys) {
      if (const auto id = FindTokenId(metadata, "tokenizer.ggml." + std::string(key))) return id;
    }
    for (const std::string_view piece : known) {
      const std::optional<TokenId> id = Find(piece);
      if (id && IsSpecial(kind(*id))) return id;
    }
    return std::optional<TokenId>();
  };
  FimTokens fim;
  fim.prefix = find({"fim_pre_token_id", "prefix_token_id"},
                    {"<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "<｜fim▁begin｜>", "<PRE>",
                     "▁<PRE>", "<|code_prefix|>", "[PREFIX]"});
  fim.suffix = find({"fim_suf_token_id", "suffix_token_id"},
                    {"<|fim_suffix|>", "<fim_suffix>", "<fim-suffix>", "<｜fim▁hole｜>", "<SUF>",
                     "▁<SUF>", "<|code_suffix|>", "[SUFFIX]"});
  fim.middle = find({"fim_mid_token_id", "middle_token_id"},
                    {"<|fim_middle|>", "<fim_middle>", "<fim-middle>", "<｜fim▁end｜>", "<MID>",
                     "▁<MID>", "<|code_middle|>", "[MIDDLE]"});
  fim.repository = find({"fim_rep_token_id"}, {"<|repo_name|>", "<|fim_repo|>", "<reponame>"});
  fim.file = find({"fim_sep_token_id"}, {"<|file_sep|>", "<file_sep>", "<filename>"});
  fim.pad = find({"fim_pad_token_id"}, {"<|fim_pad|>", "<fim_pad>", "<fim-pad>", "<PAD>"});
  return fim;
}

std::vector<TokenId> Tokenizer::Encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    throw ModelError("the text has " + std::to_string(text.size()) + " bytes, expected at most " +
                     std::to_string(kMaxTextBytes));
  }
  std::vector<TokenId> tokens;
  tokens.reserve(text.size() / 4 + 8);
  if (options.add_special && adds_bos_) tokens.push_back(*bos_);

  const SpecialMatcher& specials = options.parse_special ? *all_specials_ : *user_defined_;
  size_t at = 0;
  while (at < text.size()) {
    const std::optional<SpecialMatcher::Match> match = specials.Find(text, at);
    const size_t end = match ? match->begin : text.size();
    if (end > at) EncodeText(text.substr(at, end - at), &tokens);
    if (match) tokens.push_back(match->token);
    at = match ? end + match->length : end;
  }

  if (options.add_special && adds_eos_) tokens.push_back(*eos_);
  return tokens;
}

uint64_t Tokenizer::LeastTokens(uint64_t text_bytes) const {
  if (max_bytes_per_token_ == 0) return 0;
  return (text_bytes + max_bytes_per_token_ - 1) / max_bytes_per_token_;
}

void Tokenizer::AppendText(TokenId token, bool special, bool* drop_space, std::string* out) const {
  const std::string bytes = TokenBytes(token, special);
  if (bytes.empty()) return;
  if (IsSpecial(kind(token))) {
    *drop_space = adds_space_prefix();
    out->append(bytes);
    return;
  }
  out->append(bytes, *drop_space && bytes[0] == ' ' ? 1 : 0);
  *drop_space = false;
}

std::string Tokenizer::Decode(std::span<const TokenId> tokens, bool special) const {
  std::string text;
  bool drop_space = adds_space_prefix();
  for (const TokenId token : tokens) AppendText(token, special, &drop_space, &text);
  return text;
}

TokenKind Tokenizer::kind(TokenId token) const {
  const auto i = static_cast<size_t>(token);
  return token >= 0 && i < kinds_.size() ? kinds_[i] : TokenKind::kUnused;
}

const std::string& Tokenizer::piece(TokenId token) const {
  static const std::string kNothing;
  const auto i = static_cast<size_t>(token);
  return token >= 0 && i < pieces_.size() ? pieces_[i] : kNothing;
}

std::optional<TokenId> Tokenizer::Find(std::string_view piece) const { return index_->Find(piece); }

bool Tokenizer::IsStop(TokenId token) const {
  return std::binary_search(stop_tokens_.begin(), stop_tokens_.end(), token);
}

}  // namespace engine::text
