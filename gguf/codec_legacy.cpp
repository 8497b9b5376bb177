#include <algorithm>
#include <array>
#include <cmath>

#include "gguf/block_codec.h"
#include "gguf/bytes.h"
#include "gguf/level_search.h"

namespace gguf {
namespace {

constexpr int kBlock = 32;

// The 4- and 5-bit types of 32 weights are one layout with options:
//   f16 d, [f16 m], [u32 fifth_bits], u8 nibbles[16]
// Weight i < 16 is the low nibble of byte i, weight 16 + i the high one; bit i of fifth_bits is
// worth 16 in weight i. With a minimum, w = d q + m; without, w = d (q - zero).
template <bool kMinimum, bool kFifthBit>
struct Nibbles {
  static constexpr int kHighOffset = kMinimum ? 4 : 2;
  static constexpr int kNibbleOffset = kHighOffset + (kFifthBit ? 4 : 0);
  static constexpr int kBytes = kNibbleOffset + 16;
  static constexpr int kLevels = kFifthBit ? 32 : 16;
  static constexpr int kZero = kMinimum ? 0 : kLevels / 2;

  static void Decode(const uint8_t* block, uint64_t count, float* out) {
    for (uint64_t b = 0; b < count; ++b, block += kBytes, out += kBlock) {
      const float d = LoadHalf(block);
      const float m = kMinimum ? LoadHalf(block + 2) : 0.0f;
      const uint32_t high = kFifthBit ? Load<uint32_t>(block + kHighOffset) : 0;
      for (int half = 0; half < 2; ++half) {
        for (int i = 0; i < 16; ++i) {
          const int nibble = (block[kNibbleOffset + i] >> (4 * half)) & 15;
          const int q = nibble + static_cast<int>((high >> (16 * half + i)) & 1) * 16;
          const float product = d * static_cast<float>(q - kZero);
          out[16 * half + i] = kMinimum ? product + m : product;
        }
      }
    }
  }

  static void Split(const uint8_t* block, uint64_t count, BlockParts out) {
    for (uint64_t b = 0; b < count; ++b, block += kBytes, out.codes += kBlock) {
      *out.scales++ = Load<uint16_t>(block);
      if (kMinimum) *out.mins++ = Load<uint16_t>(block + 2);
      const uint32_t high = kFifthBit ? Load<uint32_t>(block + kHighOffset) : 0;
      for (int i = 0; i < kBlock; ++i) {
        const uint32_t nibble = (block[kNibbleOffset + i % 16] >> (i / 16 * 4)) & 15U;
        out.codes[i] = static_cast<uint8_t>(nibble | ((high >> i) & 1) << 4);
      }
    }
  }

  static void Encode(const float* values, uint64_t count, uint8_t* block) {
    for (uint64_t b = 0; b < count; ++b, block += kBytes, values += kBlock) {
      const auto [low, high] = std::minmax_element(values, values + kBlock);
      // Without a minimum the value of largest magnitude takes the lowest level, -zero.
      const float extreme = std::fabs(*low) >= std::fabs(*high) ? *low : *high;
      const float d = RoundToHalf(kMinimum ? (*high - *low) / (kLevels - 1)
                                           : extreme / static_cast<float>(-kZero));
      const float m = kMinimum ? RoundToHalf(*low) : 0.0f;
      StoreHalf(d, block);
      if (kMinimum) StoreHalf(m, block + 2);
      EncodeLevels(values, d, m, block);
    }
  }

