#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/vector_ops.h"

namespace engine {

// A block of KV storage: `block_size` consecutive token positions, all layers. The scheduler counts
// blocks; the engine owns their bytes.
using BlockId = uint32_t;

using KvType = fabric::KvElement;

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
};

}  // namespace engine
