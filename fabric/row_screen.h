#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "fabric/activations.h"
#include "fabric/aligned_buffer.h"
#include "fabric/quantized_matrix.h"
#include "fabric/worker_team.h"

namespace fabric {

// Approximate projections of all rows of a matrix from the upper bits of its codes, with a bound of
// their error, and exact ones of a few rows: who looks for the largest values of W x reads the
// lower bits of those rows only that can be among them.
//
// Bound: let x be the quantised activations, w a row, w~ its sketch (the lower bits at the middle
// of
//   their range), r = w - w~. By Cauchy-Schwarz |w.x - w~.x| <= |r| |x|. Both projections are float
//   sums of m blocks: v = fma(float(isum), fl(scale d), v), two roundings and an addition each, so
//   by the usual analysis each is off its real value by at most g sum_b |isum_b scale_b d_b|,  g =
//   (m + 3) u / (1 - (m + 3) u),  u = 2^-24, and isum_b scale_b d_b = w_b.x_b, so that sum is at
//   most sum_b |w_b| |x_b| <= |w| |x|. Hence
//
//     |exact - sketch| <= Reach(row) * Norm(token),   Reach = |r| + g (|w| + |w~|)
//
//   with |w|, |w~| replaced by what their scales allow at most. Norms are summed in double and
//   rounded up; one more u of |w| covers a caller's fl(sketch + Reach * Norm). Nothing underflows:
//   fp16 scales are at least 2^-24 or zero, and those of activations at least 2^-24.
//
// Bits:    Refine() gives those of a full projection.
// Memory:  a float per row and tokens * rows floats. Threads: one at a time; spreads over `team`.
class RowScreen {
 public:
  // Types with two planes and no minimums.
  static bool Supports(const QuantizedMatrix& matrix);

  // REQUIRES: Supports(*matrix). team outlives the screen.
  RowScreen(std::shared_ptr<const QuantizedMatrix> matrix, WorkerTeam& team, uint32_t max_tokens);

  // x: kInt8Block, borrowed until the last Refine(). REQUIRES: x.tokens <= max_tokens.
  void Sketch(const ActivationView& x) noexcept;
  // Of the last Sketch(): [rows] of one token, and the length of its activations, rounded up.
  std::span<const float> Sketched(uint32_t token) const {
    return {sketch_.data() + size_t{token} * padded_rows_, matrix_->rows()};
  }
  float Norm(uint32_t token) const { return norms_[token]; }
  // [rows]
  std::span<const float> Reach() const { return {reach_.data(), matrix_->rows()}; }
  // No projection of the matrix is larger than this times Norm(token).
  float LargestRow() const { return largest_row_; }

  // Exact projections of these rows for one token of the last Sketch(). out: [rows.size()].
  void Refine(uint32_t token, std::span<const uint32_t> rows, float* out) noexcept;

  size_t sketch_bytes() const { return matrix_->bytes_read(1); }
  size_t row_bytes() const { return matrix_->bytes() / matrix_->rows(); }
  size_t bytes() const { return (sketch_.size() + reach_.size()) * sizeof(float); }

 private:
  void MeasureRow(uint32_t row);
  void RunRows(const ActivationView& x, uint32_t sketch_planes, const uint32_t* rows,
               uint32_t row_count, float* out, size_t out_stride) noexcept;

  std::shared_ptr<const QuantizedMatrix> matrix_;
  WorkerTeam& team_;
  size_t padded_rows_;
  ActivationView x_;
  float largest_row_ = 0;
  AlignedBuffer<float> sketch_;   // [max_tokens, padded_rows]
  AlignedBuffer<float> norms_;    // [max_tokens]
  AlignedBuffer<float> reach_;    // [rows]
  AlignedBuffer<float> longest_;  // [rows]: bound of |w|
};

}  // namespace fabric
