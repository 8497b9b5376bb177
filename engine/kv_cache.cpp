#include "engine/kv_cache.h"

#include <cstring>

#include "fabric/vector_ops.h"

namespace engine {

KvCache::KvCache(const KvGeometry& geometry, uint32_t blocks)
    : geometry_(geometry),
      blocks_(blocks),
      codes_(geometry.block_size * fabric::KvCodeBytes(geometry.type, geometry.head_dim)),
      rows_(geometry.block_size * geometry.RowBytes()),
      bytes_(size_t{geometry.layers} * geometry.kv_heads * blocks * 2 * rows_) {}

void KvCache::Write(uint32_t layer, BlockId block, uint32_t offset, const float* keys,
                    const float* values) noexcept {
  const size_t head_dim = geometry_.head_dim;
  for (uint32_t head = 0; head < geometry_.kv_heads; ++head) {
    std::byte* bytes = bytes_.data() + Offset(layer, block, head);
    WriteRow(bytes, offset, keys + head * head_dim);
    WriteRow(bytes + rows_, offset, values + head * head_dim);
  }
}

void KvCache::WriteRow(std::byte* rows, uint32_t offset, const float* row) noexcept {
  const size_t dim = geometry_.head_dim;
  std::byte* codes = rows + offset * fabric::KvCodeBytes(geometry_.type, dim);
  auto* scale = reinterpret_cast<uint16_t*>(rows + codes_) + offset;
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
  const size_t half = geometry_.kv_heads * rows_;
  for (uint32_t layer = 0; layer < geometry_.layers; ++layer, out += 2 * half) {
    for (uint32_t head = 0; head < geometry_.kv_heads; ++head) {
      std::memcpy(out + head * rows_, Keys(layer, block, head), rows_);
      std::memcpy(out + half + head * rows_, Values(layer, block, head), rows_);
    }
  }
}

void KvCache::LoadBlock(const std::byte* bytes, BlockId block) noexcept {
  const size_t half = geometry_.kv_heads * rows_;
  for (uint32_t layer = 0; layer < geometry_.layers; ++layer, bytes += 2 * half) {
    for (uint32_t head = 0; head < geometry_.kv_heads; ++head) {
      std::byte* rows = bytes_.data() + Offset(layer, block, head);
      std::memcpy(rows, bytes + head * rows_, rows_);
      std::memcpy(rows + rows_, bytes + half + head * rows_, rows_);
    }
  }
}

void KvCache::CopyBlock(BlockId from, BlockId to) noexcept {
  for (uint32_t layer = 0; layer < geometry_.layers; ++layer) {
    for (uint32_t head = 0; head < geometry_.kv_heads; ++head) {
      std::memcpy(bytes_.data() + Offset(layer, to, head), Keys(layer, from, head), 2 * rows_);
    }
  }
}

}  // namespace engine
