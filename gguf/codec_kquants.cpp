#include <algorithm>
#include <array>
#include <cmath>

#include "gguf/block_codec.h"
#include "gguf/bytes.h"

namespace gguf {
namespace {

// Superblocks of 256 weights whose sub-blocks have small integer scales.
constexpr int kBlock = 256;

// Where the first of 16 weights of a sub-block of Q2_K and Q3_K lies; the others follow bytewise.
struct TwoBitPlace {
  int byte, shift;
};

constexpr TwoBitPlace PlaceTwoBit(int sub) {
  return {sub / 8 * 32 + sub % 2 * 16, sub / 2 % 4 * 2};
}

// Q2_K: u8 scales[16] (scale low, minimum high), u8 qs[64], f16 d, f16 dmin.
// Weight 128 h + 32 l + m is field l of qs[32 h + m]; sub-blocks of 16; w = d sc q - dmin mn.
void DecodeQ2_K(const uint8_t* block, uint64_t count, float* out) {
  constexpr int kBytes = 84;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out += kBlock) {
    const uint8_t* qs = block + 16;
    const float d = LoadHalf(block + 80);
    const float dmin = LoadHalf(block + 82);
    for (int sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(block[sub] & 15);
      const float minimum = dmin * static_cast<float>(block[sub] >> 4);
      const TwoBitPlace at = PlaceTwoBit(sub);
      for (int i = 0; i < 16; ++i) {
        const int q = (qs[at.byte + i] >> at.shift) & 3;
        out[16 * sub + i] = scale * static_cast<float>(q) - minimum;
      }
    }
  }
}

void SplitQ2_K(const uint8_t* block, uint64_t count, BlockParts out) {
  constexpr int kBytes = 84;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out.codes += kBlock) {
    *out.scales++ = Load<uint16_t>(block + 80);
    *out.mins++ = Load<uint16_t>(block + 82);
    for (int sub = 0; sub < 16; ++sub) {
      *out.sub_scales++ = static_cast<int8_t>(block[sub] & 15);
      *out.sub_mins++ = static_cast<int8_t>(-(block[sub] >> 4));
      const TwoBitPlace at = PlaceTwoBit(sub);
      for (int i = 0; i < 16; ++i) {
        out.codes[16 * sub + i] = (block[16 + at.byte + i] >> at.shift) & 3;
      }
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
    for (int sub = 0; sub < 16; ++sub) {
      const float scale = d * static_cast<float>(Q3Scale(block + 96, sub));
      const TwoBitPlace at = PlaceTwoBit(sub);
      for (int i = 0; i < 16; ++i) {
        const int low = (qs[at.byte + i] >> at.shift) & 3;
        const int high = (block[sub % 2 * 16 + i] >> (sub / 2)) & 1;
        out[16 * sub + i] = scale * static_cast<float>(low + high * 4 - 4);
      }
    }
  }
}

void SplitQ3_K(const uint8_t* block, uint64_t count, BlockParts out) {
  constexpr int kBytes = 110;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out.codes += kBlock) {
    *out.scales++ = Load<uint16_t>(block + 108);
    for (int sub = 0; sub < 16; ++sub) {
      *out.sub_scales++ = static_cast<int8_t>(Q3Scale(block + 96, sub));
      const TwoBitPlace at = PlaceTwoBit(sub);
      for (int i = 0; i < 16; ++i) {
        const int low = (block[32 + at.byte + i] >> at.shift) & 3;
        const int high = (block[sub % 2 * 16 + i] >> (sub / 2)) & 1;
        out.codes[16 * sub + i] = static_cast<uint8_t>(low | high << 2);
      }
    }
  }
}

struct ScaleMin {
  int scale;
  int minimum;
};

