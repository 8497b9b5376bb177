#include "scheduler/block_tables.h"

#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace scheduler {

BlockTables::BlockTables(const Options& options)
    : pool_(options.capacity),
      slots_(options.swap_slots),
      geometry_(options.geometry),
      block_size_(options.geometry.block_size),
      most_row_tokens_(options.most_row_tokens) {
  if (options.prefix_cache) {
    cache_.emplace(options.capacity, block_size_, options.cache_key);
    evicted_.reserve(options.capacity);
  }
}

BlockId BlockTables::Allocate() {
  if (pool_.free() == 0) Evict();
  return *pool_.Allocate();
}

void BlockTables::Evict() {
  evicted_.clear();
  cache_->EvictOldest(&evicted_);
  evictions_ += evicted_.size();
  for (const BlockId block : evicted_) pool_.Free(block);
}

void BlockTables::Refer(BlockId block) {
  if (pool_.references(block) == 0) cache_->SetUsed(block);
  pool_.AddReference(block);
}

void BlockTables::ReleaseBlock(BlockId block) {
  if (!pool_.Release(block)) return;
  if (Known(block)) {
    cache_->SetIdle(block);
  } else {
    pool_.Free(block);
  }
}

bool BlockTables::MustCopy(const Sequence& sequence) const {
  const size_t index = sequence.num_computed / block_size_;
  if (index >= sequence.blocks.size()) return false;
  const BlockId block = sequence.blocks[index];
  return pool_.references(block) > 1 || Known(block);
}

uint32_t BlockTables::Missing(const Sequence& sequence, uint32_t end) const {
  const auto held = static_cast<uint32_t>(sequence.blocks.size());
  const uint32_t needed = BlocksFor(end);
  const uint32_t grown = needed > held ? needed - held : 0;
  return grown + (MustCopy(sequence) ? 1 : 0);
}

uint32_t BlockTables::MissingOnTheWay(const Sequence& sequence, uint32_t end) const {
  const uint32_t missing = Missing(sequence, end);
  const uint32_t most = geometry_.MostBlocks(end, most_row_tokens_);
  const uint32_t held = sequence.held_blocks();
  return std::min(missing, (most > held ? most - held : 0) + (MustCopy(sequence) ? 1 : 0));
}

uint32_t BlockTables::MostRowTokens(const engine::KvGeometry& geometry, uint32_t capacity,
                                    uint32_t context, uint32_t limit) {
  uint32_t row = limit;
  while (row > 1 && geometry.MostBlocks(context, row) > capacity) --row;
  return row;
}

uint32_t BlockTables::HoleEnd(uint32_t tokens) const {
  return std::max(BlocksFor(geometry_.window.sinks), geometry_.window.Begin(tokens) / block_size_);
}

void BlockTables::DropUnseen(Sequence& sequence) {
  if (!windowed()) return;
  const uint32_t begin = BlocksFor(geometry_.window.sinks);
  const uint32_t end = HoleEnd(sequence.num_computed);
  if (end == begin) return;
  for (uint32_t i = std::max(begin, sequence.hole_end); i < end; ++i) {
    ReleaseBlock(sequence.blocks[i]);
    sequence.blocks[i] = 0;
  }
  sequence.hole_begin = begin;
  sequence.hole_end = end;
}

void BlockTables::Extend(Sequence& sequence, uint32_t end, std::vector<BlockMove>* moves) {
  assert(end > sequence.num_computed && Missing(sequence, end) <= available());
  const uint32_t needed = BlocksFor(end);
  sequence.blocks.reserve(needed);
  moves->reserve(moves->size() + 1);
  if (MustCopy(sequence)) {
    BlockId& block = sequence.blocks[sequence.num_computed / block_size_];
    const BlockId copy = Allocate();
    moves->push_back({BlockMove::Kind::kCopy, block, copy});
    ReleaseBlock(block);
    block = copy;
  }
  while (sequence.blocks.size() < needed) sequence.blocks.push_back(Allocate());
}

bool BlockTables::CanShare(const Sequence& from, uint32_t tokens) const {
  return from.num_computed >= tokens && (!windowed() || from.hole_end <= HoleEnd(tokens));
}

