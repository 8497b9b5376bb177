#include "fabric/plane_matrix.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "fabric/half.h"
#include "fabric/panel_layout.h"
#include "fabric/parallel.h"

namespace fabric {
namespace {

using kernels::kMaxTernaryPlanes;
using kernels::QuantizedFormat;

// Rows that one task decodes. Their sums are added in the order of the tasks, so that an estimate
// does not depend on the threads.
constexpr size_t kPlaneRowsPerTask = 64;
// Levels reach from -128 to 127.
constexpr int32_t kLowestLevel = -128;
constexpr size_t kLevels = 256;
// Of the mean of all columns, what each one weighs at least.
constexpr double kLeastWeight = 1e-3;

// Per level: the sum of the squares of the scales that multiply it, each times its column's weight.
using Histogram = std::array<double, kLevels>;

int32_t Largest(uint32_t planes) {
  int32_t power = 1;
  for (uint32_t p = 0; p < planes; ++p) power *= 3;
  return (power - 1) / 2;
}

// What brings a type's levels around zero: the codes of types with minimums have no sign.
int32_t OffsetOf(const QuantizedFormat& format) {
  return format.mins ? 1 << (CodeBits(format) - 1) : 0;
}

// The largest magnitude of a level less its offset.
int32_t ReachOf(const QuantizedFormat& format) {
  if (format.nonlinear) return format.zero - kernels::kNonlinearLevels[0];
  return 1 << (CodeBits(format) - 1);
}

// The nearest multiple of `step` within reach, as a multiple; halves go away from zero.
int32_t MultipleOf(int32_t level, int32_t step, int32_t largest) {
  const int32_t magnitude = std::min((std::abs(level) + step / 2) / step, largest);
  return level < 0 ? -magnitude : magnitude;
}

// Scales of a row, as the file's definition multiplies them.
struct BlockScale {
  float scale = 0;
  float min = 0;
};

BlockScale ScaleOf(const kernels::QuantizedTile& t, uint32_t row, uint32_t col) {
  const size_t super = row * t.scale_stride + col / t.format.super_block;
  const size_t sub = row * t.sub_stride + col / t.format.sub_block;
  BlockScale result{.scale = HalfToFloat(t.scales[super])};
  if (t.format.mins) result.min = HalfToFloat(t.mins[super]);
  if (t.format.sub_scales) result.scale *= static_cast<float>(t.sub_scales[sub]);
  if (t.format.sub_scales && t.format.mins) result.min *= static_cast<float>(t.sub_mins[sub]);
  return result;
}

struct Statistics {
  Histogram levels = {};  // less the offset
  double norm = 0;        // sum of the squares of the weights
};

void AddRow(const QuantizedMatrix& matrix, uint32_t row, std::span<const double> weights,
            std::span<int16_t> levels, Statistics* sums) {
  const kernels::QuantizedTile tile = matrix.Tile();
  const int32_t offset = OffsetOf(matrix.format());
  matrix.GetLevels(row, levels);
  for (uint32_t first = 0; first < matrix.cols(); first += tile.format.sub_block) {
    const BlockScale block = ScaleOf(tile, row, first);
    const double square = double{block.scale} * block.scale;
    for (uint32_t col = first; col < first + tile.format.sub_block; ++col) {
      const double weight = double{block.scale} * levels[col] + block.min;
      sums->norm += weights[col] * weight * weight;
      sums->levels[static_cast<size_t>(levels[col] - offset - kLowestLevel)] +=
          weights[col] * square;
    }
  }
}

// What each column weighs, 1 on average.
std::vector<double> ColumnWeights(uint32_t cols, std::span<const float> mean_squares) {
  const double mean = std::accumulate(mean_squares.begin(), mean_squares.end(), 0.0) / cols;
  std::vector<double> weights(cols, 1.0);
  for (uint32_t col = 0; mean > 0 && col < cols; ++col) {
    weights[col] = std::max(mean_squares[col] / mean, kLeastWeight);
  }
  return weights;
}

Statistics StatisticsOf(const QuantizedMatrix& matrix, std::span<const double> weights) {
  const size_t tasks = (matrix.rows() + kPlaneRowsPerTask - 1) / kPlaneRowsPerTask;
  std::vector<Statistics> parts(tasks);
  ParallelFor(tasks, 1, [&](size_t begin, size_t end) {
    std::vector<int16_t> levels(matrix.cols());
    for (size_t task = begin; task < end; ++task) {
      const size_t last = std::min<size_t>((task + 1) * kPlaneRowsPerTask, matrix.rows());
      for (size_t row = task * kPlaneRowsPerTask; row < last; ++row) {
        AddRow(matrix, static_cast<uint32_t>(row), weights, levels, &parts[task]);
      }
    }
  });
  Statistics sums;
  for (const Statistics& part : parts) {
    sums.norm += part.norm;
    for (size_t i = 0; i < kLevels; ++i) sums.levels[i] += part.levels[i];
  }
  return sums;
}

double SquaredError(const Histogram& levels, int32_t step, int32_t largest) {
  double sum = 0;
  for (size_t i = 0; i < kLevels; ++i) {
    const int32_t level = static_cast<int32_t>(i) + kLowestLevel;
    const int32_t missed = level - step * MultipleOf(level, step, largest);
    sum += levels[i] * missed * missed;
  }
  return sum;
}

// balanced base-3 digits, lowest first.
void DigitsOf(int32_t value, std::span<int8_t> digits) {
  for (int8_t& digit : digits) {
    const int32_t remainder = ((value % 3) + 3) % 3;
    digit = static_cast<int8_t>(remainder == 2 ? -1 : remainder);
    value = (value - digit) / 3;
  }
}

}  // namespace

uint32_t ExactPlanes(QuantizedType type) {
  uint32_t planes = 1;
  while (Largest(planes) < ReachOf(FormatOf(type))) ++planes;
  return planes;
}

std::vector<PlaneChoice> MeasurePlanes(const QuantizedMatrix& matrix,
                                       std::span<const float> mean_squares) {
  assert(mean_squares.empty() || mean_squares.size() == matrix.cols());
  const Statistics statistics = StatisticsOf(matrix, ColumnWeights(matrix.cols(), mean_squares));
  const int32_t reach = ReachOf(matrix.format());
  std::vector<PlaneChoice> choices;
  for (uint32_t planes = 1; planes <= ExactPlanes(matrix.type()); ++planes) {
    const int32_t largest = Largest(planes);
    PlaneChoice best{.planes = planes};
    double least = SquaredError(statistics.levels, 1, largest);
    for (int32_t step = 2; step <= reach; ++step) {
      const double error = SquaredError(statistics.levels, step, largest);
      if (error >= least) continue;
      least = error;
      best.step = step;
    }
    best.error = least == 0 ? 0 : std::sqrt(least / statistics.norm);
    choices.push_back(best);
  }
  return choices;
}

PlaneMatrix::PlaneMatrix(const QuantizedMatrix& matrix, const PlaneChoice& choice)
    : type_(matrix.type()), choice_(choice), offset_(OffsetOf(matrix.format())) {
  int32_t weight = choice.step;
  for (uint32_t p = 0; p < choice.planes; ++p, weight *= 3) {
    weights_[p] = weight;
    planes_.emplace_back(matrix.rows(), matrix.cols(), ScaleKind::kTensor, 0,
                         TernaryLayout::kPanel2Bit);
  }
  SetPlanes(matrix);
  SetScales(matrix);
  KeepShadow(matrix);
}

void PlaneMatrix::SetPlanes(const QuantizedMatrix& matrix) {
  const int32_t largest = Largest(choice_.planes);
  const std::array<float, 1> one = {1.0F};
  ParallelFor(matrix.rows(), kPlaneRowsPerTask, [&](size_t begin, size_t end) {
    const size_t cols = matrix.cols();
    std::vector<int16_t> levels(cols);
    std::vector<int8_t> trits(cols * choice_.planes);
    std::array<int8_t, kMaxTernaryPlanes> digits;
    for (size_t row = begin; row < end; ++row) {
      matrix.GetLevels(static_cast<uint32_t>(row), levels);
      for (size_t col = 0; col < cols; ++col) {
        DigitsOf(MultipleOf(levels[col] - offset_, choice_.step, largest),
                 std::span(digits).first(choice_.planes));
        for (uint32_t p = 0; p < choice_.planes; ++p) trits[p * cols + col] = digits[p];
      }
      for (uint32_t p = 0; p < choice_.planes; ++p) {
        planes_[p].SetRow(static_cast<uint32_t>(row), std::span(trits).subspan(p * cols, cols),
                          one);
      }
    }
  });
  for (TernaryMatrix& plane : planes_) plane.CountNonZeros();
}

// From rows to panels: 16 rows' values of one block lie side by side.
void PlaneMatrix::SetScales(const QuantizedMatrix& matrix) {
  const kernels::QuantizedTile t = matrix.Tile();
  const size_t panel_rows = size_t{planes_.front().panel_count()} * kPanelRows;
  const size_t supers = matrix.cols() / t.format.super_block;
  const size_t subs = matrix.cols() / t.format.sub_block;
  scales_ = AlignedBuffer<float>(panel_rows * supers);
  if (t.format.mins) mins_ = AlignedBuffer<float>(panel_rows * supers);
  if (t.format.sub_scales) sub_scales_ = AlignedBuffer<int8_t>(panel_rows * subs);
  if (t.format.sub_scales && t.format.mins) sub_mins_ = AlignedBuffer<int8_t>(panel_rows * subs);
  for (size_t row = 0; row < matrix.rows(); ++row) {
    const size_t panel = row / kPanelRows;
    const size_t lane = row % kPanelRows;
    for (size_t i = 0; i < supers; ++i) {
      const size_t to = (panel * supers + i) * kPanelRows + lane;
      scales_[to] = HalfToFloat(t.scales[row * t.scale_stride + i]);
      if (t.format.mins) mins_[to] = HalfToFloat(t.mins[row * t.scale_stride + i]);
    }
    for (size_t i = 0; t.format.sub_scales && i < subs; ++i) {
      const size_t to = (panel * subs + i) * kPanelRows + lane;
      sub_scales_[to] = t.sub_scales[row * t.sub_stride + i];
      if (t.format.mins) sub_mins_[to] = t.sub_mins[row * t.sub_stride + i];
    }
  }
}

void PlaneMatrix::KeepShadow(const QuantizedMatrix& matrix) {
  const uint32_t count = std::min(kShadowRows, matrix.rows());
  for (uint32_t i = 0; i < count; ++i) {
    shadow_rows_.push_back(static_cast<uint32_t>(uint64_t{i} * matrix.rows() / count));
  }
  shadow_ = std::make_unique<const QuantizedMatrix>(matrix.CopyRows(shadow_rows_));
}

void PlaneMatrix::GetLevels(uint32_t row, std::span<int16_t> out) const {
  std::fill(out.begin(), out.end(), static_cast<int16_t>(offset_));
  std::vector<int8_t> trits(cols());
  for (size_t p = 0; p < planes_.size(); ++p) {
    planes_[p].GetRow(row, trits);
    for (size_t col = 0; col < trits.size(); ++col) {
      out[col] = static_cast<int16_t>(out[col] + weights_[p] * trits[col]);
    }
  }
}

size_t PlaneMatrix::bytes() const {
  const size_t scales = (scales_.size() + mins_.size()) * sizeof(float);
  return std::accumulate(
      planes_.begin(), planes_.end(), scales + sub_scales_.size() + sub_mins_.size(),
      [](size_t sum, const TernaryMatrix& plane) { return sum + plane.panels().size(); });
}

kernels::PlaneTile PlaneMatrix::Tile(uint32_t first_panel, uint32_t panel_count) const {
  const QuantizedFormat& format = FormatOf(type_);
  const size_t row = size_t{first_panel} * kPanelRows;
  const size_t sub = row * (cols() / format.sub_block);
  const size_t super = row * (cols() / format.super_block);
  kernels::PlaneTile tile;
  for (size_t p = 0; p < planes_.size(); ++p) {
    tile.planes[p] = planes_[p].panels().data() + first_panel * planes_[p].panel_bytes();
    tile.weights[p] = weights_[p];
  }
  tile.plane_count = static_cast<uint32_t>(planes_.size());
  tile.offset = offset_;
  tile.panel_stride = planes_.front().panel_bytes();
  tile.panel_count = panel_count;
  tile.cols = cols();
  tile.sub_block = format.sub_block;
  tile.super_block = format.super_block;
  tile.sub_scales = sub_scales_.empty() ? nullptr : sub_scales_.data() + sub;
  tile.sub_mins = sub_mins_.empty() ? nullptr : sub_mins_.data() + sub;
  tile.scales = scales_.data() + super;
  tile.mins = mins_.empty() ? nullptr : mins_.data() + super;
  return tile;
}

}  // namespace fabric
