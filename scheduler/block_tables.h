#pragma once

#include <cstdint>
#include <vector>

#include "scheduler/block_pool.h"
#include "scheduler/scheduler.h"
#include "scheduler/sequence.h"

namespace scheduler {

// The block tables of all sequences over one pool: growing, sharing and copy-on-write.
//
// Blocks: a block may be read by many sequences and is written only while one holds it. Sequences
//         write at num_computed and upwards, so at most one block of a table, the partly filled one
//         that holds position num_computed, can be in the way of a write.
// Threads: one.
class BlockTables {
 public:
  BlockTables(uint32_t capacity, uint32_t block_size) : pool_(capacity), block_size_(block_size) {}

  // Free blocks that it takes to let `sequence` write positions [num_computed, end).
  uint32_t Missing(const Sequence& sequence, uint32_t end) const;

  // Makes [num_computed, end) writable; a copy that must run before the write is appended to
  // *copies. REQUIRES: Missing(sequence, end) <= pool().free(), end > num_computed.
  void Extend(Sequence& sequence, uint32_t end, std::vector<BlockCopy>* copies);

  // `to` holds `tokens` computed positions in the blocks of `from`. REQUIRES: `to` has no blocks,
  // from.num_computed >= tokens, the first `tokens` tokens of both are equal.
  void Share(const Sequence& from, Sequence& to, uint32_t tokens);

  // Drops the sequence's references; nothing of it is computed any more.
  void Release(Sequence& sequence);

  uint32_t BlocksFor(uint32_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }
  uint32_t block_size() const { return block_size_; }
  const BlockPool& pool() const { return pool_; }

 private:
  // The block that holds position num_computed is there and someone else reads it too.
  bool MustCopy(const Sequence& sequence) const;

  BlockPool pool_;
  uint32_t block_size_;
};

}  // namespace scheduler
