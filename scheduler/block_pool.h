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
// Invariant: free + referenced == capacity; a block is on the free list exactly when its count is
// 0. Threads:   one.
class BlockPool {
 public:
  explicit BlockPool(uint32_t capacity);

  // A block with one reference, or nullopt when none is free.
  std::optional<BlockId> Allocate();
  void AddReference(BlockId block);
  // Frees the block with its last reference; true when it did.
  bool Release(BlockId block);

  uint32_t references(BlockId block) const { return references_[block]; }
  uint32_t capacity() const { return static_cast<uint32_t>(references_.size()); }
  uint32_t free() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t used() const { return capacity() - free(); }

  // Aborts with a message when the invariant is broken (tests; idle server in debug builds).
  void CheckIntegrity() const;

 private:
  std::vector<BlockId> free_;
  std::vector<uint32_t> references_;
};

}  // namespace scheduler
