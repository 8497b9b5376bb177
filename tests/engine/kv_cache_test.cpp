// What is written is read back at its layer, block, head and position, rounded to the storage type,
// and nothing else is touched.

#include "engine/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "gguf/codec.h"

namespace engine {
namespace {

KvGeometry Geometry(KvType type) {
  return {.layers = 3, .kv_heads = 2, .head_dim = 4, .block_size = 16, .type = type};
}

float Read(const KvCache& cache, const void* head, uint32_t position, uint32_t d) {
  const size_t index = size_t{position} * cache.geometry().head_dim + d;
  if (cache.geometry().type == KvType::kF32) return static_cast<const float*>(head)[index];
  return gguf::HalfToFloat(static_cast<const uint16_t*>(head)[index]);
}

// A value that names its place, and that a half cannot hold exactly.
float Name(uint32_t layer, uint32_t block, uint32_t position, uint32_t i, bool value) {
  return static_cast<float>(layer * 1000 + block * 100 + position * 5 + i) + (value ? 0.5F : 0.0F) +
         0.0001F;
}

TEST(KvCache, KeepsEveryPositionApart) {
  for (const KvType type : {KvType::kF32, KvType::kF16}) {
    KvCache cache(Geometry(type), 4);
    EXPECT_EQ(cache.bytes(), cache.geometry().BytesPerBlock() * 4);
    for (uint32_t layer = 0; layer < 3; ++layer) {
      for (BlockId block = 0; block < 4; ++block) {
        for (uint32_t position = 0; position < 16; ++position) {
          std::vector<float> keys(8);
          std::vector<float> values(8);
          for (uint32_t i = 0; i < 8; ++i) {
            keys[i] = Name(layer, block, position, i, false);
            values[i] = Name(layer, block, position, i, true);
          }
          cache.Write(layer, block, position, keys.data(), values.data());
        }
      }
    }
    cache.CopyBlock(1, 3);
    for (uint32_t layer = 0; layer < 3; ++layer) {
      for (BlockId block = 0; block < 4; ++block) {
        const BlockId source = block == 3 ? 1 : block;
        for (uint32_t i = 0; i < 8 * 16; ++i) {
          const uint32_t position = i / 8;
          const uint32_t head = i % 8 / 4;
          const auto rounded = [&](float x) {
            return type == KvType::kF32 ? x : gguf::HalfToFloat(gguf::FloatToHalf(x));
          };
          EXPECT_EQ(Read(cache, cache.Keys(layer, block, head), position, i % 4),
                    rounded(Name(layer, source, position, i % 8, false)));
          EXPECT_EQ(Read(cache, cache.Values(layer, block, head), position, i % 4),
                    rounded(Name(layer, source, position, i % 8, true)));
        }
      }
    }
  }
}

}  // namespace
}  // namespace engine
