#pragma once

#include <cstddef>
#include <cstdint>

namespace fabric::kernels {

// Balanced-ternary digits that the code of any quantised type needs at most: six reach +-364.
inline constexpr uint32_t kMaxTernaryPlanes = 6;
// Sub-blocks of one row at most: columns stay below 2^17 (TernaryMatrix), 16 share a sub-scale.
inline constexpr uint32_t kMaxSubBlocks = 8192;

// v = W x for some panels of a sum of ternary planes (fabric/plane_matrix.h) and some tokens.
//
// Per block of 32 columns, ascending, with integers that are exact in int32:
//   q(c)  = offset + sum over planes p of weights[p] * trit of plane p in column c
//   isum  = sum over sub-blocks of sub_scale * sum of q * x, plane after plane
//   v     = fma(float(isum), scale * d, v)                             from +0
//   msum  = sum over sub-blocks of sub_min * sum of x                  only with mins
//   v     = fma(float(msum), min * d, v)
// where q is the code less its zero this is what QuantizedTile computes, bit for bit.
//
// REQUIRES: codes are zero from cols up to a multiple of 64, code_stride included.
struct PlaneTile {
  const uint8_t* planes[kMaxTernaryPlanes] = {};  // 2-bit panels (fabric/panel_layout.h)
  int32_t weights[kMaxTernaryPlanes] = {};
  uint32_t plane_count = 0;
  int32_t offset = 0;
  size_t panel_stride = 0;  // bytes
  uint32_t panel_count = 0;
  uint32_t cols = 0;       // a multiple of 32
  uint32_t sub_block = 0;  // columns per sub-scale: 16 or 32
  uint32_t super_block = 0;

  const int8_t* sub_scales = nullptr;  // [panels, cols / sub_block, 16] or null: all are 1
  const int8_t* sub_mins = nullptr;    // null: all are 1
  const float* scales = nullptr;       // [panels, cols / super_block, 16]
  const float* mins = nullptr;         // or null: none

  uint32_t tokens = 0;
  const int8_t* codes = nullptr;  // [tokens, code_stride]
  size_t code_stride = 0;
  const float* x_scales = nullptr;  // d, [tokens, x_scale_stride]
  size_t x_scale_stride = 0;

  float* out = nullptr;  // [tokens, out_stride]; writes panel_count * 16 floats of each row
  size_t out_stride = 0;
};

using PlaneTileFn = void (*)(const PlaneTile& tile) noexcept;

}  // namespace fabric::kernels
