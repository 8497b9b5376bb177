#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/kv_geometry.h"
#include "engine/token.h"
#include "scheduler/siphash.h"

namespace scheduler {

using engine::BlockId;

// Which KV blocks hold which tokens, so that a prompt finds what was computed before.
//
//   space "a" ── [t0..t15] b4 ── [t16..t31] b9 ── [t32..t36] b2      a tail: fewer tokens
//                            └─── [t16'..t31'] b7
//
// A block is known by its tokens and by all tokens before it. A full block is found through a hash
// chain: its key is SipHash(key of its parent, its tokens). What is found is compared token for
// token, parent included, so a collision is a miss and never wrong keys and values. Where the chain
// ends, the child that begins with most of the next tokens serves these.
//
// Spaces:  blocks are found only in the space that they were put into (salt, adapters).
// Idle:    the owner says which blocks nobody refers to; the one that is idle for longest goes
//          first. Blocks that can be reached only through it go with it.
// Memory:  only Insert*() and Find() allocate; what they throw changes nothing.
// Threads: one.
class PrefixCache {
 public:
  PrefixCache(uint32_t capacity, uint32_t block_size, const SipKey& key);

  struct Match {
    std::vector<BlockId> blocks;  // all full but, perhaps, the last
    uint32_t tokens = 0;          // that they serve
  };
  // The longest known beginning of `tokens`.
  Match Find(std::string_view space, std::span<const engine::TokenId> tokens) const;

  // `block` holds `tokens` after what `parent` holds (nothing: after the beginning). Returns the
  // block that is known for them: this one, or an older with the same content. nullopt: the parent
  // is not known, or another content has the same hash. REQUIRES: a whole block of tokens.
  std::optional<BlockId> InsertFull(std::string_view space, std::optional<BlockId> parent,
                                    std::span<const engine::TokenId> tokens, BlockId block);
  // The same for less than a block. False when it adds nothing: a known block begins so.
  bool InsertTail(std::string_view space, std::optional<BlockId> parent,
                  std::span<const engine::TokenId> tokens, BlockId block);

  bool Contains(BlockId block) const { return nodes_[block].known; }
  // The last reference to a known block went, or the first came. SetIdle() makes it the youngest.
  void SetIdle(BlockId block);
  void SetUsed(BlockId block);

  // Forgets the block that is idle for longest, and what is behind it. The idle ones among them are
  // appended to *freed, at least one. REQUIRES: a block is idle; *freed has room for all blocks.
  void EvictOldest(std::vector<BlockId>* freed);

  size_t idle() const { return idle_; }
  size_t size() const { return size_; }  // known blocks

  // Known blocks, every parent before its children, with the space of the first ones.
  struct Entry {
    BlockId block = 0;
    std::optional<BlockId> parent;
    std::string space;
    std::vector<engine::TokenId> tokens;
  };
  std::vector<Entry> Entries() const;

  // Aborts with a message when the index is inconsistent.
  void CheckIntegrity() const;

 private:
  using NodeId = uint32_t;  // a block, or capacity + i for the root of a space

  struct Node {
    bool known = false;
    bool idle = false;
    NodeId parent = 0;
    uint64_t hash = 0;
    std::vector<engine::TokenId> tokens;
    std::vector<NodeId> children;  // ascending tokens
    NodeId before = 0;             // neighbours in the circle of idle blocks, when idle
    NodeId after = 0;
    std::string space;  // of a root
  };

  bool IsRoot(NodeId node) const { return node >= capacity_; }
  uint64_t Hash(uint64_t parent, std::span<const engine::TokenId> tokens) const;
  // The node that children of `parent` hang on, made when it is the root of a new space; nullopt:
  // the parent is not known, or its own block is not full.
  std::optional<NodeId> ParentNode(std::string_view space, std::optional<BlockId> parent);
  NodeId RootOf(std::string_view space);
  void Add(NodeId parent, uint64_t hash, std::span<const engine::TokenId> tokens, BlockId block);
  void DropRootWithoutChildren(NodeId node);
  void Forget(NodeId node, std::vector<BlockId>* freed);
  // Puts an idle block in front of `place` in the circle, or takes it out.
  void LinkBefore(NodeId place, NodeId node);
  void Unlink(NodeId node);
  // Where `tokens` stand, or would stand, among the children.
  size_t PlaceOf(const Node& node, std::span<const engine::TokenId> tokens) const;
  // The child that begins with most of `tokens`, and how many those are.
  std::pair<NodeId, uint32_t> BestChild(const Node& node,
                                        std::span<const engine::TokenId> tokens) const;
  std::optional<NodeId> FindFull(NodeId parent, std::span<const engine::TokenId> tokens) const;

  uint32_t capacity_;
  uint32_t block_size_;
  SipKey key_;
  std::vector<Node> nodes_;  // blocks, then roots
  std::unordered_map<uint64_t, NodeId> full_;
  std::map<std::string, NodeId, std::less<>> roots_;
  std::vector<NodeId> free_roots_;
  // The circle of idle blocks has its ends at nodes_[capacity_]: a root of no space. Links instead
  // of a list, because giving a block back must not need memory.
  size_t idle_ = 0;
  size_t size_ = 0;
  std::vector<NodeId> behind_;  // scratch, with room for all blocks
};

}  // namespace scheduler
