#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/kv_geometry.h"
#include "fabric/aligned_buffer.h"

namespace engine {

// The bytes of all KV blocks. Which block belongs to whom is the scheduler's business.
//
// Layout:  [layers][kv_heads][blocks][K, V][codes [block_size][head_dim], scales [block_size]]:
// what
//          one query head reads of consecutive blocks is contiguous, because pieces of 8 KiB from
//          all over memory come at a third of the speed. Codes are those of fabric::KvElement;
//          only kQ8 and kT2 have scales.
// Threads: one writer per (layer, block, position); readers of other positions may run beside it.
class KvCache {
 public:
  // Errors: std::bad_alloc.
  KvCache(const KvGeometry& geometry, uint32_t blocks);

  const KvGeometry& geometry() const { return geometry_; }
  uint32_t blocks() const { return blocks_; }
  size_t bytes() const { return bytes_.size(); }

  // [block_size] rows of fabric::KvCodeBytes(), without their scales.
  const void* Keys(uint32_t layer, BlockId block, uint32_t kv_head) const {
    return bytes_.data() + Offset(layer, block, kv_head);
  }
  const void* Values(uint32_t layer, BlockId block, uint32_t kv_head) const {
    return bytes_.data() + Offset(layer, block, kv_head) + rows_;
  }
  // [block_size] halves. REQUIRES: the type has scales.
  const uint16_t* KeyScales(uint32_t layer, BlockId block, uint32_t kv_head) const {
    return ScalesOf(bytes_.data() + Offset(layer, block, kv_head));
  }
  const uint16_t* ValueScales(uint32_t layer, BlockId block, uint32_t kv_head) const {
    return ScalesOf(bytes_.data() + Offset(layer, block, kv_head) + rows_);
  }

  // Rounds one position's keys and values, [kv_heads, head_dim] each, to the storage type. Queries
  // read nothing else, so a token sees its own chunk as every later one does.
  void Write(uint32_t layer, BlockId block, uint32_t offset, const float* keys,
             const float* values) noexcept;

  // Bytes of a block to and from other memory of BytesPerBlock() bytes: [layers][K, V][kv_heads]
  // rows. Files hold this format.
  void SaveBlock(BlockId block, std::byte* out) const noexcept;
  void LoadBlock(const std::byte* bytes, BlockId block) noexcept;

  // Copies all layers of a block.
  void CopyBlock(BlockId from, BlockId to) noexcept;

 private:
  size_t Offset(uint32_t layer, BlockId block, uint32_t kv_head) const {
    return ((size_t{layer} * geometry_.kv_heads + kv_head) * blocks_ + block) * (2 * rows_);
  }

  const uint16_t* ScalesOf(const std::byte* rows) const {
    return reinterpret_cast<const uint16_t*>(rows + codes_);
  }
  // Rounds one row to the storage type.
  void WriteRow(std::byte* rows, uint32_t offset, const float* row) noexcept;

  KvGeometry geometry_;
  uint32_t blocks_;
  size_t codes_;  // bytes of the codes of one head's keys in a block
  size_t rows_;   // bytes of one head's keys in a block, scales included
  fabric::AlignedBuffer<std::byte> bytes_;
};

}  // namespace engine
