#pragma once

#include <cstdint>

#include "gguf/types.h"

namespace gguf {

// How blocks of one non-ternary type become floats and back. Each family of types has its own file
// and its own look-up; codec.cpp asks them in turn.
struct BlockCodec {
  TensorType type;
  // Decodes `count` consecutive blocks of TypeLayout::block_cols weights each.
  void (*decode)(const uint8_t* blocks, uint64_t count, float* out);
  // Encodes `count` blocks, rounding to nearest; nullptr when the type has no encoder.
  void (*encode)(const float* values, uint64_t count, uint8_t* blocks);
};

// nullptr when `type` belongs to another family.
const BlockCodec* FindFloatCodec(TensorType type);
const BlockCodec* FindLegacyCodec(TensorType type);
const BlockCodec* FindKQuantCodec(TensorType type);

// 32 weights of IQ4_NL and IQ4_XS: scale times one of 16 unevenly spaced levels per nibble.
void DecodeNonlinear(const uint8_t* nibbles, float scale, float* out);

}  // namespace gguf
