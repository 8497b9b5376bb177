#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "fabric/half.h"
#include "fabric/quantized_matrix.h"
#include "tests/fabric/cases.h"

// Random quantised matrices for tests of them and of what is made of them.
namespace fabric::testing {

inline constexpr QuantizedType kQuantizedTypes[] = {
    QuantizedType::kQ4_0, QuantizedType::kQ4_1,   QuantizedType::kQ5_0, QuantizedType::kQ5_1,
    QuantizedType::kQ8_0, QuantizedType::kIQ4_NL, QuantizedType::kQ2_K, QuantizedType::kQ3_K,
    QuantizedType::kQ4_K, QuantizedType::kQ5_K,   QuantizedType::kQ6_K, QuantizedType::kIQ4_XS};

// A matrix and what it was made of, row after row.
struct QuantizedCase {
  QuantizedMatrix matrix;
  std::vector<uint8_t> codes;
  std::vector<int8_t> sub_scales;
  std::vector<int8_t> sub_mins;
  std::vector<uint16_t> scales;
  std::vector<uint16_t> mins;

  QuantizedCase(QuantizedType type, uint32_t rows, uint32_t cols, uint32_t seed)
      : matrix(type, rows, cols) {
    const kernels::QuantizedFormat& f = matrix.format();
    Random random(seed);
    std::normal_distribution<float> normal;
    const auto half = [&] { return FloatToHalf(normal(random)); };
    for (uint32_t row = 0; row < rows; ++row) {
      // Some rows hold one extreme code and scale alone.
      const unsigned style = random() % 6;
      const unsigned top = (1U << kernels::CodeBits(f)) - 1;
      for (uint32_t col = 0; col < cols; ++col) {
        codes.push_back(static_cast<uint8_t>(style == 0 ? 0 : (style == 1 ? top : random() & top)));
      }
      for (uint32_t sub = 0; f.sub_scales && sub < cols / f.sub_block; ++sub) {
        sub_scales.push_back(static_cast<int8_t>(style < 2 ? 0x80U : random()));
        if (f.mins) sub_mins.push_back(static_cast<int8_t>(random()));
      }
      for (uint32_t super = 0; super < cols / f.super_block; ++super) {
        scales.push_back(half());
        if (f.mins) mins.push_back(half());
      }
    }
    const auto part = [rows](const auto& all, uint32_t row) {
      const size_t count = all.size() / rows;
      return std::span(all).subspan(row * count, count);
    };
    for (uint32_t row = 0; row < rows; ++row) {
      matrix.SetRow(row, {.codes = part(codes, row),
                          .sub_scales = part(sub_scales, row),
                          .sub_mins = part(sub_mins, row),
                          .scales = part(scales, row),
                          .mins = part(mins, row)});
    }
  }

  // code - zero, or twice that with the bits from `dropped` down in the middle of their range.
  int Level(uint32_t row, uint32_t col, uint32_t dropped) const {
    const kernels::QuantizedFormat& f = matrix.format();
    const int code = codes[size_t{row} * matrix.cols() + col];
    if (f.nonlinear) return kernels::kNonlinearLevels[code] - f.zero;
    if (dropped == 0) return code - f.zero;
    const int kept = code >> dropped << dropped;
    if (kernels::CodeBits(f) == 8) return kept + (1 << (dropped - 1)) - f.zero;
    return 2 * kept + (1 << dropped) - 1 - 2 * f.zero;
  }
  int SubScale(uint32_t row, uint32_t col) const {
    return At(sub_scales, matrix.format().sub_block, row, col, 1);
  }
  int SubMin(uint32_t row, uint32_t col) const {
    return At(sub_mins, matrix.format().sub_block, row, col, 1);
  }
  float Scale(uint32_t row, uint32_t col) const {
    return HalfToFloat(At(scales, matrix.format().super_block, row, col, uint16_t{0}));
  }
  float Min(uint32_t row, uint32_t col) const {
    return HalfToFloat(At(mins, matrix.format().super_block, row, col, uint16_t{0}));
  }

 private:
  template <typename T, typename Default>
  Default At(const std::vector<T>& all, uint32_t per, uint32_t row, uint32_t col,
             Default otherwise) const {
    if (all.empty()) return otherwise;
    return all[size_t{row} * (matrix.cols() / per) + col / per];
  }
};

}  // namespace fabric::testing
