#include <algorithm>

#include "gguf/block_codec.h"
#include "gguf/bytes.h"
#include "gguf/level_search.h"

namespace gguf {
namespace {

// Superblocks of 256 weights whose sub-blocks have small integer scales.
constexpr int kSuperBlock = 256;

// Into bytes that were zero.
void SetBits(int bits, int shift, uint8_t* byte) {
  *byte = static_cast<uint8_t>(*byte | bits << shift);
}

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
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out += kSuperBlock) {
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

void EncodeQ2_K(const float* values, uint64_t count, uint8_t* block) {
  constexpr int kBytes = 84;
  constexpr LevelShape kShape = {.values = kSuperBlock,
                                 .sub_block = 16,
                                 .lowest_level = 0,
                                 .highest_level = 3,
                                 .lowest_scale = 0,
                                 .highest_scale = 15,
                                 .highest_min = 15};
  for (uint64_t b = 0; b < count; ++b, block += kBytes, values += kSuperBlock) {
    const LevelBlock chosen = ChooseLevels(kShape, values);
    std::fill(block, block + kBytes, uint8_t{0});
    StoreHalf(chosen.scale, block + 80);
    StoreHalf(chosen.minimum, block + 82);
    for (int sub = 0; sub < 16; ++sub) {
      block[sub] = static_cast<uint8_t>(chosen.sub_scales[sub] | chosen.sub_mins[sub] << 4);
      const TwoBitPlace at = PlaceTwoBit(sub);
      for (int i = 0; i < 16; ++i) {
        SetBits(chosen.codes[16 * sub + i], at.shift, block + 16 + at.byte + i);
      }
    }
  }
}

void SplitQ2_K(const uint8_t* block, uint64_t count, BlockParts out) {
  constexpr int kBytes = 84;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out.codes += kSuperBlock) {
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

void SetQ3Scale(int scale, int i, uint8_t* scales) {
  SetBits((scale + 32) & 15, i / 8 * 4, scales + i % 8);
  SetBits((scale + 32) >> 4, i / 4 * 2, scales + 8 + i % 4);
}

// Q3_K: u8 hmask[32], u8 qs[64], u8 scales[12], f16 d.
// Two low bits as in Q2_K; bit 4 h + l of hmask[m] adds 4; w = d sc (q - 4).
void DecodeQ3_K(const uint8_t* block, uint64_t count, float* out) {
  constexpr int kBytes = 110;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out += kSuperBlock) {
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

void EncodeQ3_K(const float* values, uint64_t count, uint8_t* block) {
  constexpr int kBytes = 110;
  constexpr LevelShape kShape = {.values = kSuperBlock,
                                 .sub_block = 16,
                                 .lowest_level = -4,
                                 .highest_level = 3,
                                 .lowest_scale = -32,
                                 .highest_scale = 31};
  for (uint64_t b = 0; b < count; ++b, block += kBytes, values += kSuperBlock) {
    const LevelBlock chosen = ChooseLevels(kShape, values);
    std::fill(block, block + kBytes, uint8_t{0});
    StoreHalf(chosen.scale, block + 108);
    for (int sub = 0; sub < 16; ++sub) {
      SetQ3Scale(chosen.sub_scales[sub], sub, block + 96);
      const TwoBitPlace at = PlaceTwoBit(sub);
      for (int i = 0; i < 16; ++i) {
        const int code = chosen.codes[16 * sub + i];
        SetBits(code & 3, at.shift, block + 32 + at.byte + i);
        SetBits(code >> 2, sub / 2, block + sub % 2 * 16 + i);
      }
    }
  }
}

void SplitQ3_K(const uint8_t* block, uint64_t count, BlockParts out) {
  constexpr int kBytes = 110;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out.codes += kSuperBlock) {
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

void PackScaleMin(ScaleMin values, int i, uint8_t* packed) {
  if (i < 4) {
    SetBits(values.scale, 0, packed + i);
    SetBits(values.minimum, 0, packed + i + 4);
    return;
  }
  SetBits(values.scale & 15, 0, packed + i + 4);
  SetBits(values.minimum & 15, 4, packed + i + 4);
  SetBits(values.scale >> 4, 6, packed + i - 4);
  SetBits(values.minimum >> 4, 6, packed + i);
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
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out += kSuperBlock) {
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
void EncodeQ45_K(const float* values, uint64_t count, uint8_t* block) {
  constexpr int kHigh = 16;
  constexpr int kLow = kFifthBit ? 48 : 16;
  constexpr int kBytes = kLow + 128;
  constexpr LevelShape kShape = {.values = kSuperBlock,
                                 .sub_block = 32,
                                 .lowest_level = 0,
                                 .highest_level = kFifthBit ? 31 : 15,
                                 .lowest_scale = 0,
                                 .highest_scale = 63,
                                 .highest_min = 63};
  for (uint64_t b = 0; b < count; ++b, block += kBytes, values += kSuperBlock) {
    const LevelBlock chosen = ChooseLevels(kShape, values);
    std::fill(block, block + kBytes, uint8_t{0});
    StoreHalf(chosen.scale, block);
    StoreHalf(chosen.minimum, block + 2);
    for (int sub = 0; sub < 8; ++sub) {
      PackScaleMin({chosen.sub_scales[sub], chosen.sub_mins[sub]}, sub, block + 4);
      for (int i = 0; i < 32; ++i) {
        const int code = chosen.codes[32 * sub + i];
        SetBits(code & 15, sub % 2 * 4, block + kLow + sub / 2 * 32 + i);
        if (kFifthBit) SetBits(code >> 4, sub, block + kHigh + i);
      }
    }
  }
}

template <bool kFifthBit>
void SplitQ45_K(const uint8_t* block, uint64_t count, BlockParts out) {
  constexpr int kHigh = 16;
  constexpr int kLow = kFifthBit ? 48 : 16;
  constexpr int kBytes = kLow + 128;
  for (uint64_t b = 0; b < count; ++b, block += kBytes, out.codes += kSuperBlock) {
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
  for (uint64_t b = 0; b < count; ++b, block += kQ6Bytes, out += kSuperBlock) {
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
  for (uint64_t b = 0; b < count; ++b, block += kQ6Bytes, out.codes += kSuperBlock) {
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

void EncodeQ6_K(const float* values, uint64_t count, uint8_t* block) {
  constexpr LevelShape kShape = {.values = kSuperBlock,
                                 .sub_block = 16,
                                 .lowest_level = -32,
                                 .highest_level = 31,
                                 .lowest_scale = -128,
                                 .highest_scale = 127};
  for (uint64_t b = 0; b < count; ++b, block += kQ6Bytes, values += kSuperBlock) {
    const LevelBlock chosen = ChooseLevels(kShape, values);
    std::fill(block, block + kQ6Bytes, uint8_t{0});
    StoreHalf(chosen.scale, block + kQ6D);
    for (int sub = 0; sub < 16; ++sub) {
      block[kQ6Scales + sub] = static_cast<uint8_t>(chosen.sub_scales[sub]);
      const Q6Place at = PlaceQ6(sub);
      for (int i = 0; i < 16; ++i) {
        const int code = chosen.codes[16 * sub + i];
        SetBits(code & 15, at.low_shift, block + at.low_byte + i);
        SetBits(code >> 4, at.high_shift, block + at.high_byte + i);
      }
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
  for (uint64_t b = 0; b < count; ++b, block += kIq4Bytes, out += kSuperBlock) {
    const float d = LoadHalf(block);
    for (int s = 0; s < 8; ++s) {
      DecodeNonlinear(block + 8 + 16 * s, d * static_cast<float>(Iq4Scale(block, s)), out + 32 * s);
    }
  }
}

void EncodeIQ4_XS(const float* values, uint64_t count, uint8_t* block) {
  constexpr LevelShape kShape = {.values = kSuperBlock,
                                 .sub_block = 32,
                                 .lowest_level = -127,
                                 .highest_level = 113,
                                 .lowest_scale = -32,
                                 .highest_scale = 31,
                                 .levels = &kNonlinearLevels};
  for (uint64_t b = 0; b < count; ++b, block += kIq4Bytes, values += kSuperBlock) {
    const LevelBlock chosen = ChooseLevels(kShape, values);
    std::fill(block, block + kIq4Bytes, uint8_t{0});
    StoreHalf(chosen.scale, block);
    uint32_t high = 0;
    for (int s = 0; s < 8; ++s) {
      const int scale = chosen.sub_scales[s] + 32;
      SetBits(scale & 15, s % 2 * 4, block + 4 + s / 2);
      high |= static_cast<uint32_t>(scale >> 4) << (2 * s);
      PackNibbles(chosen.codes.data() + 32 * s, block + 8 + 16 * s);
    }
    Store(static_cast<uint16_t>(high), block + 2);
  }
}

void SplitIQ4_XS(const uint8_t* block, uint64_t count, BlockParts out) {
  for (uint64_t b = 0; b < count; ++b, block += kIq4Bytes, out.codes += kSuperBlock) {
    *out.scales++ = Load<uint16_t>(block);
    for (int s = 0; s < 8; ++s) {
      *out.sub_scales++ = static_cast<int8_t>(Iq4Scale(block, s));
      for (int i = 0; i < 32; ++i) {
        out.codes[32 * s + i] = (block[8 + 16 * s + i % 16] >> (i / 16 * 4)) & 15;
      }
    }
  }
}

constexpr BlockCodec kKQuantCodecs[] = {
    {TensorType::kQ2_K, DecodeQ2_K, EncodeQ2_K, SplitQ2_K, 16, true},
    {TensorType::kQ3_K, DecodeQ3_K, EncodeQ3_K, SplitQ3_K, 16, false},
    {TensorType::kQ4_K, DecodeQ45_K<false>, EncodeQ45_K<false>, SplitQ45_K<false>, 32, true},
    {TensorType::kQ5_K, DecodeQ45_K<true>, EncodeQ45_K<true>, SplitQ45_K<true>, 32, true},
    {TensorType::kQ6_K, DecodeQ6_K, EncodeQ6_K, SplitQ6_K, 16, false},
    {TensorType::kIQ4_XS, DecodeIQ4_XS, EncodeIQ4_XS, SplitIQ4_XS, 32, false},
};

}  // namespace

const BlockCodec* FindKQuantCodec(TensorType type) {
  for (const BlockCodec& codec : kKQuantCodecs) {
    if (codec.type == type) return &codec;
  }
  return nullptr;
}

}  // namespace gguf
