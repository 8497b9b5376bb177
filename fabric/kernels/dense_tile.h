#pragma once

#include <cstddef>
#include <cstdint>

namespace fabric::kernels {

// v = W x for some rows of a dense matrix and some tokens.
//
// The 16-lane dot product of fabric/vector_ops.h; weights are widened exactly.
struct DenseTile {
  const uint8_t* rows = nullptr;
  size_t row_stride = 0;  // bytes
  uint32_t row_count = 0;
  uint32_t cols = 0;

  uint32_t tokens = 0;
  const float* values = nullptr;  // [tokens, value_stride]
  size_t value_stride = 0;

  float* out = nullptr;  // [tokens, out_stride]; writes row_count floats of each row
  size_t out_stride = 0;
};

using DenseTileFn = void (*)(const DenseTile& tile) noexcept;

struct DenseKernels {
  DenseTileFn f32 = nullptr;
  DenseTileFn f16 = nullptr;
  DenseTileFn bf16 = nullptr;
};

DenseKernels DenseScalar() noexcept;
#if defined(__x86_64__)
DenseKernels DenseAvx2() noexcept;
DenseKernels DenseAvx512Vnni() noexcept;
#endif

}  // namespace fabric::kernels
