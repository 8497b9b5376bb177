#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "gguf/reader.h"
#include "gguf/tensor_info.h"

namespace gguf {

// How many weights share a scale.
enum class ScaleLayout { kTensor, kRow, kGroup };

// Reads a tensor's rows as floats: the definition of what each type means.
//
// Threads: Dequantize() is thread-safe.
// Source:  block layouts in docs/ternary_format.md; equal bit for bit to tests/golden/dequant.
//
// out: [info.cols()].  REQUIRES: row < info.rows(); bytes = File::TensorBytes(info).
void DequantizeRow(const TensorInfo& info, std::span<const std::byte> bytes,
                   const ReadOptions& options, uint64_t row, std::span<float> out);

// One row of a block-quantised type as integers:
//
//   weight = scale * sub_scale * (code - zero) + min * sub_min
//
// zero is 8 in Q4_0, 16 in Q5_0, 4 in Q3_K, 32 in Q6_K, 128 in Q8_0 and otherwise 0. The codes of
// IQ4_NL and IQ4_XS name a level each. Parts that the type lacks are empty.
struct BlockCodes {
  std::vector<uint8_t> codes;      // [cols]
  std::vector<int8_t> sub_scales;  // [cols / 16 or 32] in the K types and IQ4_XS
  std::vector<int8_t> sub_mins;    // negative, as many, in Q2_K, Q4_K and Q5_K
  std::vector<uint16_t> scales;    // fp16, one per block
  std::vector<uint16_t> mins;      // fp16, one per block, in these and Q4_1, Q5_1
};

bool HasBlockCodes(TensorType type);
// REQUIRES: HasBlockCodes(info.type); row < info.rows(); bytes = File::TensorBytes(info).
void ReadBlockCodes(const TensorInfo& info, std::span<const std::byte> bytes, uint64_t row,
                    BlockCodes* out);

// Reads a ternary tensor's rows as trits and scales: w[c] = scale of c's group * trit[c].
//
// A Q2_0/PQ2_0 tensor is a ternary one only if no code 3 occurs; Q1_0 has no zeros.
class TernaryDecoder {
 public:
  // True when `info` can be read this way. Scans the codes where the type alone does not tell.
  static bool Accepts(const TensorInfo& info, std::span<const std::byte> bytes);

  TernaryDecoder(const TensorInfo& info, std::span<const std::byte> bytes,
                 const ReadOptions& options);

  ScaleLayout scale_layout() const { return layout_; }
  uint32_t group() const { return group_; }  // columns per scale; cols() unless kGroup
  uint64_t scales_per_row() const;           // 1 unless kGroup

  // trits: [cols], each -1, 0 or 1; scales: [scales_per_row()]. Thread-safe for any rows.
  // Errors: FormatError on a byte that no encoder writes (for example I2_S code 3).
  void DecodeRow(uint64_t row, std::span<int8_t> trits, std::span<float> scales) const;

 private:
  TensorInfo info_;
  std::span<const std::byte> bytes_;
  ReadOptions options_;
  ScaleLayout layout_ = ScaleLayout::kTensor;
  uint32_t group_ = 0;
};

// How a ternary type keeps its scales.
struct TernaryScales {
  ScaleLayout layout = ScaleLayout::kTensor;  // the finest that it holds
  uint32_t group = 0;                         // columns per scale for kGroup, else 0
  bool half = false;                          // float16, else float32
};

// std::nullopt when `type` does not store trits. The four-level types do, as long as no code is 3.
std::optional<TernaryScales> TernaryScalesOf(TensorType type);

// Encodes rows of a tensor. Ternary types take trits * scale exactly when the scales fit the type
// (fp16 for the block types), which ternary repacking checks; Q2_K to Q6_K, IQ4_NL and IQ4_XS
// search for scales of small error (gguf/level_search.h); other types round to nearest.
//
// Returns the tensor's bytes. values: [rows, cols] row-major.
// Errors: FormatError when cols is not a multiple of what the type needs, or a value is not finite
// or larger than the type holds.
std::vector<std::byte> EncodeTensor(TensorType type, uint64_t rows, uint64_t cols,
                                    std::span<const float> values);

// Exact encoding from trits and one scale per tensor, row or group (as TernaryDecoder yields them).
//
// trits: [rows, cols]; scales: one, [rows], or [rows, ceil(cols / group)]; group matters for
// kGroup. Scales of weights that are all zero do not count: a block of TQ2_0 that is all zero may
// carry 0 while its tensor has one scale everywhere else. Errors: FormatError when the type cannot
// hold these scales exactly.
std::vector<std::byte> EncodeTernary(TensorType type, uint64_t rows, uint64_t cols,
                                     std::span<const int8_t> trits, ScaleLayout layout,
                                     uint32_t group, std::span<const float> scales,
                                     I2SLayout i2s_layout = I2SLayout::kX86);

float HalfToFloat(uint16_t half);
uint16_t FloatToHalf(float value);  // round to nearest even

}  // namespace gguf
