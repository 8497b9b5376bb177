#pragma once

#include <random>
#include <vector>

#include "fabric/ternary_matrix.h"

namespace bench {

struct Shape {
  uint32_t rows;
  uint32_t cols;
};
// Of one layer of BitNet b1.58 2B: query, key, value, attention output, gate, up, down.
inline constexpr Shape kLayer2b[] = {{2560, 2560}, {640, 2560},  {640, 2560}, {2560, 2560},
                                     {6912, 2560}, {6912, 2560}, {2560, 6912}};
inline constexpr uint32_t kWidest2b = 6912;

// A third of each value, in 2-bit panels, with one scale; all rows alike.
inline fabric::TernaryMatrix RandomTernary(const Shape& shape) {
  fabric::TernaryMatrix matrix(shape.rows, shape.cols, fabric::ScaleKind::kTensor, 0,
                               fabric::TernaryLayout::kPanel2Bit);
  std::mt19937 random(1);
  std::vector<int8_t> trits(shape.cols);
  for (int8_t& trit : trits) trit = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
  const float scale = 0.01F;
  for (uint32_t row = 0; row < shape.rows; ++row) matrix.SetRow(row, trits, {&scale, 1});
  return matrix;
}

}  // namespace bench
