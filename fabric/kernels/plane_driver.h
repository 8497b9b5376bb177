#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/plane_tile.h"
#include "fabric/panel_layout.h"

namespace fabric::kernels {

// The loops of PlaneTile around the integer dot products of one instruction set: I as in
// ternary_driver.h, of which it takes SegmentVector<k2BitDigits>() and the 16 lanes of ints and
// floats. A panel's planes are read side by side, block after block: as many streams as there are
// planes, each in order.
template <class I>
struct PlaneDriver {
  using Ints = typename I::Ints;
  using Floats = typename I::Floats;
  // One per row of a panel; the compiler maps them to its registers.
  using Lanes = int32_t __attribute__((vector_size(kPanelRows * sizeof(int32_t))));
  using Bytes = int8_t __attribute__((vector_size(kPanelRows)));

  static constexpr uint32_t kBlock = 32;

  static void Run(const PlaneTile& t) noexcept {
    alignas(64) int32_t x_sums[kMaxSubBlocks];
    for (uint32_t token = 0; token < t.tokens; ++token) {
      SumActivations(t, token, x_sums);
      for (uint32_t panel = 0; panel < t.panel_count; ++panel) {
        Panel(t, token, panel, x_sums);
      }
    }
  }

 private:
  static void SumActivations(const PlaneTile& t, uint32_t token, int32_t* sums) noexcept {
    const int8_t* x = t.codes + token * t.code_stride;
    for (uint32_t sub = 0; sub < t.cols / t.sub_block; ++sub, x += t.sub_block) {
      int32_t sum = 0;
      for (uint32_t i = 0; i < t.sub_block; ++i) sum += x[i];
      sums[sub] = sum;
    }
  }

  static void LoadBytes(const int8_t* from, Lanes* lanes) noexcept {
    Bytes bytes;
    __builtin_memcpy(&bytes, from, sizeof bytes);
    *lanes = __builtin_convertvector(bytes, Lanes);
  }
  static Floats AsFloats(const Lanes& lanes) noexcept {
    alignas(64) int32_t ints[kPanelRows];
    __builtin_memcpy(ints, &lanes, sizeof ints);
    return I::ToFloats(I::LoadInts(ints), 0);
  }

  static void Panel(const PlaneTile& t, uint32_t token, uint32_t panel,
                    const int32_t* x_sums) noexcept {
    const uint32_t subs = t.cols / t.sub_block;
    const uint32_t supers = t.cols / t.super_block;
    const size_t panel_first = panel * t.panel_stride;
    const int8_t* x = t.codes + token * t.code_stride;
    const float* d = t.x_scales + token * t.x_scale_stride;
    const size_t sub_first = size_t{panel} * subs * kPanelRows;
    const float* scales = t.scales + size_t{panel} * supers * kPanelRows;
    const float* mins = t.mins + (t.mins == nullptr ? 0 : size_t{panel} * supers * kPanelRows);
    const int8_t* sub_scales = t.sub_scales == nullptr ? nullptr : t.sub_scales + sub_first;
    const int8_t* sub_mins = t.sub_mins == nullptr ? nullptr : t.sub_mins + sub_first;
    // Kernels add (trit + 1) * code: the ones are taken off together with the offset.
    int32_t constant = t.offset;
    for (uint32_t p = 0; p < t.plane_count; ++p) constant -= t.weights[p];

    Floats v = I::Zero();
    for (uint32_t col = 0; col < t.cols; col += kBlock) {
      const size_t super = size_t{col / t.super_block} * kPanelRows;
      Lanes isum = {};
      Lanes msum = {};
      for (uint32_t at = col; at < col + kBlock; at += t.sub_block) {
        const uint32_t sub = at / t.sub_block;
        Lanes dot = Lanes{} + x_sums[sub] * constant;
        AddPlanes(t, panel_first, at, x + at, &dot);
        Lanes factor;
        if (sub_scales != nullptr) {
          LoadBytes(sub_scales + size_t{sub} * kPanelRows, &factor);
          dot *= factor;
        }
        isum += dot;
        if (mins == nullptr) continue;
        factor = Lanes{} + 1;
        if (sub_mins != nullptr) LoadBytes(sub_mins + size_t{sub} * kPanelRows, &factor);
        msum += factor * x_sums[sub];
      }
      const Floats x_scale = I::Set(d[col / kBlock]);
      v = I::Fma(AsFloats(isum), I::Mul(I::Load(scales + super), x_scale), v);
      if (mins == nullptr) continue;
      v = I::Fma(AsFloats(msum), I::Mul(I::Load(mins + super), x_scale), v);
    }
    I::Store(t.out + token * t.out_stride + panel * kPanelRows, v);
  }

  // dot += sum over planes of weight * sum of (trit + 1) * code over a sub-block.
  static void AddPlanes(const PlaneTile& t, size_t panel_first, uint32_t col, const int8_t* x,
                        Lanes* dot) noexcept {
    const size_t first = panel_first + size_t{col / (k2BitDigits * kStepCols)} * kLineBytes;
    for (uint32_t p = 0; p < t.plane_count; ++p) {
      const Ints sum =
          I::template SegmentVector<k2BitDigits>(t.planes[p] + first, x, t.sub_block / kStepCols);
      alignas(64) int32_t ints[kPanelRows];
      I::StoreInts(ints, sum);
      Lanes lanes;
      __builtin_memcpy(&lanes, ints, sizeof lanes);
      *dot += lanes * t.weights[p];
    }
  }
};

}  // namespace fabric::kernels
