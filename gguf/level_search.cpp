#include "gguf/level_search.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "gguf/bytes.h"

namespace gguf {
namespace {

constexpr int kMostValues = 256;
constexpr int kMostSubBlocks = 16;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kDescents = 3;  // further ones change the error by less than a thousandth

// All integers of a range.
class UniformLevels {
 public:
  explicit UniformLevels(const LevelShape& shape)
      : lowest_(static_cast<float>(shape.lowest_level)),
        highest_(static_cast<float>(shape.highest_level)) {}

  float Nearest(float value) const {
    // Adding this leaves no bits for a fraction: rounds to nearest even, without nearbyint's call.
    constexpr float kNoFraction = 12582912.0f;
    return (std::clamp(value, lowest_, highest_) + kNoFraction) - kNoFraction;
  }
  int Code(float level) const { return static_cast<int>(level - lowest_); }

 private:
  float lowest_;
  float highest_;
};

// Sixteen that are unevenly spaced.
class ListedLevels {
 public:
  explicit ListedLevels(const LevelShape& shape) : levels_(*shape.levels) {
    for (size_t i = 0; i < middles_.size(); ++i) middles_[i] = (levels_[i] + levels_[i + 1]) / 2;
  }

  float Nearest(float value) const { return levels_[Index(value)]; }
  int Code(float level) const { return static_cast<int>(Index(level)); }

 private:
  size_t Index(float value) const {
    size_t index = 0;
    for (const float middle : middles_) index += value > middle ? 1 : 0;
    return index;
  }

  const std::array<float, 16>& levels_;
  std::array<float, 15> middles_;
};

// weight = scale * level - minimum
struct Line {
  float scale = 0;
  float minimum = 0;
};

// Weighted sums over pairs (a, b, x) for the least squares of x = s a - m b.
struct Moments {
  float aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;

  void Add(float weight, float a, float b, float x) {
    aa += weight * a * a;
    ab += weight * a * b;
    bb += weight * b * b;
    ax += weight * a * x;
    bx += weight * b * x;
  }

  // The best line with m >= 0, and m = 0 where the type has no minimum.
  Line Solve(bool with_minimum) const {
    const float determinant = aa * bb - ab * ab;
    if (with_minimum && determinant > 0) {
      const float minimum = (ab * ax - aa * bx) / determinant;
      if (minimum > 0) return {(bb * ax - ab * bx) / determinant, minimum};
    }
    return {aa > 0 ? ax / aa : 0, 0};
  }
};

template <typename Levels>
class Search {
 public:
  Search(const LevelShape& shape, const float* values)
      : shape_(shape),
        levels_(shape),
        values_(values),
        sub_blocks_(shape.values / shape.sub_block) {
    assert(shape.values <= kMostValues && sub_blocks_ <= kMostSubBlocks);
    float squares = 0;
    for (int i = 0; i < shape.values; ++i) squares += values[i] * values[i];
    const float rms = std::sqrt(squares / static_cast<float>(shape.values));
    for (int i = 0; i < shape.values; ++i) weights_[i] = std::fabs(values[i]) + rms;
  }

  LevelBlock Run() {
    for (int sub = 0; sub < sub_blocks_; ++sub) lines_[sub] = FitSubBlock(sub);
    LevelBlock best;
    Line outer = FirstOuter();
    float least = kInfinity;
    for (int round = 0; round < kDescents; ++round) {
      LevelBlock block;
      block.scale = RoundToHalf(outer.scale);
      block.minimum = RoundToHalf(outer.minimum);
      const float error = ChooseSubScales(&block);
      if (!(error < least)) break;
      least = error;
      best = block;
      outer = RefitOuter(block);
    }
    ChooseCodes(&best);
    return best;
  }

 private:
  bool has_minimum() const { return shape_.highest_min > 0; }

  // Codes for one line over one sub-block; returns their error and fills levels, when asked to.
  float Round(int sub, const Line& line, float* levels) const {
    const int first = sub * shape_.sub_block;
    const float inverse = line.scale == 0 ? 0 : 1 / line.scale;
    float error = 0;
    for (int i = 0; i < shape_.sub_block; ++i) {
      const float value = values_[first + i];
      const float level = levels_.Nearest((value + line.minimum) * inverse);
      const float difference = value - (line.scale * level - line.minimum);
      error += weights_[first + i] * difference * difference;
      if (levels != nullptr) levels[i] = level;
    }
    return error;
  }

  Line LeastSquares(int sub, const float* levels) const {
    const int first = sub * shape_.sub_block;
    Moments moments;
    for (int i = 0; i < shape_.sub_block; ++i) {
      moments.Add(weights_[first + i], levels[i], 1, values_[first + i]);
    }
    return moments.Solve(has_minimum());
  }

  // The best line so far of a sub-block.
  struct Fit {
    Line line;
    float error;
    float negligible;  // what an error has to be smaller by: the rounding of sums must not decide
  };

  // From one start downhill.
  void Descend(int sub, Line line, Fit* best) const {
    std::array<float, kMostValues> levels;
    for (int round = 0; round < kDescents; ++round) {
      const float error = Round(sub, line, levels.data());
      if (error < best->error - best->negligible) {
        best->error = error;
        best->line = line;
      } else if (round > 0) {
        return;
      }
      line = LeastSquares(sub, levels.data());
    }
  }

