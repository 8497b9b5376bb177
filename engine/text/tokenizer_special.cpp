#include "engine/text/tokenizer_special.h"

namespace engine::text {
namespace {

uint64_t Edge(uint64_t node, char byte) { return node << 8 | static_cast<uint8_t>(byte); }

}  // namespace

void SpecialMatcher::Add(std::string_view piece, TokenId token) {
  if (piece.empty()) return;
  starts_[static_cast<uint8_t>(piece[0])] = true;
  uint64_t node = 0;
  for (const char byte : piece) {
    if (edges_.Insert(Edge(node, byte), node_count_)) ++node_count_;
    node = *edges_.Find(Edge(node, byte));
  }
  tokens_.Insert(node, static_cast<uint64_t>(token));
}

std::optional<SpecialMatcher::Match> SpecialMatcher::Find(std::string_view text,
                                                          size_t from) const {
  if (node_count_ == 1) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<uint8_t>(text[begin])]) continue;
    std::optional<Match> longest;
    uint64_t node = 0;
    for (size_t end = begin; end < text.size(); ++end) {
      const uint64_t* next = edges_.Find(Edge(node, text[end]));
      if (next == nullptr) break;
      node = *next;
      if (const uint64_t* token = tokens_.Find(node)) {
        longest = Match{begin, end + 1 - begin, static_cast<TokenId>(*token)};
      }
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace engine::text
