// What is written is read back at its layer, block, head and position, rounded to the storage type,
// and nothing else is touched.

#include "engine/kv_cache.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "fabric/vector_ops.h"
#include "gguf/codec.h"

namespace engine {
namespace {

KvGeometry Geometry(KvType type) {
  return {.layers = 3, .kv_heads = 2, .head_dim = 4, .block_size = 16, .type = type};
}

float Read(const KvCache& cache, const void* head, const uint16_t* scales, uint32_t position,
           uint32_t d) {
  const size_t index = size_t{position} * cache.geometry().head_dim + d;
  switch (cache.geometry().type) {
    case KvType::kF32:
      return static_cast<const float*>(head)[index];
    case KvType::kF16:
      return gguf::HalfToFloat(static_cast<const uint16_t*>(head)[index]);
    case KvType::kQ8:
      return static_cast<float>(static_cast<const int8_t*>(head)[index]) *
             gguf::HalfToFloat(scales[position]);
    case KvType::kT2: {
      const auto* row = static_cast<const uint8_t*>(head) + size_t{position} * 4;
      const int code = (row[d / 4] >> (d % 4 * 2)) & 3;
      return static_cast<float>(code == 3 ? -1 : code) * gguf::HalfToFloat(scales[position]);
    }
  }
  return 0;
}

// A row of four as the type rounds it.
std::vector<float> Rounded(KvType type, const float* row) {
  std::vector<float> rounded;
  int8_t q8[4];
  uint8_t t2[4];
  const float q8_scale = gguf::HalfToFloat(fabric::QuantizeKvQ8(row, 4, q8));
  const float t2_scale = gguf::HalfToFloat(fabric::QuantizeKvT2(row, 4, t2));
  for (uint32_t i = 0; i < 4; ++i) {
    const int trit = (t2[0] >> (i * 2)) & 3;
    const float forms[] = {row[i], gguf::HalfToFloat(gguf::FloatToHalf(row[i])),
                           static_cast<float>(q8[i]) * q8_scale,
                           static_cast<float>(trit == 3 ? -1 : trit) * t2_scale};
    rounded.push_back(forms[static_cast<size_t>(type)]);
  }
  return rounded;
}

// A value that names its place, and that a half cannot hold exactly.
float Name(uint32_t layer, uint32_t block, uint32_t position, uint32_t i, bool value) {
  return static_cast<float>(layer * 1000 + block * 100 + position * 5 + i) + (value ? 0.5F : 0.0F) +
         0.0001F;
}

TEST(KvCache, KeepsEveryPositionApart) {
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8, KvType::kT2}) {
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
          const auto rounded = [&](bool value) {
            float row[4];
            for (uint32_t d = 0; d < 4; ++d) {
              row[d] = Name(layer, source, position, head * 4 + d, value);
            }
            return Rounded(type, row)[i % 4];
          };
          const bool scaled = type == KvType::kQ8 || type == KvType::kT2;
          EXPECT_EQ(Read(cache, cache.Keys(layer, block, head),
                         scaled ? cache.KeyScales(layer, block, head) : nullptr, position, i % 4),
                    rounded(false));
          EXPECT_EQ(Read(cache, cache.Values(layer, block, head),
                         scaled ? cache.ValueScales(layer, block, head) : nullptr, position, i % 4),
                    rounded(true));
        }
      }
    }
  }
}

}  // namespace
}  // namespace engine
