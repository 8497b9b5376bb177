#pragma once

#include <vector>

#include "fabric/row_screen.h"

namespace fabric {

// A sketch of two bits per weight: four equally spaced levels per row. Its bound is statistical.
//
// Rows and activations are rotated first: their signs are flipped at random and blocks of columns
// mixed by a Hadamard transform, which leaves projections as they are (QuaRot, Ashkboos et al.
// 2024). Every row is then nearly Gaussian, which four levels suit, a column of outliers is spread
// over its block, and what a row's sketch leaves out has no direction that a model or a file could
// have chosen without knowing the signs.
//
// Bound: let x be the rotated activations of the exact projection, w a rotated row, w~ = scale *
//   level its sketch (level = -1.5, -0.5, 0.5, 1.5), r = w - w~, and x~ = x - e the sketch's own
//   int8 activations. Then
//
//     w.x - w~.x~ = r.x + w~.e
//
//   The scale makes w~.w = |w|^2, so r is orthogonal to w and a row that x points along, as the
//   winner's often is, has no larger error than the others. (The least-squares scale would leave
//   r.w = |r|^2: every winner's sketch too small.)
//   Taking r as unrelated to x, and e to w~, each of the D terms of a sum has mean zero, and the
//   sums have standard deviations |r||x|/sqrt(D) and |w~||e|/sqrt(D), together at most
//
//     sigma = max(|r|, |w~|/4) / sqrt(D) * (|x| + 4|e|)
//
//   (a product of what depends on the row and what depends on the token, so that rows can be
//   compared with one multiplication). Reach is kMargin / sqrt(D) * max(|r|, |w~|/4), Norm the
//   rest. For Gaussian rows |r| is 0.37 |w|.
//
// What it does not prove: that r and x are unrelated. A row whose residual points along x can hide.
//   Hence guard(): the exact rows show their true errors, and one beyond kGuard sigma tells the
//   caller to compute all rows. A row that hides beyond the margin while no refined one is beyond
//   the guard goes unnoticed; docs/kernels.md has the rate measured on a real model.
class CoarseScreen final : public RowScreen {
 public:
  static constexpr float kMargin = 6;  // sigmas
  static constexpr float kGuard = 6;

  // What it knows of such a matrix; with all cores. matrix: dense or quantised, columns as
  // TernaryMatrix. Errors: std::bad_alloc.
  static RowSketch Measure(const Matrix& matrix);
  // The same, not measured yet: to be filled.
  static RowSketch Blank(const Matrix& matrix);

  // sketch: of `matrix`. team outlives the screen. Errors: std::bad_alloc.
  CoarseScreen(Matrix matrix, std::shared_ptr<const RowSketch> sketch, WorkerTeam& team,
               uint32_t max_tokens);

  void Sketch(const ActivationView& x) noexcept override;
  size_t sketch_bytes() const override {
    return row_sketch_->panels.size() + row_sketch_->scales.size() * sizeof(float);
  }
  size_t bytes() const override { return RowScreen::bytes() + sketch_bytes(); }

 private:
  // Of rows and activations, in place.
  class Rotation {
   public:
    explicit Rotation(uint32_t cols);
    void Apply(float* x) const noexcept;

   private:
    AlignedBuffer<float> signs_;  // [cols]: 1 or -1
  };
  class PanelBuilder;

  void EncodeActivations(const ActivationView& x, uint32_t token) noexcept;

  uint32_t cols_;
  size_t panel_bytes_;
  size_t code_stride_;
  Rotation rotation_;
  AlignedBuffer<float> values_;       // [cols]: one token's rotated activations
  AlignedBuffer<int8_t> codes_;       // [max_tokens, code_stride_]
  AlignedBuffer<float> code_scales_;  // [max_tokens]
  AlignedBuffer<int32_t> code_sums_;  // [max_tokens]
};

}  // namespace fabric
