#pragma once

#include <cstddef>
#include <cstdint>

namespace fabric {

// The precision in which a projection takes its input (docs/decisions.md, "Activations").
enum class ActivationKind : uint8_t {
  kFloat,      // float32
  kInt8Token,  // int8, one scale per token:      s = 127 / max(max|x|, 1e-5)
  kInt8Block,  // int8, one scale per 32 columns: the same formula within each block
};

inline constexpr uint32_t kActivationBlock = 32;
// codes rows are padded with zeros to a multiple of this, so kernels never need a column tail.
inline constexpr uint32_t kCodePadding = 64;
constexpr size_t PaddedCols(uint32_t cols) {
  return (size_t{cols} + kCodePadding - 1) / kCodePadding * kCodePadding;
}

// A batch of input vectors, borrowed from the caller until Device::Wait() returns.
//
// q = clamp(round_half_even(x * s), -128, 127); a token's projection is then
//   kInt8Token:  y = float(sum w*q) * (w_scale / s)            one multiplication, in this order
//   kInt8Block:  y = fma over blocks in ascending order of float(sum w*q) by (w_scale * d)
struct ActivationView {
  ActivationKind kind = ActivationKind::kFloat;
  uint32_t tokens = 0;
  uint32_t cols = 0;
  const float* values = nullptr;  // kFloat: [tokens, value_stride]
  size_t value_stride = 0;
  const int8_t* codes = nullptr;  // int8 kinds: [tokens, code_stride], zero-padded
  size_t code_stride = 0;
  const float* scales =
      nullptr;  // kInt8Token: s, [tokens]; kInt8Block: d = 1/s, [tokens, scale_stride]
  size_t scale_stride = 0;
  const int32_t* sums = nullptr;  // sum of codes per scale, same shape as scales
};

}  // namespace fabric
