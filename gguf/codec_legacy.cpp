#include <algorithm>
#include <cmath>

#include "gguf/block_codec.h"
#include "gguf/bytes.h"

namespace gguf {
namespace {

constexpr int kBlock = 32;

// Q8_0: f16 d, i8 q[32];  w = d q.
void DecodeQ8_0(const uint8_t* blocks, uint64_t count, float* out) {
  constexpr int kBytes = 34;
  for (uint64_t b = 0; b < count; ++b, blocks += kBytes, out += kBlock) {
    const float d = LoadHalf(blocks);
    for (int i = 0; i < kBlock; ++i) {
      out[i] = d * static_cast<float>(static_cast<int8_t>(blocks[2 + i]));
    }
  }
}

void EncodeQ8_0(const float* values, uint64_t count, uint8_t* blocks) {
  constexpr int kBytes = 34;
  for (uint64_t b = 0; b < count; ++b, blocks += kBytes, values += kBlock) {
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(values[i]));
    const float d = largest / 127.0f;
    StoreHalf(d, blocks);
    for (int i = 0; i < kBlock; ++i) {
      const float q = d == 0 ? 0 : std::nearbyint(values[i] / d);
      blocks[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(q));
    }
  }
}

constexpr BlockCodec kCodecs[] = {
    {TensorType::kQ8_0, DecodeQ8_0, EncodeQ8_0},
};

}  // namespace

const BlockCodec* FindLegacyCodec(TensorType type) {
  for (const BlockCodec& codec : kCodecs) {
    if (codec.type == type) return &codec;
  }
  return nullptr;
}

}  // namespace gguf
