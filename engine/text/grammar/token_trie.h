#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"
#include "engine/token.h"

namespace engine::text::grammar {

// The bytes of all tokens of a vocabulary as a trie in one array, in depth-first order. Tokens
// without bytes (control tokens, but for those that are shown) are not in it.
//
// Threads: immutable.
class TokenTrie {
 public:
  // 12 bytes; a walk reads them from front to back.
  struct Node {
    uint32_t end;          // the first node that is not below this one
    uint32_t first_token;  // into tokens(); the node's own end where the next node's begin
    uint16_t depth;        // bytes from the root; 0 only at the root
    uint8_t byte;
  };

  // shown: control tokens that stand for their names, because texts of the grammar contain them.
  explicit TokenTrie(const Tokenizer& tokenizer, std::span<const TokenId> shown = {});

  // Node 0 is the root; a last one, below nothing, ends the array.
  std::span<const Node> nodes() const { return nodes_; }
  uint32_t size() const { return static_cast<uint32_t>(nodes_.size() - 1); }
  // By their bytes, so that the tokens below a node are consecutive.
  std::span<const TokenId> tokens() const { return tokens_; }
  uint32_t max_depth() const { return max_depth_; }
  // The child of the root for a byte; 0 when there is none.
  uint32_t RootChild(uint8_t byte) const { return root_children_[byte]; }

  uint32_t vocabulary() const { return static_cast<uint32_t>(begins_.size() - 1); }
  size_t mask_words() const { return (vocabulary() + 63) / 64; }
  // Empty for tokens that show nothing, and for ids outside the vocabulary.
  std::string_view TokenBytes(TokenId token) const;

 private:
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;
  std::vector<uint32_t> root_children_;
  std::vector<uint32_t> begins_;  // of each token's bytes
  std::string bytes_;
  uint32_t max_depth_ = 0;
};

}  // namespace engine::text::grammar
