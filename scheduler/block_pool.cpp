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
  assert(references_[block] > 0);
  ++references_[block];
}

bool BlockPool::Release(BlockId block) {
  assert(references_[block] > 0);
  if (--references_[block] > 0) return false;
  free_.push_back(block);
  return true;
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
  for (BlockId block = 0; block < capacity(); ++block) {
    if (references_[block] == 0 && !listed[block]) {
      std::fprintf(stderr, "BlockPool: block %u is neither referenced nor free\n", block);
      std::abort();
    }
  }
}

}  // namespace scheduler
