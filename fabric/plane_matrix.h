#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fabric/aligned_buffer.h"
#include "fabric/kernels/plane_tile.h"
#include "fabric/quantized_matrix.h"
#include "fabric/ternary_matrix.h"

namespace fabric {

// How a quantised matrix is written as ternary planes: each level q (code - zero, and where that
// has no sign, less the middle of its range) becomes the nearest multiple m * step, and m its
// balanced base-3 digits, one plane each:
//
//   q ~ step * sum over p < planes of 3^p * trit_p,        |m| <= (3^planes - 1) / 2
struct PlaneChoice {
  uint32_t planes = 0;
  int32_t step = 1;
  // ||W - W'|| / ||W|| over all weights: of inputs without a pattern, the relative error of W x to
  // be expected. With weighted columns the same of inputs whose columns have those mean squares and
  // do not depend on each other. 0 when every level is hit exactly.
  double error = 0;
};

// Planes that hold every level of a type: q4_0 3, q4_k 3, q5_k 4, q6_k 4, q8_0 6.
uint32_t ExactPlanes(QuantizedType type);

// The best choice for 1, 2, ... ExactPlanes() planes: of each count the step with the least error.
// mean_squares: [cols], of what comes in, or empty for all alike; those far below their mean count
// as a thousandth of it, because another text may reach them.
// The same on every machine. Threads: spreads over oneTBB; not from the token path.
std::vector<PlaneChoice> MeasurePlanes(const QuantizedMatrix& matrix,
                                       std::span<const float> mean_squares = {});

// A quantised matrix as a sum of ternary planes that share its scales (design: W = sum of alpha_p
// P_p, alpha per sub-block).
//
// Bits:      with an exact choice, products are those of the quantised matrix, bit for bit: the
//            same integers meet the same scales in the same order (fabric/kernels/plane_tile.h).
// Layout:    planes are TernaryMatrix of 2-bit panels with the scale 1, so that each is a frame;
//            scales are laid out for panels, in floats.
// Size:      2 bits per weight and plane, and the scales.
// Ownership: owns its planes. Move-only. Threads: immutable.
class PlaneMatrix {
 public:
  // Columns of a plane stay below 2^17. Errors: std::invalid_argument; std::bad_alloc.
  PlaneMatrix(const QuantizedMatrix& matrix, const PlaneChoice& choice);
  PlaneMatrix(PlaneMatrix&&) noexcept = default;
  PlaneMatrix& operator=(PlaneMatrix&&) noexcept = default;

  QuantizedType type() const { return type_; }
  const PlaneChoice& choice() const { return choice_; }
  uint32_t rows() const { return planes_.front().rows(); }
  uint32_t cols() const { return planes_.front().cols(); }
  std::span<const TernaryMatrix> planes() const { return planes_; }
  // weights()[p] times plane p, added up, and offset() give the level.
  std::span<const int32_t> weights() const { return {weights_, planes_.size()}; }
  int32_t offset() const { return offset_; }
  // What the planes add up to; out: [cols], as QuantizedMatrix::GetLevels().
  void GetLevels(uint32_t row, std::span<int16_t> out) const;

  size_t bytes() const;
  // Points a kernel's tile at these panels; tokens and output are left to the caller.
  kernels::PlaneTile Tile(uint32_t first_panel, uint32_t panel_count) const;

  // Some rows as they were before, for whoever compares products with them
  // (fabric/shadow_device.h).
  static constexpr uint32_t kShadowRows = 16;
  std::span<const uint32_t> shadow_rows() const { return shadow_rows_; }
  const QuantizedMatrix& shadow() const { return *shadow_; }  // row i is row shadow_rows()[i]

 private:
  void SetPlanes(const QuantizedMatrix& matrix);
  void SetScales(const QuantizedMatrix& matrix);
  void KeepShadow(const QuantizedMatrix& matrix);

  QuantizedType type_;
  PlaneChoice choice_;
  int32_t offset_ = 0;
  int32_t weights_[kernels::kMaxTernaryPlanes] = {};
  std::vector<TernaryMatrix> planes_;
  AlignedBuffer<int8_t> sub_scales_;  // [panels, cols / sub_block, 16] or empty
  AlignedBuffer<int8_t> sub_mins_;
  AlignedBuffer<float> scales_;  // [panels, cols / super_block, 16]
  AlignedBuffer<float> mins_;    // or empty
  std::vector<uint32_t> shadow_rows_;
  std::unique_ptr<const QuantizedMatrix> shadow_;
};

}  // namespace fabric
