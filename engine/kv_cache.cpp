#include "engine/kv_cache.h"

#include <cstring>

#include "fabric/vector_ops.h"

namespace engine {

KvCache::KvCache(const KvGeometry& geometry, uint32_t blocks)
    : geometry_(geometry),
      blocks_(blocks),
      head_(size_t{geometry.block_size} * geometry.head_dim * geometry.ElementBytes()),
      half_(head_ * geometry.kv_heads),
      bytes_(size_t{geometry.layers} * blocks * 2 * half_) {}

void KvCache::Write(uint32_t layer, BlockId block, uint32_t offset, const float* keys,
                    const float* values) noexcept {
  const size_t head_dim = geometry_.head_dim;
  const size_t row_bytes = head_dim * geometry_.ElementBytes();
  for (uint32_t head = 0; head < geometry_.kv_heads; ++head) {
    std::byte* key = bytes_.data() + Offset(layer, block, head) + offset * row_bytes;
    std::byte* value = key + half_;
    const float* key_row = keys + head * head_dim;
    const float* value_row = values + head * head_dim;
    if (geometry_.type == KvType::kF32) {
      std::memcpy(key, key_row, row_bytes);
      std::memcpy(value, value_row, row_bytes);
    } else {
      fabric::FloatsToHalves(key_row, head_dim, reinterpret_cast<uint16_t*>(key));
      fabric::FloatsToHalves(value_row, head_dim, reinterpret_cast<uint16_t*>(value));
    }
  }
}

void KvCache::SaveBlock(BlockId block, std::byte* out) const noexcept {
  for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
    std::memcpy(out + layer * 2 * half_, bytes_.data() + Offset(layer, block, 0), 2 * half_);
  }
}

void KvCache::LoadBlock(const std::byte* bytes, BlockId block) noexcept {
  for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
    std::memcpy(bytes_.data() + Offset(layer, block, 0), bytes + layer * 2 * half_, 2 * half_);
  }
}

void KvCache::CopyBlock(BlockId from, BlockId to) noexcept {
  for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
    std::memcpy(bytes_.data() + Offset(layer, to, 0), bytes_.data() + Offset(layer, from, 0),
                2 * half_);
  }
}

}  // namespace engine
