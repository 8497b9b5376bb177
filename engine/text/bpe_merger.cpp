#include "engine/text/bpe_merger.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <functional>
#include <queue>

namespace engine::text {
namespace {

constexpr uint32_t kNoMerge = ~uint32_t{0};
constexpr uint32_t kNone = ~uint32_t{0};

// Up to here a scan for the lowest rank beats a heap; almost every word is shorter.
constexpr size_t kShortWord = 48;

uint64_t Key(Symbol left, Symbol right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

}  // namespace

void MergeTable::Add(Symbol left, Symbol right, uint32_t rank, Symbol result) {
  assert(rank != kNoMerge);
  merges_.Insert(Key(left, right), uint64_t{rank} << 32 | static_cast<uint32_t>(result));
}

MergeTable::Merge MergeTable::Find(Symbol left, Symbol right) const {
  const uint64_t* found = merges_.Find(Key(left, right));
  if (found == nullptr) return {kNoMerge, 0};
  return {static_cast<uint32_t>(*found >> 32), static_cast<Symbol>(*found & 0xFFFFFFFFU)};
}

void MergeTable::Apply(std::vector<Symbol>* word) const {
  assert(word->size() < (size_t{1} << 31));
  if (word->size() <= kShortWord) {
    ApplyShort(word);
  } else {
    ApplyLong(word);
  }
}

void MergeTable::ApplyShort(std::vector<Symbol>* word) const {
  Symbol* symbols = word->data();
  size_t count = word->size();
  std::array<Merge, kShortWord> merges;  // merges[i]: of symbols i and i + 1
  for (size_t i = 0; i + 1 < count; ++i) merges[i] = Find(symbols[i], symbols[i + 1]);

  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == kNoMerge) break;
    symbols[best] = merges[best].result;
    std::copy(symbols + best + 2, symbols + count, symbols + best + 1);
    if (best + 2 < count) {
      std::copy(merges.begin() + best + 2, merges.begin() + count - 1, merges.begin() + best + 1);
    }
    --count;
    if (best > 0) merges[best - 1] = Find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) merges[best] = Find(symbols[best], symbols[best + 1]);
  }
  word->resize(count);
}

void MergeTable::ApplyLong(std::vector<Symbol>* word) const {
  // A doubly linked list over the word's positions. An entry of the heap is (rank, position of the
  // left symbol) in one number; it is out of date when the position's pair has another rank now.
  struct Node {
    uint32_t previous;
    uint32_t next;
    Merge merge;  // of this symbol and the next
  };
  const auto count = static_cast<uint32_t>(word->size());
  std::vector<Symbol>& symbols = *word;
  std::vector<Node> nodes(count);
  std::vector<uint64_t> entries;
  entries.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const bool last = i + 1 == count;
    nodes[i] = {i == 0 ? kNone : i - 1, last ? kNone : i + 1,
                last ? Merge{kNoMerge, 0} : Find(symbols[i], symbols[i + 1])};
    if (nodes[i].merge.rank != kNoMerge) entries.push_back(uint64_t{nodes[i].merge.rank} << 32 | i);
  }
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> heap(std::greater<>(),
                                                                            std::move(entries));
  const auto update = [&](uint32_t at) {
    Node& node = nodes[at];
    node.merge = node.next == kNone ? Merge{kNoMerge, 0} : Find(symbols[at], symbols[node.next]);
    if (node.merge.rank != kNoMerge) heap.push(uint64_t{node.merge.rank} << 32 | at);
  };

  while (!heap.empty()) {
    const auto rank = static_cast<uint32_t>(heap.top() >> 32);
    const auto at = static_cast<uint32_t>(heap.top());
    heap.pop();
    if (nodes[at].merge.rank != rank) continue;
    const uint32_t gone = nodes[at].next;
    symbols[at] = nodes[at].merge.result;
    nodes[at].next = nodes[gone].next;
    if (nodes[gone].next != kNone) nodes[nodes[gone].next].previous = at;
    nodes[gone].merge.rank = kNoMerge;
    update(at);
    if (nodes[at].previous != kNone) update(nodes[at].previous);
  }

  // The first symbol never goes away, so the list starts at 0 and only shrinks towards it.
  uint32_t kept = 0;
  for (uint32_t i = 0; i != kNone; i = nodes[i].next) symbols[kept++] = symbols[i];
  word->resize(kept);
}

}  // namespace engine::text