  // Starts spread the levels over the range of the values, from three quarters of a level too far
  // to one and a half too little, which clips the extremes for finer steps.
  Line FitSubBlock(int sub) const {
    const float* values = values_ + sub * shape_.sub_block;
    const auto [low, high] = std::minmax_element(values, values + shape_.sub_block);
    const float minimum = has_minimum() ? std::max(0.0f, -*low) : 0;
    const float range = has_minimum() ? std::max(*high, 0.0f) + minimum
                                      : std::max(std::fabs(*low), std::fabs(*high));
    const auto reach = static_cast<float>(std::max(-shape_.lowest_level, shape_.highest_level));
    const float steps = shape_.levels == nullptr ? reach : 8;
    const float of_zeros = Round(sub, {}, nullptr);
    Fit best = {{}, of_zeros, of_zeros * 0x1p-23f};
    for (const float offset : kStarts) {
      const float part = 1 + offset / steps;
      const float scale = part * range / reach;
      Descend(sub, {scale, minimum}, &best);
      // The levels reach further down than up: for values that reach further up, upside down.
      if (!has_minimum()) Descend(sub, {-scale, 0}, &best);
    }
    return best.line;
  }

  // The extreme sub-block takes the extreme integer, whose product must reach it: float16 rounds by
  // an eighth and more near its smallest numbers.
  Line FirstOuter() const {
    float extreme = 0, minimum = 0;
    for (int sub = 0; sub < sub_blocks_; ++sub) {
      if (std::fabs(lines_[sub].scale) > std::fabs(extreme)) extreme = lines_[sub].scale;
      minimum = std::max(minimum, lines_[sub].minimum);
    }
    const int reach = shape_.lowest_scale < 0 ? shape_.lowest_scale : shape_.highest_scale;
    return {AwayFromZero(extreme / static_cast<float>(reach)),
            has_minimum() ? AwayFromZero(minimum / static_cast<float>(shape_.highest_min)) : 0};
  }

  // The nearest float16 that is no smaller in magnitude.
  static float AwayFromZero(float value) {
    const uint16_t half = FloatToHalf(value);
    const bool smaller = std::fabs(HalfToFloat(half)) < std::fabs(value);
    return HalfToFloat(static_cast<uint16_t>(smaller ? half + 1 : half));
  }

  // The integers nearest to each sub-block's line and their neighbours.
  float ChooseSubScales(LevelBlock* block) const {
    float total = 0;
    for (int sub = 0; sub < sub_blocks_; ++sub) {
      const int scale = NearestInteger(lines_[sub].scale, block->scale, shape_.lowest_scale,
                                       shape_.highest_scale);
      const int minimum =
          NearestInteger(lines_[sub].minimum, block->minimum, 0, shape_.highest_min);
      float least = kInfinity;
      TryNeighbours(sub, scale, minimum, block, &least);
      // Upside down, where few integers are near.
      if (shape_.lowest_scale < 0) TryNeighbours(sub, -scale, minimum, block, &least);
      total += least;
    }
    return total;
  }

  void TryNeighbours(int sub, int scale, int minimum, LevelBlock* block, float* least) const {
    const int first_scale = std::max(scale - 1, shape_.lowest_scale);
    const int last_scale = std::min(scale + 1, shape_.highest_scale);
    const int last_minimum = std::min(minimum + 1, shape_.highest_min);
    for (int s = first_scale; s <= last_scale; ++s) {
      for (int m = std::max(minimum - 1, 0); m <= last_minimum; ++m) {
        const float error = Round(sub, LineOf(*block, s, m), nullptr);
        if (!(error < *least)) continue;
        *least = error;
        block->sub_scales[sub] = static_cast<int8_t>(s);
        block->sub_mins[sub] = static_cast<int8_t>(m);
      }
    }
  }

  static int NearestInteger(float value, float unit, int low, int high) {
    const float ratio = unit == 0 ? 0 : value / unit;
    return static_cast<int>(
        std::nearbyint(std::clamp(ratio, static_cast<float>(low), static_cast<float>(high))));
  }

  static Line LineOf(const LevelBlock& block, int sub_scale, int sub_min) {
    return {block.scale * static_cast<float>(sub_scale),
            block.minimum * static_cast<float>(sub_min)};
  }

  // Float scales for the integers of `block`, by least squares over all of it.
  Line RefitOuter(const LevelBlock& block) const {
    std::array<float, kMostValues> levels;
    Moments moments;
    for (int sub = 0; sub < sub_blocks_; ++sub) {
      const int first = sub * shape_.sub_block;
      const float scale = block.sub_scales[sub], minimum = block.sub_mins[sub];
      Round(sub, LineOf(block, block.sub_scales[sub], block.sub_mins[sub]), levels.data());
      for (int i = 0; i < shape_.sub_block; ++i) {
        moments.Add(weights_[first + i], scale * levels[i], minimum, values_[first + i]);
      }
    }
    return moments.Solve(has_minimum());
  }

  void ChooseCodes(LevelBlock* block) const {
    std::array<float, kMostValues> levels;
    for (int sub = 0; sub < sub_blocks_; ++sub) {
      Round(sub, LineOf(*block, block->sub_scales[sub], block->sub_mins[sub]), levels.data());
      for (int i = 0; i < shape_.sub_block; ++i) {
        block->codes[sub * shape_.sub_block + i] = static_cast<uint8_t>(levels_.Code(levels[i]));
      }
    }
  }

  // In levels. The exact range comes first, so that blocks without error use all levels alike.
  static constexpr float kStarts[] = {0,      -0.25f, 0.25f, -0.5f,  0.5f,
                                      -0.75f, 0.75f,  -1.0f, -1.25f, -1.5f};

  const LevelShape& shape_;
  const Levels levels_;
  const float* values_;
  const int sub_blocks_;
  std::array<float, kMostValues> weights_ = {};
  std::array<Line, kMostSubBlocks> lines_ = {};
};

}  // namespace

LevelBlock ChooseLevels(const LevelShape& shape, const float* values) {
  return shape.levels == nullptr ? Search<UniformLevels>(shape, values).Run()
                                 : Search<ListedLevels>(shape, values).Run();
}

}  // namespace gguf
