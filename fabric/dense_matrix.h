#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fabric/aligned_buffer.h"

namespace fabric {

// Element types of matrices of floats.
enum class DenseType : uint8_t { kF32, kF16, kBF16 };

// A [rows, cols] matrix of floats.
//
// Layout:    row-major; row r starts at bytes() + r * row_bytes().
// Ownership: owns its bytes. Move-only.
// Threads:   immutable once filled.
// Errors:    the constructor throws std::invalid_argument.
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
