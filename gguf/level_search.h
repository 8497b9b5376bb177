#pragma once

#include <array>
#include <cstdint>

namespace gguf {

// What the encoder of a block type may choose. In a block of `values` weights
//
//   weight = scale * sub_scale * level - minimum * sub_min
//
// with float16 scale and minimum, one integer sub_scale and sub_min per sub_block weights, and one
// of a few levels per weight.
struct LevelShape {
  int values;     // at most 256
  int sub_block;  // divides values; at most 16 in a block
  int lowest_level, highest_level;
  int lowest_scale, highest_scale;  // of sub_scale; equal when the type has none
  int highest_min = 0;              // of sub_min; 0 when the type has none
  // The levels in ascending order where they are not all the integers of the range; else nullptr.
  const std::array<float, 16>* levels = nullptr;
};

struct LevelBlock {
  float scale = 0;
  float minimum = 0;                       // as subtracted
  std::array<int8_t, 16> sub_scales = {};  // [values / sub_block]
  std::array<int8_t, 16> sub_mins = {};    // [values / sub_block]
  std::array<uint8_t, 256> codes = {};     // [values]: level - lowest_level, or the level's index
};

// Chooses scales and codes that make the weighted squared error small: sum of u (x - weight)^2 with
// u = |x| + rms(x), so that the large weights, which decide an output, count more than those near
// zero, which mostly cancel out.
//
// A descent, not an exhaustive search: each sub-block is fitted on its own from several starts, by
// turns of rounding to levels and least squares; then integer scales near the fitted ones are tried
// with float16 scales that are themselves refitted. The same values give the same block everywhere.
//
// values: [shape.values], finite and at most 65504 in magnitude.
LevelBlock ChooseLevels(const LevelShape& shape, const float* values);

}  // namespace gguf
