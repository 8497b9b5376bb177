#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "scheduler/block_move.h"
#include "scheduler/block_pool.h"
#include "scheduler/prefix_cache.h"
#include "scheduler/sequence.h"
#include "scheduler/siphash.h"

namespace scheduler {

// The block tables of all sequences over one pool: growing, sharing, copy-on-write, finding what
// was computed before, and swapping to host memory and back.
//
// Blocks: a block may be read by many sequences and is written only while one holds it and the
//         prefix cache does not know it. Sequences write at num_computed and upwards, so at most
//         one block of a table, the partly filled one that holds position num_computed, can be in
//         the way of a write.
// Threads: one.
class BlockTables {
 public:
  struct Options {
    uint32_t capacity = 0;    // blocks
    uint32_t block_size = 0;  // tokens
    bool prefix_cache = false;
    SipKey cache_key = {};
    uint32_t swap_slots = 0;  // blocks that host memory holds
  };
  explicit BlockTables(const Options& options);

  // Blocks that can be had: free ones and those that only the prefix cache remembers.
  uint32_t available() const { return pool_.free() + pool_.idle(); }
  // Of these, what it takes to let `sequence` write positions [num_computed, end).
  uint32_t Missing(const Sequence& sequence, uint32_t end) const;

  // Makes [num_computed, end) writable; a copy that must run before the write is appended to
  // *moves. REQUIRES: Missing(sequence, end) <= available(), end > num_computed.
  void Extend(Sequence& sequence, uint32_t end, std::vector<BlockMove>* moves);

  // `to` holds `tokens` computed positions in the blocks of `from`. REQUIRES: `to` has no blocks,
  // from.num_computed >= tokens, the first `tokens` tokens of both are equal.
  void Share(const Sequence& from, Sequence& to, uint32_t tokens);

  // The sequence holds what the prefix cache knows of its tokens, all but the last at most: its
  // logits are needed. REQUIRES: it has no blocks.
  void Adopt(Sequence& sequence, bool whole_blocks_only);
  // Tells the prefix cache of the blocks that the sequence has filled. A block that it knows
  // already replaces the sequence's own: equal tokens give equal bits.
  void Index(Sequence& sequence);

  // Gives back the blocks beyond what is computed: drafts that were not accepted.
  void Trim(Sequence& sequence);

  // Drops the sequence's references; nothing of it is computed any more. With `keep`, the prefix
  // cache also learns of its last, partly filled block. REQUIRES with keep: the bytes of all
  // positions below num_computed are there.
  void Release(Sequence& sequence, bool keep);

  // Host memory has room for what the sequence has computed.
  bool CanSwapOut(const Sequence& sequence) const;
  // Release() after moving the bytes to host memory. REQUIRES: CanSwapOut().
  void SwapOut(Sequence& sequence, std::vector<BlockMove>* moves);
  // Brings back what the blocks that the sequence has adopted do not hold. REQUIRES: it was swapped
  // out, holds whole blocks only, and the missing ones are available.
  void SwapIn(Sequence& sequence, std::vector<BlockMove>* moves);
  // Gives the host memory of a swapped sequence back.
  void DropSwap(Sequence& sequence);

  // Makes the prefix cache know blocks whose bytes will come from elsewhere, parents before
  // children and both named by their place in `entries`. Returns the block of each; nullopt where
  // there is no free block or nothing to add.
  std::vector<std::optional<BlockId>> Restore(const std::vector<PrefixCache::Entry>& entries);
  // Forgets every block that no sequence refers to.
  void DropIdle();

  uint32_t BlocksFor(uint32_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }
  uint32_t block_size() const { return block_size_; }
  const BlockPool& pool() const { return pool_; }
  const BlockPool& slots() const { return slots_; }
  const PrefixCache* cache() const { return cache_ ? &*cache_ : nullptr; }
  uint64_t evictions() const { return evictions_; }

  // Aborts with a message when blocks, slots or the index are inconsistent.
  void CheckIntegrity() const;

 private:
  // The block that holds position num_computed is there and is not this sequence's alone.
  bool MustCopy(const Sequence& sequence) const;
  bool Known(BlockId block) const { return cache_ && cache_->Contains(block); }
  BlockId Allocate();
  void Evict();
  std::optional<BlockId> RestoreOne(const PrefixCache::Entry& entry, std::optional<BlockId> parent);
  void Refer(BlockId block);
  void ReleaseBlock(BlockId block);
  void IndexTail(const Sequence& sequence);

  BlockPool pool_;
  BlockPool slots_;
  std::optional<PrefixCache> cache_;
  uint32_t block_size_;
  uint64_t evictions_ = 0;
  std::vector<BlockId> evicted_;  // scratch
};

}  // namespace scheduler
