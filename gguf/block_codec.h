#pragma once

#include <array>
#include <cstdint>

#include "gguf/types.h"

namespace gguf {

// Where the integers of consecutive blocks go; the shapes are those of BlockCodes for these blocks.
// What the type lacks is not written.
struct BlockParts {
  uint8_t* codes;
  int8_t* sub_scales;
  int8_t* sub_mins;
  uint16_t* scales;
  uint16_t* mins;
};

// How blocks of one non-ternary type become floats and back. Each family of types has its own file
// and its own look-up; codec.cpp asks them in turn.
struct BlockCodec {
  TensorType type;
  // Decodes `count` consecutive blocks of TypeLayout::block_cols weights each.
  void (*decode)(const uint8_t* blocks, uint64_t count, float* out);
  // Encodes `count` blocks of finite values.
  void (*encode)(const float* values, uint64_t count, uint8_t* blocks);
  // Takes `count` blocks apart; nullptr when they hold floats.
  void (*split)(const uint8_t* blocks, uint64_t count, BlockParts out) = nullptr;
  // Of BlockCodes: weights per sub_scale (0 = none), and whether there are minimums.
  uint32_t sub_block = 0;
  bool mins = false;
};

// nullptr when `type` belongs to another family.
const BlockCodec* FindFloatCodec(TensorType type);
const BlockCodec* FindLegacyCodec(TensorType type);
const BlockCodec* FindKQuantCodec(TensorType type);

// What a nibble of IQ4_NL and IQ4_XS stands for, before the scale.
inline constexpr std::array<float, 16> kNonlinearLevels = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// 32 weights of IQ4_NL and IQ4_XS: scale times one of 16 unevenly spaced levels per nibble.
void DecodeNonlinear(const uint8_t* nibbles, float scale, float* out);
// Their 32 codes as 16 bytes: code i in the low half of byte i, code 16 + i in the high one.
void PackNibbles(const uint8_t* codes, uint8_t* nibbles);

}  // namespace gguf