// Scale and minimum i of eight, six bits each in 12 bytes: the first four in the low bits of bytes
// 0..3 and 4..7; the rest have nibbles in bytes 8..11 and their upper bits on top of the first.
ScaleMin UnpackScaleMin(const uint8_t* packed, int i) {
  if (i < 4) {
    return {packed[i] & 63, packed[i + 4] & 63};
  }
  return {(packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4, (packed[i + 4] >> 4) | (packed[i] >> 6)
                                                                                       << 4};
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
    for (int sub = 0; sub < 8; ++sub) {
      const ScaleMin packed = UnpackScaleMin(block + 4, sub);
      const float scale = d * static_cast<float>(packed.scale);
      const float minimum = dmin * static_cast<float>(packed.minimum);
      const uint8_t* low = block + kLow + sub / 2 * 32;
      for (int i = 0; i < 32; ++i) {
        int q = (low[i] >> (sub % 2 * 4)) & 15;
        if (kFifthBit) q += ((block[kHigh + i] >> sub) & 1) * 16;
        out[32 * sub + i] = scale * static_cast<float>(q) - minimum;
      }
    }
  }
}

template <bool kFifthBit>
void SplitQ45_K(const uint8_t* block, uint64_t count, BlockParts out) {
  constexpr int kHigh = 16;
  constexpr int kLow = kFifthBit ? 48 : 16;
  constexpr int kBytes = kLow + 128;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out.codes += kBlock) {
    *out.scales++ = Load<uint16_t>(block);
    *out.mins++ = Load<uint16_t>(block + 2);
    for (int sub = 0; sub < 8; ++sub) {
      const ScaleMin packed = UnpackScaleMin(block + 4, sub);
      *out.sub_scales++ = static_cast<int8_t>(packed.scale);
      *out.sub_mins++ = static_cast<int8_t>(-packed.minimum);
      const uint8_t* low = block + kLow + sub / 2 * 32;
      for (int i = 0; i < 32; ++i) {
        int q = (low[i] >> (sub % 2 * 4)) & 15;
        if (kFifthBit) q |= ((block[kHigh + i] >> sub) & 1) << 4;
        out.codes[32 * sub + i] = static_cast<uint8_t>(q);
      }
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

// Where the first of 16 weights of a sub-block lies; the others follow bytewise.
struct Q6Place {
  int low_byte, low_shift, high_byte, high_shift;
};

constexpr Q6Place PlaceQ6(int sub) {
  const int half = sub / 8;
  const int field = sub / 2 % 4;
  const int odd = sub % 2 * 16;
  return {half * 64 + field % 2 * 32 + odd, field / 2 * 4, kQ6High + half * 32 + odd, field * 2};
}

void DecodeQ6_K(const uint8_t* block, uint64_t count, float* out) {
  for (uint64_t b = 0; b < count; ++b, block += kQ6Bytes, out += kBlock) {
    const float d = LoadHalf(block + kQ6D);
    for (int sub = 0; sub < 16; ++sub) {
      const Q6Place at = PlaceQ6(sub);
      const float scale = d * static_cast<float>(static_cast<int8_t>(block[kQ6Scales + sub]));
      for (int i = 0; i < 16; ++i) {
        const int q = ((block[at.low_byte + i] >> at.low_shift) & 15) |
                      ((block[at.high_byte + i] >> at.high_shift) & 3) << 4;
        out[16 * sub + i] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

void SplitQ6_K(const uint8_t* block, uint64_t count, BlockParts out) {
  for (uint64_t b = 0; b < count; ++b, block += kQ6Bytes, out.codes += kBlock) {
    *out.scales++ = Load<uint16_t>(block + kQ6D);
    for (int sub = 0; sub < 16; ++sub) {
      const Q6Place at = PlaceQ6(sub);
      *out.sub_scales++ = static_cast<int8_t>(block[kQ6Scales + sub]);
      for (int i = 0; i < 16; ++i) {
        out.codes[16 * sub + i] =
            static_cast<uint8_t>(((block[at.low_byte + i] >> at.low_shift) & 15) |
                                 ((block[at.high_byte + i] >> at.high_shift) & 3) << 4);
      }
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

// Writes the levels of one sub-block of 16 into zeroed bytes.
void EncodeQ6Levels(const float* values, float step, int sub, uint8_t* block) {
  const Q6Place at = PlaceQ6(sub);
  for (int i = 0; i < 16; ++i) {
    const float level = step == 0 ? 0 : std::nearbyint(values[i] / step);
    const int q = static_cast<int>(std::clamp(level, -32.0f, 31.0f)) + 32;
    uint8_t& low = block[at.low_byte + i];
    uint8_t& high = block[at.high_byte + i];
    low = static_cast<uint8_t>(low | (q & 15) << at.low_shift);
    high = static_cast<uint8_t>(high | (q >> 4) << at.high_shift);
  }
}

void EncodeQ6_K(const float* values, uint64_t count, uint8_t* block) {
  for (uint64_t b = 0; b < count; ++b, block += kQ6Bytes, values += kBlock) {
    std::array<float, 16> sub_scales;
    float extreme = 0;
    for (size_t sub = 0; sub < 16; ++sub) {
      sub_scales[sub] = Q6SubScale(values + 16 * sub);
      if (std::fabs(sub_scales[sub]) > std::fabs(extreme)) extreme = sub_scales[sub];
    }
    const float d = RoundToHalf(extreme / -128.0f);
    std::fill(block, block + kQ6Bytes, uint8_t{0});
    StoreHalf(d, block + kQ6D);
    for (int sub = 0; sub < 16; ++sub) {
      const float ratio = d == 0 ? 0 : sub_scales[static_cast<size_t>(sub)] / d;
      const float scale = std::clamp(std::nearbyint(ratio), -128.0f, 127.0f);
      block[kQ6Scales + sub] = static_cast<uint8_t>(static_cast<int8_t>(scale));
      EncodeQ6Levels(values + 16 * sub, d * scale, sub, block);
    }
  }
}

// IQ4_XS: f16 d, u16 scales_h, u8 scales_l[4], u8 qs[128]: eight IQ4_NL sub-blocks, each with a
// six-bit scale offset by 32.
constexpr int kIq4Bytes = 136;

int Iq4Scale(const uint8_t* block, int sub) {
  const int low = (block[4 + sub / 2] >> (sub % 2 * 4)) & 15;
  return (low | ((Load<uint16_t>(block + 2) >> (2 * sub)) & 3) << 4) - 32;
}

void DecodeIQ4_XS(const uint8_t* block, uint64_t count, float* out) {
  for (uint64_t b = 0; b < count; ++b, block += kIq4Bytes, out += kBlock) {
    const float d = LoadHalf(block);
    for (int s = 0; s < 8; ++s) {
      DecodeNonlinear(block + 8 + 16 * s, d * static_cast<float>(Iq4Scale(block, s)), out + 32 * s);
    }
  }
}

void SplitIQ4_XS(const uint8_t* block, uint64_t count, BlockParts out) {
  for (uint64_t b = 0; b < count; ++b, block += kIq4Bytes, out.codes += kBlock) {
    *out.scales++ = Load<uint16_t>(block);
    for (int s = 0; s < 8; ++s) {
      *out.sub_scales++ = static_cast<int8_t>(Iq4Scale(block, s));
      for (int i = 0; i < 32; ++i) {
        out.codes[32 * s + i] = (block[8 + 16 * s + i % 16] >> (i / 16 * 4)) & 15;
      }
    }
  }
}

constexpr BlockCodec kCodecs[] = {
    {TensorType::kQ2_K, DecodeQ2_K, nullptr, SplitQ2_K, 16, true},
    {TensorType::kQ3_K, DecodeQ3_K, nullptr, SplitQ3_K, 16, false},
    {TensorType::kQ4_K, DecodeQ45_K<false>, nullptr, SplitQ45_K<false>, 32, true},
    {TensorType::kQ5_K, DecodeQ45_K<true>, nullptr, SplitQ45_K<true>, 32, true},
    {TensorType::kQ6_K, DecodeQ6_K, EncodeQ6_K, SplitQ6_K, 16, false},
    {TensorType::kIQ4_XS, DecodeIQ4_XS, nullptr, SplitIQ4_XS, 32, false},
};

}  // namespace

const BlockCodec* FindKQuantCodec(TensorType type) {
  for (const BlockCodec& codec : kCodecs) {
    if (codec.type == type) return &codec;
  }
  return nullptr;
}

}  // namespace gguf
