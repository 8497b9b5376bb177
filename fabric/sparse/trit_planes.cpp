#include "fabric/sparse/trit_planes.h"

#include <bit>
#include <cassert>
#include <stdexcept>
#include <string>
#include <vector>

#include "fabric/sparse/mix.h"

namespace fabric::sparse {
namespace {

// A word's share of the checksum is 0 when the word is, so that a matrix of zeros has checksum 0.
uint64_t WordHash(size_t index, uint64_t plus, uint64_t minus) {
  if ((plus | minus) == 0) return 0;
  return Mix(Mix(Mix(index + 1) ^ plus) + minus);
}

uint64_t PaddingMask(uint32_t cols) {
  const uint32_t used = cols % kWordTrits;
  return used == 0 ? 0 : ~uint64_t{0} << used;
}

}  // namespace

TritPlanes::TritPlanes(uint32_t rows, uint32_t cols)
    : rows_(rows), cols_(cols), words_((size_t{cols} + kWordTrits - 1) / kWordTrits) {
  if (rows == 0 || cols == 0) {
    throw std::invalid_argument("trit planes need rows and columns, not " + std::to_string(rows) +
                                " x " + std::to_string(cols));
  }
  plus_ = AlignedBuffer<uint64_t>(rows * words_);
  minus_ = AlignedBuffer<uint64_t>(rows * words_);
  occupied_ = AlignedBuffer<uint64_t>(rows * occupied_per_row());
}

TritPlanes TritPlanes::FromMatrix(const TernaryMatrix& matrix) {
  TritPlanes planes(matrix.rows(), matrix.cols());
  std::vector<int8_t> trits(matrix.cols());
  for (uint32_t row = 0; row < matrix.rows(); ++row) {
    matrix.GetRow(row, trits);
    for (uint32_t col = 0; col < matrix.cols(); ++col) {
      if (trits[col] != 0) planes.Set(row, col, trits[col]);
    }
  }
  planes.version_ = 0;
  return planes;
}

TernaryMatrix TritPlanes::ToMatrix(std::span<const float> scales) const {
  if (scales.size() != 1 && scales.size() != rows_) {
    throw std::invalid_argument("a matrix of " + std::to_string(rows_) +
                                " rows takes 1 scale or as many as rows, not " +
                                std::to_string(scales.size()));
  }
  const ScaleKind kind = scales.size() == 1 ? ScaleKind::kTensor : ScaleKind::kRow;
  return TernaryMatrix::PackSparse(rows_, cols_, kind, 0, scales,
                                   [this](uint32_t row, std::span<int8_t> trits) {
                                     for (uint32_t col = 0; col < cols_; ++col) {
                                       trits[col] = Get(row, col);
                                     }
                                   });
}

void TritPlanes::Set(uint32_t row, uint32_t col, int8_t trit) noexcept {
  assert(row < rows_ && col < cols_ && trit >= -1 && trit <= 1);
  const size_t word = col / kWordTrits;
  const size_t index = row * words_ + word;
  const uint64_t bit = uint64_t{1} << (col % kWordTrits);
  const uint64_t plus = trit > 0 ? plus_[index] | bit : plus_[index] & ~bit;
  const uint64_t minus = trit < 0 ? minus_[index] | bit : minus_[index] & ~bit;
  if (plus == plus_[index] && minus == minus_[index]) return;

  const bool was_zero = ((plus_[index] | minus_[index]) & bit) == 0;
  if (was_zero) ++nonzeros_;
  if (trit == 0) --nonzeros_;
  checksum_ ^= WordHash(index, plus_[index], minus_[index]) ^ WordHash(index, plus, minus);
  plus_[index] = plus;
  minus_[index] = minus;
  uint64_t& occupied = occupied_[row * occupied_per_row() + word / kWordTrits];
  const uint64_t word_bit = uint64_t{1} << (word % kWordTrits);
  occupied = (plus | minus) != 0 ? occupied | word_bit : occupied & ~word_bit;
  ++version_;
}

int8_t TritPlanes::Get(uint32_t row, uint32_t col) const noexcept {
  assert(row < rows_ && col < cols_);
  const size_t index = row * words_ + col / kWordTrits;
  const uint32_t shift = col % kWordTrits;
  return static_cast<int8_t>(static_cast<int>((plus_[index] >> shift) & 1) -
                             static_cast<int>((minus_[index] >> shift) & 1));
}

size_t TritPlanes::bytes() const {
  return (plus_.size() + minus_.size() + occupied_.size()) * sizeof(uint64_t);
}

double TritPlanes::density() const {
  return static_cast<double>(nonzeros_) / (static_cast<double>(rows_) * cols_);
}

std::span<const uint64_t> TritPlanes::plus(uint32_t row) const {
  return {plus_.data() + row * words_, words_};
}

std::span<const uint64_t> TritPlanes::minus(uint32_t row) const {
  return {minus_.data() + row * words_, words_};
}

std::span<const uint64_t> TritPlanes::occupied(uint32_t row) const {
  return {occupied_.data() + row * occupied_per_row(), occupied_per_row()};
}

bool TritPlanes::Intact() const noexcept {
  uint64_t checksum = 0;
  uint64_t nonzeros = 0;
  const uint64_t padding = PaddingMask(cols_);
  for (uint32_t row = 0; row < rows_; ++row) {
    for (size_t word = 0; word < words_; ++word) {
      const size_t index = row * words_ + word;
      const uint64_t any = plus_[index] | minus_[index];
      if ((plus_[index] & minus_[index]) != 0) return false;
      if (word + 1 == words_ && (any & padding) != 0) return false;
      const uint64_t flag = occupied(row)[word / kWordTrits] >> (word % kWordTrits) & 1;
      if (flag != (any != 0 ? 1U : 0U)) return false;
      nonzeros += static_cast<uint64_t>(std::popcount(any));
      checksum ^= WordHash(index, plus_[index], minus_[index]);
    }
  }
  return checksum == checksum_ && nonzeros == nonzeros_;
}

void Multiply(const TritPlanes& planes, const kernels::SparseKernels& kernels, uint32_t row_begin,
              uint32_t row_end, const int8_t* codes, size_t code_stride, uint32_t tokens,
              int32_t* sums, size_t sum_stride) noexcept {
  assert(row_begin <= row_end && row_end <= planes.rows());
  if (row_begin == row_end) return;
  kernels.planes({.plus = planes.plus(row_begin).data(),
                  .minus = planes.minus(row_begin).data(),
                  .occupied = planes.occupied(row_begin).data(),
                  .rows = row_end - row_begin,
                  .words = planes.words_per_row(),
                  .occupied_words = planes.occupied(row_begin).size(),
                  .tokens = tokens,
                  .codes = codes,
                  .code_stride = code_stride,
                  .sums = sums + row_begin,
                  .sum_stride = sum_stride});
}

int64_t Dot(std::span<const uint64_t> a_plus, std::span<const uint64_t> a_minus,
            std::span<const uint64_t> b_plus, std::span<const uint64_t> b_minus) noexcept {
  assert(a_plus.size() == a_minus.size() && a_plus.size() == b_plus.size() &&
         a_plus.size() == b_minus.size());
  int64_t sum = 0;
  for (size_t i = 0; i < a_plus.size(); ++i) {
    const uint64_t both = (a_plus[i] | a_minus[i]) & (b_plus[i] | b_minus[i]);
    sum += std::popcount(both) - 2 * std::popcount(both & (a_minus[i] ^ b_minus[i]));
  }
  return sum;
}

}  // namespace fabric::sparse
