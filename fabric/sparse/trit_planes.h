#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fabric/aligned_buffer.h"
#include "fabric/kernels/sparse_tile.h"
#include "fabric/ternary_matrix.h"

namespace fabric::sparse {

inline constexpr uint32_t kWordTrits = 64;  // one word of a plane: a register of int8 activations

// A [rows, cols] matrix of trits as two bit planes, one for +1 and one for -1, that can be edited
// in place.
//
// Layout:    row after row; bit c % 64 of word c / 64 is column c. No trit is in both planes; bits
//            past cols are 0. A third, small plane has one bit per word: set when the word has a
//            trit that is not zero, so that a kernel skips 64 columns by looking at one bit.
// Versions:  every Set() that changes something counts; checksum() follows in O(1).
// Ownership: owns its planes. Move-only.
// Threads:   const calls from any thread while none calls Set().
class TritPlanes {
 public:
  // All zero. Throws std::invalid_argument when rows or cols is 0.
  TritPlanes(uint32_t rows, uint32_t cols);
  // The trits of a matrix; its scales stay behind.
  static TritPlanes FromMatrix(const TernaryMatrix& matrix);
  // A matrix to run, in TernaryLayout::kSparse. scales: one for all rows, or one per row.
  // Throws std::invalid_argument on another number of scales.
  TernaryMatrix ToMatrix(std::span<const float> scales) const;

  // Changes at most one word of each plane. REQUIRES: row < rows(), col < cols(), trit in {-1,0,1}.
  void Set(uint32_t row, uint32_t col, int8_t trit) noexcept;
  int8_t Get(uint32_t row, uint32_t col) const noexcept;

  uint32_t rows() const { return rows_; }
  uint32_t cols() const { return cols_; }
  size_t words_per_row() const { return words_; }
  size_t bytes() const;
  uint64_t nonzeros() const { return nonzeros_; }
  double density() const;
  uint64_t version() const { return version_; }

  std::span<const uint64_t> plus(uint32_t row) const;      // [words_per_row()]
  std::span<const uint64_t> minus(uint32_t row) const;     // [words_per_row()]
  std::span<const uint64_t> occupied(uint32_t row) const;  // bit w: word w holds a non-zero

  // Depends on the trits only, not on the order of edits.
  uint64_t checksum() const { return checksum_; }
  // Reads everything again: planes disjoint, padding zero, occupied bits, counts and checksum
  // right.
  bool Intact() const noexcept;

 private:
  size_t occupied_per_row() const { return (words_ + kWordTrits - 1) / kWordTrits; }

  uint32_t rows_;
  uint32_t cols_;
  size_t words_;
  AlignedBuffer<uint64_t> plus_;      // [rows, words]
  AlignedBuffer<uint64_t> minus_;     // [rows, words]
  AlignedBuffer<uint64_t> occupied_;  // [rows, occupied_per_row()]
  uint64_t nonzeros_ = 0;
  uint64_t version_ = 0;
  uint64_t checksum_ = 0;
};

// sums[token][row] of planes times int8 codes, rows [row_begin, row_end). codes are readable up to
// a multiple of 64.
void Multiply(const TritPlanes& planes, const kernels::SparseKernels& kernels, uint32_t row_begin,
              uint32_t row_end, const int8_t* codes, size_t code_stride, uint32_t tokens,
              int32_t* sums, size_t sum_stride) noexcept;

// Sum over i of a_i * b_i of two trit vectors of the same number of words: with
// m = (a+|a-) & (b+|b-) the product of a position is -1 where the signs differ, so the sum is
// popcount(m) - 2 popcount(m & (a- ^ b-)).
int64_t Dot(std::span<const uint64_t> a_plus, std::span<const uint64_t> a_minus,
            std::span<const uint64_t> b_plus, std::span<const uint64_t> b_minus) noexcept;

}  // namespace fabric::sparse
