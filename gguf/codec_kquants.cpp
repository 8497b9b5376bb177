#include <algorithm>
#include <array>
#include <cmath>

#include "gguf/block_codec.h"
#include "gguf/bytes.h"

namespace gguf {
namespace {

// Superblocks of 256 weights whose sub-blocks have small integer scales.
constexpr int kBlock = 256;

// Q2_K: u8 scales[16] (scale low, minimum high), u8 qs[64], f16 d, f16 dmin.
// Weight 128 h + 32 l + m is field l of qs[32 h + m]; sub-blocks of 16; w = d sc q - dmin mn.
void DecodeQ2_K(const uint8_t* block, uint64_t count, float* out) {
  constexpr int kBytes = 84;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out += kBlock) {
    const uint8_t* qs = block + 16;
    const float d = LoadHalf(block + 80);
    const float dmin = LoadHalf(block + 82);
    for (int i = 0; i < kBlock; ++i) {
      const int q = (qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3;
      const uint8_t packed = block[i / 16];
      const float scale = d * static_cast<float>(packed & 15);
      const float minimum = dmin * static_cast<float>(packed >> 4);
      out[i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

// Six-bit scales of Q3_K, 12 bytes: low nibbles of 16 scales in bytes 0..7 (8 and later in the high
// halves), their upper two bits in bytes 8..11. Offset by 32.
int Q3Scale(const uint8_t* scales, int i) {
  const int low = (scales[i % 8] >> (i / 8 * 4)) & 15;
  const int high = (scales[8 + i % 4] >> (i / 4 * 2)) & 3;
  return (low | high << 4) - 32;
}

// Q3_K: u8 hmask[32], u8 qs[64], u8 scales[12], f16 d.
// Two low bits as in Q2_K; bit 4 h + l of hmask[m] adds 4; w = d sc (q - 4).
void DecodeQ3_K(const uint8_t* block, uint64_t count, float* out) {
  constexpr int kBytes = 110;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out += kBlock) {
    const uint8_t* qs = block + 32;
    const float d = LoadHalf(block + 108);
    for (int i = 0; i < kBlock; ++i) {
      const int low = (qs[i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3;
      const int high = (block[i % 32] >> (i / 32)) & 1;
      const float scale = d * static_cast<float>(Q3Scale(block + 96, i / 16));
      out[i] = scale * static_cast<float>(low + high * 4 - 4);
    }
  }
}

struct ScaleMin {
  float scale;
  float minimum;
};

// Scale and minimum i of eight, six bits each in 12 bytes: the first four in the low bits of bytes
// 0..3 and 4..7; the rest have nibbles in bytes 8..11 and their upper bits on top of the first.
ScaleMin UnpackScaleMin(const uint8_t* packed, int i) {
  if (i < 4) {
    return {static_cast<float>(packed[i] & 63), static_cast<float>(packed[i + 4] & 63)};
  }
  return {static_cast<float>((packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4),
          static_cast<float>((packed[i + 4] >> 4) | (packed[i] >> 6) << 4)};
}

// Q4_K: f16 d, f16 dmin, u8 scales[12], u8 qs[128].
// Q5_K: the same with u8 qh[32] before qs.
// Weight 64 k + 32 h + m: half h (low first) of qs[32 k + m]; its fifth bit is bit 2 k + h of
// qh[m]. Sub-blocks of 32; w = d sc q - dmin mn.
template <bool kFifthBit>
void DecodeQ45_K(const uint8_t* block, uint64_t count, float* out) {
  constexpr int kHigh = 16;
  constexpr int kLow = kFifthBit ? 48 : 16;
  constexpr int kBytes = kLow + 128;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out += kBlock) {
    const float d = LoadHalf(block);
    const float dmin = LoadHalf(block + 2);
    for (int i = 0; i < kBlock; ++i) {
      const ScaleMin sub = UnpackScaleMin(block + 4, i / 32);
      int q = (block[kLow + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4)) & 15;
      if (kFifthBit) q += ((block[kHigh + i % 32] >> (i / 32)) & 1) * 16;
      out[i] = d * sub.scale * static_cast<float>(q) - dmin * sub.minimum;
    }
  }
}

// Q6_K: u8 ql[128], u8 qh[64], i8 scales[16], f16 d.
// Weight 128 h + 32 l + m: low bits in half l / 2 of ql[64 h + 32 (l % 2) + m], upper bits in field
// l of qh[32 h + m]. Sub-blocks of 16; w = d sc (q - 32).
constexpr int kQ6Bytes = 210;
constexpr int kQ6High = 128;
constexpr int kQ6Scales = 192;
constexpr int kQ6D = 208;

struct Q6Place {
  int low_byte, low_shift, high_byte, high_shift;
};

constexpr Q6Place PlaceQ6(int i) {
  const int half = i / 128;
  const int field = i / 32 % 4;
  return {half * 64 + field % 2 * 32 + i % 32, field / 2 * 4, kQ6High + half * 32 + i % 32,
          field * 2};
}

void DecodeQ6_K(const uint8_t* block, uint64_t count, float* out) {
  for (uint64_t b = 0; b < count; ++b, block += kQ6Bytes, out += kBlock) {
    const float d = LoadHalf(block + kQ6D);
    for (int i = 0; i < kBlock; ++i) {
      const Q6Place at = PlaceQ6(i);
      const int q = ((block[at.low_byte] >> at.low_shift) & 15) |
                    ((block[at.high_byte] >> at.high_shift) & 3) << 4;
      const auto scale = static_cast<int8_t>(block[kQ6Scales + i / 16]);
      out[i] = d * static_cast<float>(scale) * static_cast<float>(q - 32);
    }
  }
}

// The value of largest magnitude of 16, over -32: so that it takes the lowest level.
float Q6SubScale(const float* values) {
  float extreme = 0;
  for (int i = 0; i < 16; ++i) {
    if (std::fabs(values[i]) > std::fabs(extreme)) extreme = values[i];
  }
  return extreme / -32.0f;
}

void EncodeQ6_K(const float* values, uint64_t count, uint8_t* block) {
  for (uint64_t b = 0; b < count; ++b, block += kQ6Bytes, values += kBlock) {
    std::array<float, 16> sub_scales;
    float extreme = 0;
    for (size_t s = 0; s < 16; ++s) {
      sub_scales[s] = Q6SubScale(values + 16 * s);
      if (std::fabs(sub_scales[s]) > std::fabs(extreme)) extreme = sub_scales[s];
    }
    const float d = RoundToHalf(extreme / -128.0f);
    std::fill(block, block + kQ6Bytes, uint8_t{0});
    StoreHalf(d, block + kQ6D);
    if (d == 0) continue;
    for (size_t s = 0; s < 16; ++s) {
      const float scale = std::clamp(std::nearbyint(sub_scales[s] / d), -128.0f, 127.0f);
      block[kQ6Scales + s] = static_cast<uint8_t>(static_cast<int8_t>(scale));
    }
    for (int i = 0; i < kBlock; ++i) {
      const float step = d * static_cast<float>(static_cast<int8_t>(block[kQ6Scales + i / 16]));
      const float level = step == 0 ? 0 : std::nearbyint(values[i] / step);
      const int q = static_cast<int>(std::clamp(level, -32.0f, 31.0f)) + 32;
      const Q6Place at = PlaceQ6(i);
      block[at.low_byte] = static_cast<uint8_t>(block[at.low_byte] | (q & 15) << at.low_shift);
      block[at.high_byte] = static_cast<uint8_t>(block[at.high_byte] | (q >> 4) << at.high_shift);
    }
  }
}

// IQ4_XS: f16 d, u16 scales_h, u8 scales_l[4], u8 qs[128]: eight IQ4_NL sub-blocks, each with a
// six-bit scale offset by 32.
void DecodeIQ4_XS(const uint8_t* block, uint64_t count, float* out) {
  constexpr int kBytes = 136;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out += kBlock) {
    const float d = LoadHalf(block);
    const int upper = Load<uint16_t>(block + 2);
    for (int s = 0; s < 8; ++s) {
      const int low = (block[4 + s / 2] >> (s % 2 * 4)) & 15;
      const int scale = (low | ((upper >> (2 * s)) & 3) << 4) - 32;
      DecodeNonlinear(block + 8 + 16 * s, d * static_cast<float>(scale), out + 32 * s);
    }
  }
}

constexpr BlockCodec kCodecs[] = {
    {TensorType::kQ2_K, DecodeQ2_K, nullptr},
    {TensorType::kQ3_K, DecodeQ3_K, nullptr},
    {TensorType::kQ4_K, DecodeQ45_K<false>, nullptr},
    {TensorType::kQ5_K, DecodeQ45_K<true>, nullptr},
    {TensorType::kQ6_K, DecodeQ6_K, EncodeQ6_K},
    {TensorType::kIQ4_XS, DecodeIQ4_XS, nullptr},
};

}  // namespace

const BlockCodec* FindKQuantCodec(TensorType type) {
  for (const BlockCodec& codec : kCodecs) {
    if (codec.type == type) return &codec;
  }
  return nullptr;
}

}  // namespace gguf
