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
// Window: with a sliding window a sequence gives back the blocks between the sinks and
//         the window of its next position. So all tables that reach the same position hold the same
//         places of it, and what is given back stays in the prefix cache until its block is needed.
// Threads: one.
class BlockTables {
 public:
  struct Options {
    uint32_t capacity = 0;  // blocks
    engine::KvGeometry geometry = {};
    uint32_t most_row_tokens = 1;  // of a row that is no draft
    bool prefix_cache = false;
    SipKey cache_key = {};
    uint32_t swap_slots = 0;  // blocks that host memory holds
  };
  explicit BlockTables(const Options& options);

  // Blocks that can be had: free ones and those that only the prefix cache remembers.
  uint32_t available() const { return pool_.free() + pool_.idle(); }
  // Of these, what it takes to let `sequence` write positions [num_computed, end).
  uint32_t Missing(const Sequence& sequence, uint32_t end) const;
  // The same for going there in rows of most_row_tokens(), giving back on the way.
  uint32_t MissingOnTheWay(const Sequence& sequence, uint32_t end) const;
  // The longest row for which the pool has room beside all that one sequence sees. REQUIRES: the
  // pool holds geometry.MostBlocks(context, 1).
  static uint32_t MostRowTokens(const engine::KvGeometry& geometry, uint32_t capacity,
                                uint32_t context, uint32_t limit);

  // Makes [num_computed, end) writable; a copy that must run before the write is appended to
  // *moves. REQUIRES: Missing(sequence, end) <= available(), end > num_computed.
  void Extend(Sequence& sequence, uint32_t end, std::vector<BlockMove>* moves);

  // `from` has computed `tokens` positions and still holds what a sequence there sees.
  bool CanShare(const Sequence& from, uint32_t tokens) const;
  // `to` holds `tokens` computed positions in the blocks of `from`. REQUIRES: `to` has no blocks,
  // CanShare(), the first `tokens` tokens of both are equal.
  void Share(const Sequence& from, Sequence& to, uint32_t tokens);

  // The sequence holds what the prefix cache knows of its tokens, all but the last at most: its
  // logits are needed. REQUIRES: it has no blocks.
  void Adopt(Sequence& sequence, bool whole_blocks_only);
  // Tells the prefix cache of the blocks that the sequence has filled. A block that it knows
  // already replaces the sequence's own: equal tokens give equal bits.
  void Index(Sequence& sequence);

  // Gives back the blocks beyond what is computed: drafts that were not accepted.
  void Trim(Sequence& sequence);
  // Gives back what the sliding window has left behind.
  void DropUnseen(Sequence& sequence);

  // Drops the sequence's references; nothing of it is computed any more. With `keep`, the prefix
  // cache also learns of its last, partly filled block. REQUIRES with keep: the bytes of all
  // positions below num_computed are there.
  void Release(Sequence& sequence, bool keep);

  // Host memory has room for what the sequence has computed.
  bool CanSwapOut(const Sequence& sequence) const;
  // Release() after moving the bytes to host memory. REQUIRES: CanSwapOut().
  void SwapOut(Sequence& sequence, std::vector<BlockMove>* moves);
  // Brings back what the blocks that the sequence has adopted do not hold. REQUIRES: it was swapped
  // out, holds whole blocks only (none with a sliding window), and the missing ones are available.
  void SwapIn(Sequence& sequence, std::vector<BlockMove>* moves);
  // Gives the host memory of a swapped sequence back.
  void DropSwap(Sequence& sequence);

  // Makes the prefix cache know blocks whose bytes will come from elsewhere, parents before
  // children and both named by their place in `entries`. Returns the block of each; nullopt where
  // there is no free block or nothing to add.
  std::vector<std::optional<BlockId>> Restore(const std::vector<PrefixCache::Entry>& entries);
  // Forgets every block that no sequence refers to.
  void DropIdle();

  uint32_t BlocksFor(uint32_t tokens) const { return geometry_.BlocksFor(tokens); }
  bool windowed() const { return geometry_.window.tokens > 0; }
  uint32_t most_row_tokens() const { return most_row_tokens_; }
  const engine::KvGeometry& geometry() const { return geometry_; }
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
  // The end of the blocks that a sequence of `tokens` positions has no use for; they begin behind
  // the sinks.
  uint32_t HoleEnd(uint32_t tokens) const;
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
  engine::KvGeometry geometry_;
  uint32_t block_size_;
  uint32_t most_row_tokens_;
  uint64_t evictions_ = 0;
  std::vector<BlockId> evicted_;  // scratch
};

}  // namespace scheduler
