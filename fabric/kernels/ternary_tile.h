#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/plane_tile.h"

namespace fabric::kernels {

// How the integer sums of a row become a float.
enum class TernarySum : uint8_t {
  kToken,   // one sum over all columns:         v = float(isum) * (w / s)
  kGroups,  // one sum per group of columns:     v = fma(float(isum), w / s, v), ascending from +0
  kBlocks,  // one sum per 32 columns:           v = fma(float(isum), w * d, v), ascending from +0
};

// v = W x for some panels (fabric/panel_layout.h) and some tokens. isum = sum of trit * code,
// exact.
//
// REQUIRES: codes are zero from cols up to a multiple of 64, code_stride included; the sums of
// codes
//           are right: kernels compute sum of (trit + 1) * code and subtract them. Two-bit panels
//           may also hold 3, a trit of 2 (fabric/coarse_screen.h).
struct TernaryTile {
  const uint8_t* panels = nullptr;
  size_t panel_stride = 0;  // bytes
  uint32_t panel_count = 0;
  uint32_t cols = 0;
  TernarySum sum = TernarySum::kToken;
  uint32_t segment = 0;             // columns per integer sum, multiple of 32; unused for kToken
  uint32_t segments_per_scale = 1;  // sums that share one weight scale; 0: all of a row do

  const float* w_scales = nullptr;  // 16 per panel and scale
  size_t w_panel_stride = 0;        // floats from one panel to the next; 0: the same for all

  uint32_t tokens = 0;
  const int8_t* codes = nullptr;  // [tokens, code_stride]
  size_t code_stride = 0;
  const float* x_scales = nullptr;  // kBlocks: d, [tokens, scale_stride]; otherwise s, [tokens]
  size_t scale_stride = 0;
  const int32_t* x_sums = nullptr;  // one per integer sum: [tokens, sum_stride]
  size_t sum_stride = 0;

  float* out = nullptr;  // [tokens, out_stride]; writes panel_count * 16 floats of each row
  size_t out_stride = 0;
};

using TernaryTileFn = void (*)(const TernaryTile& tile) noexcept;

// What one token's codes mean for the account of one matrix.
struct ActivityCount {
  uint64_t active_ops = 0;      // sum of nonzeros_per_column over the columns where codes != 0
  uint64_t active_columns = 0;  // columns where codes != 0
};

// codes and nonzeros: [cols].
using CountActivityFn = ActivityCount (*)(const int8_t* codes, const uint32_t* nonzeros,
                                          uint32_t cols) noexcept;

struct TernaryKernels {
  TernaryTileFn two_bit = nullptr;
  TernaryTileFn pt5 = nullptr;
  CountActivityFn count_activity = nullptr;
  PlaneTileFn planes = nullptr;
};

TernaryKernels TernaryScalar() noexcept;
#if defined(__x86_64__)
TernaryKernels TernaryAvx2() noexcept;
TernaryKernels TernaryAvxVnni() noexcept;
TernaryKernels TernaryAvx512Vnni() noexcept;
TernaryKernels TernaryAvx512Vbmi() noexcept;
#elif defined(__aarch64__)
TernaryKernels TernaryNeon() noexcept;
#endif

}  // namespace fabric::kernels
