#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/ternary_tile.h"
#include "fabric/panel_layout.h"

namespace fabric::kernels {

// The loops around the integer dot products of one instruction set: which panels and tokens go
// together, which columns share a sum, and how sums become floats.
//
// I is a type of the including file's anonymous namespace (see float_lanes.h for why). It has
//   kTokenBlock<kDigits>      most tokens of one block
//   Ints, Floats              16 int32 or floats, one per row of a panel
//   DotRange<kDigits, P, T>(panels, panel_stride, codes, code_stride, begin, end, Ints[P][T])
//       sums of (trit + 1) * code over the dwords [begin, end) of columns, for P panels and T
//       tokens
//   DotVector<kDigits, P>(panels, panel_stride, codes, end, Ints[P])   the same for one token
//   ToFloats(Ints, int32_t)   float(sum - int32_t)
//   Zero, Set, Load, Store, Mul, Div, Fma on Floats
//
// A kernel may read past the last column up to the padding of the codes, which is zeros.
template <class I, uint32_t kDigits>
struct TernaryDriver {
  using Floats = typename I::Floats;
  using Ints = typename I::Ints;

  static void Run(const TernaryTile& t) noexcept {
    if (t.sum != TernarySum::kToken) {
      const uint32_t token = Blocks<4, true>(t, 0);
      Blocks<1, true>(t, token);
      return;
    }
    uint32_t token = Blocks<I::template kTokenBlock<kDigits>, false>(t, 0);
    token = Blocks<4, false>(t, token);
    token = Blocks<2, false>(t, token);
    Blocks<1, false>(t, token);
  }

 private:
  // Dwords of columns. A 2-bit line is read whole; its padding meets zero codes.
  static uint32_t Steps(uint32_t cols) noexcept {
    if (kDigits == k2BitDigits) return LineCount(cols) * kDigits;
    return (cols + kStepCols - 1) / kStepCols;
  }
  static uint32_t LineCount(uint32_t cols) noexcept {
    return (cols + kDigits * kStepCols - 1) / (kDigits * kStepCols);
  }

  // As many blocks of T tokens as fit from `token` on; returns the first token that is left.
  template <uint32_t T, bool kSegmented>
  static uint32_t Blocks(const TernaryTile& t, uint32_t token) noexcept {
    for (; token + T <= t.tokens; token += T) {
      uint32_t panel = 0;
      for (; panel + 2 <= t.panel_count; panel += 2) Block<2, T, kSegmented>(t, panel, token);
      if (panel < t.panel_count) Block<1, T, kSegmented>(t, panel, token);
    }
    return token;
  }

  template <uint32_t P, uint32_t T, bool kSegmented>
  static void Block(const TernaryTile& t, uint32_t panel, uint32_t token) noexcept {
    if constexpr (kSegmented) {
      Segments<P, T>(t, panel, token);
    } else {
      Whole<P, T>(t, panel, token);
    }
  }

  template <uint32_t P, uint32_t T>
  static void Whole(const TernaryTile& t, uint32_t panel, uint32_t token) noexcept {
    const uint8_t* panels = t.panels + panel * t.panel_stride;
    const int8_t* codes = t.codes + token * t.code_stride;
    Ints sums[P][T];
    if constexpr (T == 1) {
      Ints of_panels[P];
      I::template DotVector<kDigits, P>(panels, t.panel_stride, codes, Steps(t.cols), of_panels);
      for (uint32_t p = 0; p < P; ++p) sums[p][0] = of_panels[p];
    } else {
      I::template DotRange<kDigits, P, T>(panels, t.panel_stride, codes, t.code_stride, 0,
                                          Steps(t.cols), sums);
    }
    for (uint32_t p = 0; p < P; ++p) {
      const Floats w = I::Load(t.w_scales + (panel + p) * t.w_panel_stride);
      for (uint32_t j = 0; j < T; ++j) {
        const Floats isum = I::ToFloats(sums[p][j], t.x_sums[(token + j) * t.sum_stride]);
        const Floats scale = I::Div(w, I::Set(t.x_scales[token + j]));
        I::Store(Out(t, panel + p, token + j), I::Mul(isum, scale));
      }
    }
  }

  template <uint32_t P, uint32_t T>
  static void Segments(const TernaryTile& t, uint32_t panel, uint32_t token) noexcept {
    const uint8_t* panels = t.panels + panel * t.panel_stride;
    const int8_t* codes = t.codes + token * t.code_stride;
    const uint32_t steps = Steps(t.cols);
    const uint32_t segment_steps = t.segment / kStepCols;
    Floats v[P][T];
    for (uint32_t p = 0; p < P; ++p) {
      for (uint32_t j = 0; j < T; ++j) v[p][j] = I::Zero();
    }
    uint32_t index = 0;
    for (uint32_t begin = 0; begin * kStepCols < t.cols; begin += segment_steps, ++index) {
      const uint32_t end = begin + segment_steps < steps ? begin + segment_steps : steps;
      Ints sums[P][T];
      I::template DotRange<kDigits, P, T>(panels, t.panel_stride, codes, t.code_stride, begin, end,
                                          sums);
      const size_t scale = t.segments_per_scale == 0 ? 0 : index / t.segments_per_scale;
      for (uint32_t p = 0; p < P; ++p) {
        const Floats w = I::Load(t.w_scales + (panel + p) * t.w_panel_stride + scale * kPanelRows);
        for (uint32_t j = 0; j < T; ++j) {
          const Floats isum = I::ToFloats(sums[p][j], t.x_sums[(token + j) * t.sum_stride + index]);
          v[p][j] = I::Fma(isum, Factor(t, w, token + j, index), v[p][j]);
        }
      }
    }
    for (uint32_t p = 0; p < P; ++p) {
      for (uint32_t j = 0; j < T; ++j) I::Store(Out(t, panel + p, token + j), v[p][j]);
    }
  }

  static Floats Factor(const TernaryTile& t, Floats w, size_t token, uint32_t index) noexcept {
    if (t.sum == TernarySum::kGroups) return I::Div(w, I::Set(t.x_scales[token]));
    return I::Mul(w, I::Set(t.x_scales[token * t.scale_stride + index]));
  }
  static float* Out(const TernaryTile& t, uint32_t panel, size_t token) noexcept {
    return t.out + token * t.out_stride + panel * kPanelRows;
  }
};

}  // namespace fabric::kernels
