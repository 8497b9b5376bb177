#include "engine/text/grammar/token_trie.h"

#include <algorithm>

namespace engine::text::grammar {
namespace {

// Longer tokens are left out: no grammar needs them, and a depth has 16 bits.
constexpr size_t kMaxTokenBytes = 4096;

}  // namespace

TokenTrie::TokenTrie(const Tokenizer& tokenizer, std::span<const TokenId> shown)
    : root_children_(256, 0) {
  begins_.reserve(tokenizer.size() + 1);
  begins_.push_back(0);
  for (uint32_t id = 0; id < tokenizer.size(); ++id) {
    const auto token = static_cast<TokenId>(id);
    const bool shows = tokenizer.kind(token) != TokenKind::kUnknown;
    const bool special = std::find(shown.begin(), shown.end(), token) != shown.end();
    const std::string bytes = shows ? tokenizer.TokenBytes(token, special) : std::string();
    if (bytes.size() <= kMaxTokenBytes) bytes_ += bytes;
    begins_.push_back(static_cast<uint32_t>(bytes_.size()));
    if (begins_[id] != begins_[id + 1]) tokens_.push_back(token);
  }
  std::sort(tokens_.begin(), tokens_.end(), [this](TokenId a, TokenId b) {
    const int order = TokenBytes(a).compare(TokenBytes(b));
    return order != 0 ? order < 0 : a < b;
  });

  std::vector<uint32_t> path = {0};  // nodes from the root to where the last token ended
  nodes_.push_back({0, 0, 0, 0});
  std::string_view last;
  for (uint32_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view bytes = TokenBytes(tokens_[i]);
    const auto differ = std::mismatch(last.begin(), last.end(), bytes.begin(), bytes.end());
    const auto shared = static_cast<size_t>(differ.first - last.begin());
    while (path.size() > shared + 1) {
      nodes_[path.back()].end = static_cast<uint32_t>(nodes_.size());
      path.pop_back();
    }
    for (size_t depth = shared + 1; depth <= bytes.size(); ++depth) {
      path.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back(
          {0, i, static_cast<uint16_t>(depth), static_cast<uint8_t>(bytes[depth - 1])});
      if (depth == 1) root_children_[nodes_.back().byte] = path.back();
    }
    max_depth_ = std::max(max_depth_, static_cast<uint32_t>(bytes.size()));
    last = bytes;
  }
  for (const uint32_t node : path) nodes_[node].end = static_cast<uint32_t>(nodes_.size());
  nodes_.push_back({0, static_cast<uint32_t>(tokens_.size()), 0, 0});
}

std::string_view TokenTrie::TokenBytes(TokenId token) const {
  if (token < 0 || static_cast<uint32_t>(token) >= vocabulary()) return {};
  const auto id = static_cast<size_t>(token);
  return std::string_view(bytes_).substr(begins_[id], begins_[id + 1] - begins_[id]);
}

}  // namespace engine::text::grammar
