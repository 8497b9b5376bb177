#include "scheduler/block_pool.h"

#include <cassert>
#include <cstdio>
#include <cstdlib>

namespace scheduler {

BlockPool::BlockPool(uint32_t capacity) : references_(capacity, 0) {
  free_.reserve(capacity);
  // The lowest id is on top, so that a lightly used pool touches few pages of KV storage.
  for (uint32_t i = capacity; i > 0; --i) free_.push_back(i - 1);
}

std::optional<BlockId> BlockPool::Allocate() {
  if (free_.empty()) return std::nullopt;
  const BlockId block = free_.back();
  free_.pop_back();
  references_[block] = 1;
  return block;
}

void BlockPool::AddReference(BlockId block) {
  if (references_[block]++ == 0) --idle_;
}

bool BlockPool::Release(BlockId block) {
  assert(references_[block] > 0);
  if (--references_[block] > 0) return false;
  ++idle_;
  return true;
}

void BlockPool::Free(BlockId block) {
  assert(references_[block] == 0 && idle_ > 0);
  --idle_;
  free_.push_back(block);
}

void BlockPool::CheckIntegrity() const {
  std::vector<bool> listed(capacity(), false);
  for (const BlockId block : free_) {
    const bool good = block < capacity() && references_[block] == 0 && !listed[block];
    if (!good) {
      std::fprintf(stderr, "BlockPool: block %u is on the free list wrongly\n", block);
      std::abort();
    }
    listed[block] = true;
  }
  uint32_t unreferenced = 0;
  for (const uint32_t count : references_) unreferenced += count == 0 ? 1 : 0;
  if (unreferenced != free() + idle_) {
    std::fprintf(stderr, "BlockPool: %u blocks are unreferenced, but %u free and %u idle\n",
                 unreferenced, free(), idle_);
    std::abort();
  }
}

}  // namespace scheduler
