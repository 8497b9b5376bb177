#pragma once

#include <memory>

#include "fabric/row_screen.h"

namespace fabric {

// A sketch from the upper bits of a matrix's own codes, with a bound that nothing can break.
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
class StrictScreen final : public RowScreen {
 public:
  // Types with two planes and no minimums.
  static bool Supports(const QuantizedMatrix& matrix);

  // What it knows of such a matrix; with all cores. REQUIRES: Supports(matrix).
  static RowSketch Measure(const QuantizedMatrix& matrix);
  // The same, not measured yet: to be filled.
  static RowSketch Blank(const QuantizedMatrix& matrix);

  // sketch: of `matrix`. REQUIRES: Supports(*matrix). team outlives the screen.
  StrictScreen(std::shared_ptr<const QuantizedMatrix> matrix,
               std::shared_ptr<const RowSketch> sketch, WorkerTeam& team, uint32_t max_tokens);

  void Sketch(const ActivationView& x) noexcept override;
  size_t sketch_bytes() const override { return quantized_.bytes_read(1); }

 private:
  const QuantizedMatrix& quantized_;
};

}  // namespace fabric
