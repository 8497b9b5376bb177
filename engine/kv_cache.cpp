#include "engine/kv_cache.h"

#include <cstring>

#include "fabric/vector_ops.h"

namespace engine {

KvCache::KvCache(const KvGeometry& geometry, uint32_t blocks)
    : geometry_(geometry),
      blocks_(blocks),
      codes_(geometry.block_size * fabric::KvCodeBytes(geometry.type, geometry.head_dim)),
      head_(geometry.block_size * geometry.RowBytes()),
      half_(head_ * geometry.kv_heads),
      bytes_(size_t{geometry.layers} * blocks * 2 * half_) {}

void KvCache::Write(uint32_t layer, BlockId block, uint32_t offset, const float* keys,
                    const float* values) noexcept {
  const size_t head_dim = geometry_.head_dim;
  for (uint32_t head = 0; head < geometry_.kv_heads; ++head) {
    std::byte* bytes = bytes_.data() + Offset(layer, block, head);
    WriteRow(bytes, offset, keys + head * head_dim);
    WriteRow(bytes + half_, offset, values + head * head_dim);
  }
}

void KvCache::WriteRow(std::byte* head, uint32_t offset, const float* row) noexcept {
  const size_t dim = geometry_.head_dim;
  std::byte* codes = head + offset * fabric::KvCodeBytes(geometry_.type, dim);
  auto* scale = reinterpret_cast<uint16_t*>(head + codes_) + offset;
  switch (geometry_.type) {
    case KvType::kF32:
      std::memcpy(codes, row, dim * sizeof(float));
      break;
    case KvType::kF16:
      fabric::FloatsToHalves(row, dim, reinterpret_cast<uint16_t*>(codes));
      break;
    case KvType::kQ8:
      *scale = fabric::QuantizeKvQ8(row, dim, reinterpret_cast<int8_t*>(codes));
      break;
    case KvType::kT2:
      *scale = fabric::QuantizeKvT2(row, dim, reinterpret_cast<uint8_t*>(codes));
      break;
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
