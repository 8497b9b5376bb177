#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/kv_geometry.h"

namespace scheduler {

using engine::BlockId;

// Accounting of KV blocks: a free list and a reference count per block. Knows no bytes.
//
//   free ──Allocate──► referenced ──last Release──► idle ──Free──► free
//                          ▲────────AddReference─────┘
//
// Idle blocks keep their content for the prefix cache; nobody refers to them.
//
// Invariant: free + idle + referenced == capacity; a block is on the free list only when its count
//            is 0.
// Threads:   one.
class BlockPool {
 public:
  explicit BlockPool(uint32_t capacity);

  // A block with one reference, or nullopt when none is free.
  std::optional<BlockId> Allocate();
  // REQUIRES: the block is referenced or idle.
  void AddReference(BlockId block);
  // Drops a reference. True when it was the last: the block is idle then.
  bool Release(BlockId block);
  // REQUIRES: the block is idle.
  void Free(BlockId block);

  uint32_t references(BlockId block) const { return references_[block]; }
  uint32_t capacity() const { return static_cast<uint32_t>(references_.size()); }
  uint32_t free() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t idle() const { return idle_; }
  uint32_t used() const { return capacity() - free() - idle_; }  // referenced

  // Aborts with a message when the invariant is broken (tests; idle server in debug builds).
  void CheckIntegrity() const;

 private:
  std::vector<BlockId> free_;
  std::vector<uint32_t> references_;
  uint32_t idle_ = 0;
};

}  // namespace scheduler