 private:
  static void EncodeLevels(const float* values, float d, float m, uint8_t* block) {
    uint32_t high = 0;
    for (int i = 0; i < kBlock; ++i) {
      const float level = d == 0 ? 0 : std::nearbyint((values[i] - m) / d);
      const auto q =
          static_cast<uint32_t>(std::clamp(level + kZero, 0.0f, static_cast<float>(kLevels - 1)));
      uint8_t& byte = block[kNibbleOffset + i % 16];
      byte = static_cast<uint8_t>(i < 16 ? q & 15 : byte | (q & 15) << 4);
      high |= (q >> 4) << i;
    }
    if (kFifthBit) Store(high, block + kHighOffset);
  }
};

// Q8_0: f16 d, i8 q[32];  w = d q.
constexpr int kQ8Bytes = 34;

void DecodeQ8_0(const uint8_t* block, uint64_t count, float* out) {
  for (uint64_t b = 0; b < count; ++b, block += kQ8Bytes, out += kBlock) {
    const float d = LoadHalf(block);
    for (int i = 0; i < kBlock; ++i) {
      out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
    }
  }
}

void EncodeQ8_0(const float* values, uint64_t count, uint8_t* block) {
  for (uint64_t b = 0; b < count; ++b, block += kQ8Bytes, values += kBlock) {
    float largest = 0;
    for (int i = 0; i < kBlock; ++i) largest = std::max(largest, std::fabs(values[i]));
    const float d = RoundToHalf(largest / 127.0f);
    StoreHalf(d, block);
    for (int i = 0; i < kBlock; ++i) {
      const float q = d == 0 ? 0 : std::clamp(std::nearbyint(values[i] / d), -127.0f, 127.0f);
      block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(q));
    }
  }
}

// Codes are moved up by 128, so that they are unsigned.
void SplitQ8_0(const uint8_t* block, uint64_t count, BlockParts out) {
  for (uint64_t b = 0; b < count; ++b, block += kQ8Bytes, out.codes += kBlock) {
    *out.scales++ = Load<uint16_t>(block);
    for (int i = 0; i < kBlock; ++i) out.codes[i] = block[2 + i] ^ 0x80;
  }
}

// IQ4_NL: f16 d, nibbles as above, each naming one of 16 unevenly spaced levels.
constexpr int kIq4NlBytes = 18;

void DecodeIQ4_NL(const uint8_t* block, uint64_t count, float* out) {
  for (uint64_t b = 0; b < count; ++b, block += kIq4NlBytes, out += kBlock) {
    DecodeNonlinear(block + 2, LoadHalf(block), out);
  }
}

void EncodeIQ4_NL(const float* values, uint64_t count, uint8_t* block) {
  constexpr LevelShape kShape = {.values = kBlock,
                                 .sub_block = kBlock,
                                 .lowest_level = -127,
                                 .highest_level = 113,
                                 .lowest_scale = 1,
                                 .highest_scale = 1,
                                 .levels = &kNonlinearLevels};
  for (uint64_t b = 0; b < count; ++b, block += kIq4NlBytes, values += kBlock) {
    const LevelBlock chosen = ChooseLevels(kShape, values);
    StoreHalf(chosen.scale, block);
    PackNibbles(chosen.codes.data(), block + 2);
  }
}

constexpr BlockCodec kLegacyCodecs[] = {
    {TensorType::kQ4_0, Nibbles<false, false>::Decode, Nibbles<false, false>::Encode,
     Nibbles<false, false>::Split, 0, false},
    {TensorType::kQ4_1, Nibbles<true, false>::Decode, Nibbles<true, false>::Encode,
     Nibbles<true, false>::Split, 0, true},
    {TensorType::kQ5_0, Nibbles<false, true>::Decode, Nibbles<false, true>::Encode,
     Nibbles<false, true>::Split, 0, false},
    {TensorType::kQ5_1, Nibbles<true, true>::Decode, Nibbles<true, true>::Encode,
     Nibbles<true, true>::Split, 0, true},
    {TensorType::kQ8_0, DecodeQ8_0, EncodeQ8_0, SplitQ8_0, 0, false},
    // The nibbles lie as those of Q4_0.
    {TensorType::kIQ4_NL, DecodeIQ4_NL, EncodeIQ4_NL, Nibbles<false, false>::Split, 0, false},
};

}  // namespace

void DecodeNonlinear(const uint8_t* nibbles, float scale, float* out) {
  for (size_t i = 0; i < 16; ++i) {
    out[i] = scale * kNonlinearLevels[nibbles[i] & 15];
    out[i + 16] = scale * kNonlinearLevels[nibbles[i] >> 4];
  }
}

void PackNibbles(const uint8_t* codes, uint8_t* nibbles) {
  for (int i = 0; i < 16; ++i) nibbles[i] = static_cast<uint8_t>(codes[i] | codes[i + 16] << 4);
}

const BlockCodec* FindLegacyCodec(TensorType type) {
  for (const BlockCodec& codec : kLegacyCodecs) {
    if (codec.type == type) return &codec;
  }
  return nullptr;
}

}  // namespace gguf
