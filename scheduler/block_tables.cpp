#include "scheduler/block_tables.h"

#include <cassert>

namespace scheduler {

bool BlockTables::MustCopy(const Sequence& sequence) const {
  const size_t index = sequence.num_computed / block_size_;
  return index < sequence.blocks.size() && pool_.references(sequence.blocks[index]) > 1;
}

uint32_t BlockTables::Missing(const Sequence& sequence, uint32_t end) const {
  const auto held = static_cast<uint32_t>(sequence.blocks.size());
  const uint32_t needed = BlocksFor(end);
  const uint32_t grown = needed > held ? needed - held : 0;
  return grown + (MustCopy(sequence) ? 1 : 0);
}

void BlockTables::Extend(Sequence& sequence, uint32_t end, std::vector<BlockCopy>* copies) {
  assert(end > sequence.num_computed && Missing(sequence, end) <= pool_.free());
  if (MustCopy(sequence)) {
    BlockId& block = sequence.blocks[sequence.num_computed / block_size_];
    const BlockId copy = *pool_.Allocate();
    copies->push_back({block, copy});
    pool_.Release(block);
    block = copy;
  }
  const uint32_t needed = BlocksFor(end);
  while (sequence.blocks.size() < needed) sequence.blocks.push_back(*pool_.Allocate());
}

void BlockTables::Share(const Sequence& from, Sequence& to, uint32_t tokens) {
  assert(to.blocks.empty() && from.num_computed >= tokens);
  const uint32_t blocks = BlocksFor(tokens);
  to.blocks.assign(from.blocks.begin(), from.blocks.begin() + blocks);
  for (const BlockId block : to.blocks) pool_.AddReference(block);
  to.num_computed = tokens;
}

void BlockTables::Release(Sequence& sequence) {
  // Last first, so that the free list hands out the front of a table first again.
  for (auto it = sequence.blocks.rbegin(); it != sequence.blocks.rend(); ++it) pool_.Release(*it);
  sequence.blocks.clear();
  sequence.num_computed = 0;
}

}  // namespace scheduler
