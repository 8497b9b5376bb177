#include "engine/text/detokenizer.h"

#include <algorithm>
#include <utility>

#include "engine/text/tokenizer_utf8.h"

namespace engine::text {
Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool special, bool drop_leading_space,
                         std::vector<TokenId> shown)
    : tokenizer_(tokenizer),
      special_(special),
      drop_leading_space_(drop_leading_space),
      shown_(std::move(shown)) {}

std::string Detokenizer::Push(TokenId token) {
  const bool special = special_ || std::find(shown_.begin(), shown_.end(), token) != shown_.end();
  tokenizer_.AppendText(token, special, &drop_leading_space_, &pending_);
  const size_t complete = CompleteUtf8Prefix(pending_);
  std::string text = SanitizeUtf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string Detokenizer::Flush() {
  std::string text = SanitizeUtf8(pending_);
  pending_.clear();
  return text;
}

size_t CompleteUtf8Prefix(std::string_view bytes) {
  // What is cut off begins with one of the last three bytes, and no earlier part of those can be
  // the start of a longer sequence: it would contain a byte that starts another.
  const size_t from = bytes.size() < 3 ? 0 : bytes.size() - 3;
  for (size_t at = from; at < bytes.size(); ++at) {
    const Utf8Step step = NextUtf8(bytes.substr(at));
    if (step.cut) return at;
  }
  return bytes.size();
}

std::string SanitizeUtf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t valid = ValidUtf8Prefix(bytes);
    text.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    text.append(kReplacementCharacter);
    bytes.remove_prefix(NextUtf8(bytes).length);
  }
  return text;
}

}  // namespace engine::text
