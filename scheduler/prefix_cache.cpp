#include "scheduler/prefix_cache.h"

#include <algorithm>
#include <cassert>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>

namespace scheduler {
namespace {

using engine::TokenId;
using Tokens = std::span<const TokenId>;

uint32_t CommonPrefix(Tokens a, Tokens b) {
  const size_t limit = std::min(a.size(), b.size());
  size_t count = 0;
  while (count < limit && a[count] == b[count]) ++count;
  return static_cast<uint32_t>(count);
}

[[noreturn]] void Broken(const char* what, uint64_t block) {
  std::fprintf(stderr, "PrefixCache: %s (block %" PRIu64 ")\n", what, block);
  std::abort();
}

}  // namespace

PrefixCache::PrefixCache(uint32_t capacity, uint32_t block_size, const SipKey& key)
    : capacity_(capacity), block_size_(block_size), key_(key), nodes_(size_t{capacity} + 1) {
  nodes_[capacity_].before = nodes_[capacity_].after = capacity_;
  behind_.reserve(capacity_);
}

uint64_t PrefixCache::Hash(uint64_t parent, Tokens tokens) const {
  return SipHash(key_, {&parent, 1}, std::as_bytes(tokens));
}

std::optional<PrefixCache::NodeId> PrefixCache::FindFull(NodeId parent, Tokens tokens) const {
  const auto found = full_.find(Hash(nodes_[parent].hash, tokens));
  if (found == full_.end()) return std::nullopt;
  const Node& node = nodes_[found->second];
  const bool same = node.parent == parent && std::ranges::equal(node.tokens, tokens);
  return same ? std::optional(found->second) : std::nullopt;
}

size_t PrefixCache::PlaceOf(const Node& node, Tokens tokens) const {
  const auto place = std::lower_bound(
      node.children.begin(), node.children.end(), tokens, [&](NodeId child, Tokens value) {
        return std::ranges::lexicographical_compare(nodes_[child].tokens, value);
      });
  return static_cast<size_t>(place - node.children.begin());
}

// In ascending order the longest common beginning is with a neighbour.
std::pair<PrefixCache::NodeId, uint32_t> PrefixCache::BestChild(const Node& node,
                                                                Tokens tokens) const {
  std::pair<NodeId, uint32_t> best{0, 0};
  const size_t place = PlaceOf(node, tokens);
  for (const size_t index : {place, place - 1}) {
    if (index >= node.children.size()) continue;  // place - 1 wraps round at the first
    const NodeId child = node.children[index];
    const uint32_t common = CommonPrefix(nodes_[child].tokens, tokens);
    if (common > best.second) best = {child, common};
  }
  return best;
}

PrefixCache::Match PrefixCache::Find(std::string_view space, Tokens tokens) const {
  Match match;
  const auto root = roots_.find(space);
  if (root == roots_.end()) return match;
  NodeId node = root->second;
  while (tokens.size() >= block_size_) {
    const auto next = FindFull(node, tokens.first(block_size_));
    if (!next) break;
    node = *next;
    match.blocks.push_back(node);
    match.tokens += block_size_;
    tokens = tokens.subspan(block_size_);
  }
  const Tokens next_block = tokens.first(std::min<size_t>(tokens.size(), block_size_));
  const auto [child, common] = BestChild(nodes_[node], next_block);
  if (common == 0) return match;
  match.blocks.push_back(child);
  match.tokens += common;
  return match;
}

PrefixCache::NodeId PrefixCache::RootOf(std::string_view space) {
  if (const auto found = roots_.find(space); found != roots_.end()) return found->second;
  NodeId root = 0;
  if (free_roots_.empty()) {
    root = static_cast<NodeId>(nodes_.size());
    free_roots_.reserve(nodes_.size() - capacity_);
    nodes_.emplace_back();
    free_roots_.push_back(root);
  } else {
    root = free_roots_.back();
  }
  nodes_[root].space = space;
  roots_.emplace(space, root);
  free_roots_.pop_back();
  nodes_[root].known = true;
  nodes_[root].hash = SipHash(key_, {}, std::as_bytes(std::span(space)));
  return root;
}

std::optional<PrefixCache::NodeId> PrefixCache::ParentNode(std::string_view space,
                                                           std::optional<BlockId> parent) {
  if (!parent) return RootOf(space);
  const Node& node = nodes_[*parent];
  return node.known && node.tokens.size() == block_size_ ? std::optional(*parent) : std::nullopt;
}

std::optional<BlockId> PrefixCache::InsertFull(std::string_view space,
                                               std::optional<BlockId> parent, Tokens tokens,
                                               BlockId block) {
  assert(tokens.size() == block_size_);
  const auto node = ParentNode(space, parent);
  if (!node) return std::nullopt;
  if (const auto known = FindFull(*node, tokens)) return *known;
  const uint64_t hash = Hash(nodes_[*node].hash, tokens);
  if (nodes_[block].known || full_.contains(hash)) {
    DropRootWithoutChildren(*node);
    return std::nullopt;
  }
  Add(*node, hash, tokens, block);
  try {
    full_.emplace(hash, block);
  } catch (...) {
    std::erase(nodes_[*node].children, block);
    nodes_[block] = Node{};
    --size_;
    DropRootWithoutChildren(*node);
    throw;
  }
  return block;
}

bool PrefixCache::InsertTail(std::string_view space, std::optional<BlockId> parent, Tokens tokens,
                             BlockId block) {
  assert(!tokens.empty() && tokens.size() < block_size_);
  if (nodes_[block].known) return false;
  const auto node = ParentNode(space, parent);
  if (!node) return false;
  if (BestChild(nodes_[*node], tokens).second == tokens.size()) return false;
  Add(*node, 0, tokens, block);
  return true;
}

void PrefixCache::Add(NodeId parent, uint64_t hash, Tokens tokens, BlockId block) {
  Node& node = nodes_[block];
  node.tokens.assign(tokens.begin(), tokens.end());
  std::vector<NodeId>& siblings = nodes_[parent].children;
  const size_t place = PlaceOf(nodes_[parent], tokens);
  siblings.insert(siblings.begin() + static_cast<ptrdiff_t>(place), block);
  node.known = true;
  node.parent = parent;
  node.hash = hash;
  ++size_;
  if (place == 0) return;
  // A tail that the new block continues serves nobody any more: it goes first.
  Node& before = nodes_[siblings[place - 1]];
  const bool continued = CommonPrefix(before.tokens, tokens) == before.tokens.size();
  if (!continued || !before.idle) return;
  Unlink(siblings[place - 1]);
  LinkBefore(nodes_[capacity_].after, siblings[place - 1]);
}

void PrefixCache::LinkBefore(NodeId place, NodeId node) {
  nodes_[node].before = nodes_[place].before;
  nodes_[node].after = place;
  nodes_[nodes_[node].before].after = node;
  nodes_[place].before = node;
}

void PrefixCache::Unlink(NodeId node) {
  nodes_[nodes_[node].before].after = nodes_[node].after;
  nodes_[nodes_[node].after].before = nodes_[node].before;
}

void PrefixCache::SetIdle(BlockId block) {
  Node& node = nodes_[block];
  assert(node.known && !node.idle);
  LinkBefore(capacity_, block);
  node.idle = true;
  ++idle_;
}

void PrefixCache::SetUsed(BlockId block) {
  Node& node = nodes_[block];
  assert(node.known && node.idle);
  Unlink(block);
  node.idle = false;
  --idle_;
}

void PrefixCache::EvictOldest(std::vector<BlockId>* freed) {
  assert(idle_ > 0);
  const NodeId oldest = nodes_[capacity_].after;
  const NodeId parent = nodes_[oldest].parent;
  std::vector<NodeId>& siblings = nodes_[parent].children;
  siblings.erase(siblings.begin() +
                 static_cast<ptrdiff_t>(PlaceOf(nodes_[parent], nodes_[oldest].tokens)));
  // Chains are as long as contexts: no recursion.
  behind_.push_back(oldest);
  while (!behind_.empty()) {
    const NodeId node = behind_.back();
    behind_.pop_back();
    behind_.insert(behind_.end(), nodes_[node].children.begin(), nodes_[node].children.end());
    Forget(node, freed);
  }
  DropRootWithoutChildren(parent);
}

void PrefixCache::Forget(NodeId id, std::vector<BlockId>* freed) {
  Node& node = nodes_[id];
  if (node.idle) {
    SetUsed(id);
    freed->push_back(id);
  }
  if (node.tokens.size() == block_size_) full_.erase(node.hash);
  node = Node{};
  --size_;
}

void PrefixCache::DropRootWithoutChildren(NodeId id) {
  if (!IsRoot(id) || !nodes_[id].children.empty()) return;
  roots_.erase(nodes_[id].space);
  nodes_[id] = Node{};
  free_roots_.push_back(id);
}

std::vector<PrefixCache::Entry> PrefixCache::Entries() const {
  std::vector<Entry> entries;
  for (const auto& [space, root] : roots_) {
    std::vector<NodeId> open(nodes_[root].children.rbegin(), nodes_[root].children.rend());
    while (!open.empty()) {
      const NodeId id = open.back();
      open.pop_back();
      const Node& node = nodes_[id];
      const bool first = IsRoot(node.parent);
      entries.push_back({.block = id,
                         .parent = first ? std::nullopt : std::optional<BlockId>(node.parent),
                         .space = first ? space : std::string(),
                         .tokens = node.tokens});
      open.insert(open.end(), node.children.rbegin(), node.children.rend());
    }
  }
  return entries;
}

void PrefixCache::CheckIntegrity() const {
  size_t known = 0;
  size_t full = 0;
  for (NodeId id = 0; id < nodes_.size(); ++id) {
    const Node& node = nodes_[id];
    if (!node.known) continue;
    for (size_t i = 0; i < node.children.size(); ++i) {
      const Node& child = nodes_[node.children[i]];
      if (!child.known || child.parent != id) Broken("a child has another parent", id);
      if (i > 0 && !std::ranges::lexicographical_compare(nodes_[node.children[i - 1]].tokens,
                                                         child.tokens)) {
        Broken("children are not in order", id);
      }
    }
    if (IsRoot(id)) {
      if (node.children.empty()) Broken("a space without blocks stayed", id);
      continue;
    }
    ++known;
    const std::vector<NodeId>& siblings = nodes_[node.parent].children;
    if (!nodes_[node.parent].known ||
        std::find(siblings.begin(), siblings.end(), id) == siblings.end()) {
      Broken("a block cannot be reached", id);
    }
    if (node.tokens.size() == block_size_) {
      ++full;
      const auto found = full_.find(node.hash);
      if (found == full_.end() || found->second != id) Broken("a full block has no hash", id);
    } else if (!node.children.empty()) {
      Broken("a tail has children", id);
    }
    if (node.idle && nodes_[node.after].before != id) Broken("the idle circle is torn", id);
  }
  if (known != size_ || full != full_.size()) Broken("blocks are miscounted", known);
  const auto idle = static_cast<size_t>(
      std::count_if(nodes_.begin(), nodes_.end(), [](const Node& node) { return node.idle; }));
  size_t circle = 0;
  for (NodeId id = nodes_[capacity_].after; id != capacity_; id = nodes_[id].after) {
    if (!nodes_[id].idle) Broken("a block that is in use is in the idle circle", id);
    ++circle;
  }
  if (idle != idle_ || circle != idle_) Broken("idle blocks are miscounted", idle);
}

}  // namespace scheduler
