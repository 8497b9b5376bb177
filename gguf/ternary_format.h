#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "gguf/codec.h"
#include "gguf/type_layout.h"

namespace gguf {

// Where a ternary tensor keeps its scales.
enum class ScalePlace {
  kHalfInBlock,    // f16 at scale_offset of each block
  kHalfInHeader,   // f16, one row per group
  kFloatInHeader,  // f32 per row of the group
  kFloatInTail,    // f32 at the start of the tensor's tail
};

// The codes of one type. A code c is the weight c - 1: 0, 1, 2 for ternary types; 3 stands for +2
// in the four-level types and is written by nobody in the others; Q1_0 has 0 and 2 only.
struct TernaryFormat {
  TensorType type;
  ScalePlace scale_place;
  uint32_t code_offset;   // in a block
  uint32_t scale_offset;  // in a block, for kHalfInBlock
  // Codes of row `lane` of the group. Returns false when a byte is one that no encoder writes.
  bool (*unpack)(const uint8_t* codes_bytes, uint32_t lane, uint8_t* codes);
  // REQUIRES: the block's code bytes are zero where no other lane has written.
  void (*pack)(const uint8_t* codes, uint32_t lane, uint8_t* codes_bytes);
};

// nullptr when `type` is not stored as codes of this kind.
const TernaryFormat* FindTernaryFormat(TensorType type, I2SLayout i2s_layout);

// Reads w = scale * (code - 1) of one row: what DequantizeRow() means for these types.
void DequantizeTernaryRow(const TernaryFormat& format, const TensorInfo& info,
                          std::span<const std::byte> bytes, const ReadOptions& options,
                          uint64_t row, std::span<float> out);

// EncodeTensor() for these types: one scale per tensor, row or block, the largest magnitude in it.
std::vector<std::byte> EncodeTernaryFromFloats(TensorType type, uint64_t rows, uint64_t cols,
                                               std::span<const float> values);

}  // namespace gguf
