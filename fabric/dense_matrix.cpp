#include "fabric/dense_matrix.h"

#include <cassert>
#include <cstring>
#include <stdexcept>
#include <string>

#include "fabric/half.h"

namespace fabric {
namespace {

uint16_t LoadU16(const uint8_t* p) {
  uint16_t value = 0;
  std::memcpy(&value, p, sizeof value);
  return value;
}

}  // namespace

DenseMatrix::DenseMatrix(DenseType type, uint32_t rows, uint32_t cols)
    : type_(type), rows_(rows), cols_(cols) {
  if (rows == 0 || cols == 0) {
    throw std::invalid_argument("A matrix has at least one row and column, not " +
                                std::to_string(rows) + " x " + std::to_string(cols) + ".");
  }
  bytes_ = AlignedBuffer<uint8_t>(rows * row_bytes());
}

size_t DenseMatrix::row_bytes() const {
  switch (type_) {
    case DenseType::kF32:
      return size_t{cols_} * 4;
    case DenseType::kF16:
    case DenseType::kBF16:
      return size_t{cols_} * 2;
  }
  return 0;
}

std::span<uint8_t> DenseMatrix::Row(uint32_t row) {
  assert(row < rows_);
  return {bytes_.data() + row * row_bytes(), row_bytes()};
}

std::span<const uint8_t> DenseMatrix::Row(uint32_t row) const {
  assert(row < rows_);
  return {bytes_.data() + row * row_bytes(), row_bytes()};
}

void DenseMatrix::GetRow(uint32_t row, std::span<float> out) const {
  assert(out.size() == cols_);
  const uint8_t* bytes = Row(row).data();
  switch (type_) {
    case DenseType::kF32:
      std::memcpy(out.data(), bytes, row_bytes());
      return;
    case DenseType::kF16:
      for (size_t i = 0; i < cols_; ++i) out[i] = HalfToFloat(LoadU16(bytes + 2 * i));
      return;
    case DenseType::kBF16:
      for (size_t i = 0; i < cols_; ++i) out[i] = BFloat16ToFloat(LoadU16(bytes + 2 * i));
      return;
  }
}

}  // namespace fabric
