#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "fabric/aligned_buffer.h"
#include "fabric/kernels/quantized_tile.h"

namespace fabric {

// Block-quantised types of the GGUF format that stay at their bits.
enum class QuantizedType : uint8_t {
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kIQ4_NL,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_XS,
};

const kernels::QuantizedFormat& FormatOf(QuantizedType type);
std::string_view QuantizedTypeName(QuantizedType type);  // "q6_k"

// One row as integers: weight = scale * sub_scale * (code - zero) + min * sub_min.
struct QuantizedRow {
  std::span<const uint8_t> codes;      // [cols], code_bits each
  std::span<const int8_t> sub_scales;  // [cols / sub_block] or empty, as the format says
  std::span<const int8_t> sub_mins;
  std::span<const uint16_t> scales;  // fp16, [cols / super_block]
  std::span<const uint16_t> mins;
};

// A [rows, cols] matrix of small integers with scales per block.
//
// Layout:    the planes of the codes in bricks (fabric/kernels/quantized_tile.h), the scales and
// the
//            minimums row-major, each in a section of its own: a row can be read alone, and a
//            sketch of the upper bits without the lower ones.
// Size:      that of the file's type; Q2_K, Q3_K, Q4_K and Q5_K keep their scales of 4 or 6 bits in
//            bytes: 3.125, 3.5625, 4.625 and 5.625 bits per weight.
// Ownership: owns its bytes. Move-only.
// Threads:   immutable once filled; rows may be set concurrently.
// Errors:    the constructor throws std::invalid_argument: cols must be a multiple of super_block.
class QuantizedMatrix {
 public:
  QuantizedMatrix(QuantizedType type, uint32_t rows, uint32_t cols);
  QuantizedMatrix(QuantizedMatrix&&) noexcept = default;
  QuantizedMatrix& operator=(QuantizedMatrix&&) noexcept = default;

  void SetRow(uint32_t row, const QuantizedRow& values);
  // out: [cols]; the floats that the file's type stands for, bit for bit.
  void GetRow(uint32_t row, std::span<float> out) const;

  // out: [cols]; code - zero, the integers that scales multiply.
  void GetLevels(uint32_t row, std::span<int16_t> out) const;
  // Row i of the copy is row rows[i].
  QuantizedMatrix CopyRows(std::span<const uint32_t> rows) const;

  // All of it. What is filled with the memory of a matrix of the same type and shape is that
  // matrix.
  std::array<std::span<std::byte>, kernels::kMaxPlanes + 4> Memory();

  QuantizedType type() const { return type_; }
  const kernels::QuantizedFormat& format() const { return FormatOf(type_); }
  uint32_t rows() const { return rows_; }
  uint32_t cols() const { return cols_; }
  size_t bytes() const;
  // Bytes that one pass over the first `planes` planes reads, scales included; 0 = all.
  size_t bytes_read(uint32_t planes) const;
  // Points a kernel's tile at this matrix; rows, tokens and output are left to the caller.
  kernels::QuantizedTile Tile() const;

 private:
  void GetCodes(uint32_t row, uint32_t first, std::span<uint8_t> codes) const;

  QuantizedType type_;
  uint32_t rows_;
  uint32_t cols_;
  size_t sub_stride_ = 0;
  size_t scale_stride_ = 0;
  AlignedBuffer<uint8_t> planes_[kernels::kMaxPlanes];
  AlignedBuffer<int8_t> sub_scales_;
  AlignedBuffer<int8_t> sub_mins_;
  AlignedBuffer<uint16_t> scales_;
  AlignedBuffer<uint16_t> mins_;
};

}  // namespace fabric