void BlockTables::Share(const Sequence& from, Sequence& to, uint32_t tokens) {
  assert(to.blocks.empty() && CanShare(from, tokens));
  const uint32_t blocks = BlocksFor(tokens);
  to.blocks.assign(from.blocks.begin(), from.blocks.begin() + blocks);
  to.hole_begin = from.hole_begin;
  to.hole_end = from.hole_end;
  for (size_t i = 0; i < to.blocks.size(); ++i) {
    if (to.Holds(i)) pool_.AddReference(to.blocks[i]);
  }
  to.num_computed = tokens;
  to.indexed_blocks = std::min(from.indexed_blocks, tokens / block_size_);
  DropUnseen(to);
}

void BlockTables::Adopt(Sequence& sequence, bool whole_blocks_only) {
  assert(sequence.blocks.empty());
  if (!cache_) return;
  const std::span<const engine::TokenId> tokens = sequence.tokens;
  PrefixCache::Match match = cache_->Find(sequence.cache_space, tokens.first(tokens.size() - 1));
  if (whole_blocks_only && match.tokens % block_size_ != 0) {
    match.tokens -= match.tokens % block_size_;
    match.blocks.pop_back();
  }
  const uint32_t begin = BlocksFor(geometry_.window.sinks);
  const uint32_t end = HoleEnd(match.tokens);
  sequence.blocks = std::move(match.blocks);
  if (windowed() && end > begin) {
    sequence.hole_begin = begin;
    sequence.hole_end = end;
    std::fill(sequence.blocks.begin() + begin, sequence.blocks.begin() + end, 0);
  }
  for (size_t i = 0; i < sequence.blocks.size(); ++i) {
    if (sequence.Holds(i)) Refer(sequence.blocks[i]);
  }
  sequence.num_computed = match.tokens;
  sequence.indexed_blocks = match.tokens / block_size_;
}

void BlockTables::Index(Sequence& sequence) {
  if (!cache_) return;
  while ((sequence.indexed_blocks + 1) * block_size_ <= sequence.num_computed) {
    const size_t index = sequence.indexed_blocks;
    // What was given back cannot be told any more, nor what hangs on it.
    if (!sequence.Holds(index) || (index > 0 && !sequence.Holds(index - 1))) return;
    BlockId& block = sequence.blocks[index];
    const auto parent = index == 0 ? std::nullopt : std::optional(sequence.blocks[index - 1]);
    const auto known = cache_->InsertFull(
        sequence.cache_space, parent,
        std::span(sequence.tokens).subspan(index * block_size_, block_size_), block);
    if (!known) return;
    if (*known != block) {
      Refer(*known);
      ReleaseBlock(block);
      block = *known;
    }
    ++sequence.indexed_blocks;
  }
}

void BlockTables::IndexTail(const Sequence& sequence) {
  const uint32_t tail = sequence.num_computed % block_size_;
  const uint32_t index = sequence.num_computed / block_size_;
  if (!cache_ || tail == 0 || sequence.indexed_blocks != index) return;
  if (index > 0 && !sequence.Holds(index - 1)) return;
  const BlockId block = sequence.blocks[index];
  if (pool_.references(block) > 1) return;  // the other holder goes on writing it
  const auto parent = index == 0 ? std::nullopt : std::optional(sequence.blocks[index - 1]);
  cache_->InsertTail(sequence.cache_space, parent,
                     std::span(sequence.tokens).subspan(size_t{index} * block_size_, tail), block);
}

void BlockTables::Trim(Sequence& sequence) {
  const uint32_t needed = BlocksFor(sequence.num_computed);
  while (sequence.blocks.size() > needed) {
    ReleaseBlock(sequence.blocks.back());
    sequence.blocks.pop_back();
  }
}

void BlockTables::Release(Sequence& sequence, bool keep) {
  if (keep) IndexTail(sequence);
  // Last first: the free list hands out the front of a table first again, and the prefix cache
  // forgets the end of a prefix before its beginning.
  for (size_t i = sequence.blocks.size(); i-- > 0;) {
    if (sequence.Holds(i)) ReleaseBlock(sequence.blocks[i]);
  }
  sequence.blocks.clear();
  sequence.hole_begin = sequence.hole_end = 0;
  sequence.num_computed = 0;
  sequence.indexed_blocks = 0;
}

