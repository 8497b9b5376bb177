#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>

#include "fabric/vector_ops.h"

namespace engine {

// A block of KV storage: `block_size` consecutive token positions, all layers. The scheduler counts
// blocks; the engine owns their bytes.
using BlockId = uint32_t;

using KvType = fabric::KvElement;

// Sliding-window attention with sinks, for models that have no window of their own: the query at
// position p sees [0, sinks) and [Begin(p), p]. What it sees follows from its position alone, so
// neither chunks nor preemption change a bit; and Begin() is a multiple of
// fabric::kAttentionChunk, so that whole chunks come and go and `tokens` positions never lie in
// more than tokens / 16 blocks of 16.
//
//   0 sinks          Begin(p)              p
//   |--|- - - - - - -|---------------------|      p - Begin(p) is at least tokens - 16
//
struct AttentionWindow {
  uint32_t tokens = 0;  // most positions seen beside the sinks, the query's own included; 0 = all
  uint32_t sinks = 0;

  bool operator==(const AttentionWindow&) const = default;
  uint32_t Begin(uint32_t position) const {
    if (tokens == 0 || position < tokens) return 0;
    const uint32_t chunk = fabric::kAttentionChunk;
    return (position - tokens + chunk) / chunk * chunk;
  }
};

struct KvGeometry {
  uint32_t layers = 0;  // with keys and values
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t block_size = 16;  // tokens; a multiple of fabric::kAttentionChunk
  KvType type = KvType::kF16;
  // 0: keys and values are all that the model keeps of a sequence. Otherwise the most sequences
  // whose recurrent state there is room for; such a state exists at one position only, so blocks
  // cannot be shared, and a sequence that lost its slot computes everything again.
  uint32_t state_slots = 0;
  AttentionWindow window = {};

  bool recurrent() const { return state_slots > 0; }
  // Keys or values of one head and position, their scale included.
  size_t RowBytes() const {
    return fabric::KvCodeBytes(type, head_dim) + fabric::KvScaleBytes(type);
  }
  // K and V of one block over all layers.
  size_t BytesPerBlock() const { return size_t{2} * layers * kv_heads * block_size * RowBytes(); }
  // Blocks that hold `tokens` positions.
  uint32_t BlocksFor(uint64_t tokens) const {
    return static_cast<uint32_t>((tokens + block_size - 1) / block_size);
  }
  // Most blocks that a sequence of `tokens` positions needs at once when rows have up to `row`
  // positions: what is out of sight is given back.
  uint32_t MostBlocks(uint64_t tokens, uint32_t row) const {
    const uint32_t all = BlocksFor(tokens);
    if (window.tokens == 0) return all;
    // The window begins so far into a block at most.
    const uint64_t offset = block_size - std::gcd(block_size, fabric::kAttentionChunk);
    const uint64_t seen = (offset + window.tokens + row - 2) / block_size + 1;
    return static_cast<uint32_t>(std::min<uint64_t>(all, seen + BlocksFor(window.sinks)));
  }
};

}  // namespace engine
