#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fabric/aligned_buffer.h"

namespace fabric {

// Element types of matrices that are not ternary.
enum class DenseType : uint8_t { kF32, kF16, kBF16, kQ8_0 };

// A [rows, cols] matrix of floats or 8-bit blocks.
//
// Layout:    row-major; row r starts at bytes() + r * row_bytes(). kQ8_0: blocks of 32 weights,
//            fp16 scale then 32 int8, as in the file.
// Ownership: owns its bytes. Move-only.
// Threads:   immutable once filled.
// Errors:    the constructor throws std::invalid_argument (kQ8_0 needs cols % 32 == 0).
class DenseMatrix {
 public:
  DenseMatrix(DenseType type, uint32_t rows, uint32_t cols);
  DenseMatrix(DenseMatrix&&) noexcept = default;
  DenseMatrix& operator=(DenseMatrix&&) noexcept = default;

  DenseType type() const { return type_; }
  uint32_t rows() const { return rows_; }
  uint32_t cols() const { return cols_; }
  size_t row_bytes() const;
  std::span<uint8_t> Row(uint32_t row);
  std::span<const uint8_t> Row(uint32_t row) const;
  // out: [cols]; exact for every type.
  void GetRow(uint32_t row, std::span<float> out) const;
  size_t bytes() const { return bytes_.size(); }

 private:
  DenseType type_;
  uint32_t rows_;
  uint32_t cols_;
  AlignedBuffer<uint8_t> bytes_;
};

}  // namespace fabric