bool BlockTables::CanSwapOut(const Sequence& sequence) const {
  const uint32_t hole = sequence.hole_end - sequence.hole_begin;
  return sequence.num_computed > 0 && BlocksFor(sequence.num_computed) - hole <= slots_.free();
}

void BlockTables::SwapOut(Sequence& sequence, std::vector<BlockMove>* moves) {
  assert(CanSwapOut(sequence) && sequence.swap_slots.empty());
  const uint32_t blocks = BlocksFor(sequence.num_computed);
  sequence.swap_slots.reserve(blocks);
  moves->reserve(moves->size() + blocks);
  for (uint32_t i = 0; i < blocks; ++i) {
    if (!sequence.Holds(i)) continue;
    const BlockId slot = *slots_.Allocate();
    moves->push_back({BlockMove::Kind::kSwapOut, sequence.blocks[i], slot});
    sequence.swap_slots.push_back(slot);
  }
  sequence.swapped_tokens = sequence.num_computed;
  Release(sequence, true);
}

void BlockTables::SwapIn(Sequence& sequence, std::vector<BlockMove>* moves) {
  assert(!sequence.swap_slots.empty() && sequence.num_computed % block_size_ == 0);
  assert(!windowed() || sequence.blocks.empty());
  const uint32_t blocks = BlocksFor(sequence.swapped_tokens);
  sequence.blocks.reserve(blocks);
  moves->reserve(moves->size() + sequence.swap_slots.size());
  if (windowed() && HoleEnd(sequence.swapped_tokens) > BlocksFor(geometry_.window.sinks)) {
    sequence.hole_begin = BlocksFor(geometry_.window.sinks);
    sequence.hole_end = HoleEnd(sequence.swapped_tokens);
  }
  size_t slot = sequence.blocks.size();
  for (size_t i = sequence.blocks.size(); i < blocks; ++i) {
    sequence.num_computed = sequence.swapped_tokens;
    if (!sequence.Holds(i)) {
      sequence.blocks.push_back(0);
      continue;
    }
    const BlockId block = Allocate();
    moves->push_back({BlockMove::Kind::kSwapIn, sequence.swap_slots[slot++], block});
    sequence.blocks.push_back(block);
  }
  DropSwap(sequence);
}

void BlockTables::DropSwap(Sequence& sequence) {
  for (const BlockId slot : sequence.swap_slots) {
    slots_.Release(slot);
    slots_.Free(slot);
  }
  sequence.swap_slots.clear();
  sequence.swapped_tokens = 0;
}

std::optional<BlockId> BlockTables::RestoreOne(const PrefixCache::Entry& entry,
                                               std::optional<BlockId> parent) {
  if (pool_.free() == 0) return std::nullopt;
  const BlockId block = *pool_.Allocate();
  const bool full = entry.tokens.size() == block_size_;
  const bool added = full ? cache_->InsertFull(entry.space, parent, entry.tokens, block) == block
                          : cache_->InsertTail(entry.space, parent, entry.tokens, block);
  ReleaseBlock(block);
  return added ? std::optional(block) : std::nullopt;
}

std::vector<std::optional<BlockId>> BlockTables::Restore(
    const std::vector<PrefixCache::Entry>& entries) {
  std::vector<std::optional<BlockId>> blocks(entries.size());
  if (!cache_) return blocks;
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::optional<BlockId> place = entries[i].parent;
    const auto parent = place ? blocks[*place] : std::nullopt;
    if (!place || parent) blocks[i] = RestoreOne(entries[i], parent);
  }
  // As if they had just been used: ends of prefixes before their beginnings.
  for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
    if (!*block) continue;
    cache_->SetUsed(**block);
    cache_->SetIdle(**block);
  }
  return blocks;
}

void BlockTables::DropIdle() {
  while (cache_ && cache_->idle() > 0) Evict();
}

void BlockTables::CheckIntegrity() const {
  pool_.CheckIntegrity();
  slots_.CheckIntegrity();
  if (cache_) cache_->CheckIntegrity();
  if (pool_.idle() != (cache_ ? cache_->idle() : 0)) {
    std::fprintf(stderr, "BlockTables: %u blocks are idle, but the prefix cache knows %zu\n",
                 pool_.idle(), cache_ ? cache_->idle() : 0);
    std::abort();
  }
}

}  // namespace scheduler
