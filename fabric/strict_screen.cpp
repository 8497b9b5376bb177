#include "fabric/strict_screen.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <vector>

#include "fabric/half.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/parallel.h"
#include "fabric/projection.h"

namespace fabric {
namespace {

// Rows of a task: enough to repay its wake-up.
constexpr size_t kTaskRows = 256;
// Columns of the narrowest sub-block, and the kernels' vectors of rows.
constexpr uint32_t kVector = 16;
// Covers the roundings of sums in double and of the conversion to float.
constexpr double kUpward = 1.0 + 1e-6;

// Sums over 16 columns from `col` of the lower plane's field and of its square.
struct FieldSums {
  int32_t sum = 0;
  int32_t squares = 0;
};

FieldSums SumFields(const kernels::QuantizedTile& tile, uint32_t bits, uint32_t row, uint32_t col) {
  const uint32_t in_unit = col % (8 * kernels::kPlaneUnit / bits);
  const uint8_t* bytes = tile.planes[1] + kernels::PlaneOffset(bits, tile.cols, row, col) +
                         in_unit % kernels::kPlaneUnit;
  const uint32_t shift = in_unit / kernels::kPlaneUnit * bits;
  const int32_t mask = (1 << bits) - 1;
  FieldSums sums;
  for (uint32_t i = 0; i < kVector; ++i) {
    const int32_t field = (bytes[i] >> shift) & mask;
    sums.sum += field;
    sums.squares += field * field;
  }
  return sums;
}

struct RowBounds {
  float reach = 0;
  float length = 0;  // of |w|
};

RowBounds MeasureRow(const kernels::QuantizedTile& tile, uint32_t row) {
  const kernels::QuantizedFormat& f = tile.format;
  const uint32_t dropped = kernels::DroppedBits(f, 1);
  const double step = std::ldexp(1.0, static_cast<int>(dropped));
  const double middle = (kernels::IsDoubled(f, 1) ? step - 1 : step) / 2;
  const double largest_code = std::max(f.zero, (1 << kernels::CodeBits(f)) - 1 - f.zero);
  double residual = 0;
  double longest = 0;
  for (uint32_t first = 0; first < tile.cols; first += f.super_block) {
    const double block_scale =
        HalfToFloat(tile.scales[row * tile.scale_stride + first / f.super_block]);
    for (uint32_t col = first; col < first + f.super_block; col += kVector) {
      double scale = block_scale;
      if (f.sub_scales) scale *= tile.sub_scales[row * tile.sub_stride + col / f.sub_block];
      const FieldSums sums = SumFields(tile, dropped, row, col);
      residual +=
          scale * scale * (sums.squares - 2 * middle * sums.sum + kVector * middle * middle);
      longest += scale * scale * kVector * largest_code * largest_code;
    }
  }
  const uint32_t roundings_of_blocks = tile.cols / kernels::kQuantizedBlock;
  const double roundings = roundings_of_blocks + 4.0;
  const double u = 0x1p-24;
  const double gamma = roundings * u / (1.0 - roundings * u);
  // A sketch's code may lie outside the matrix's own range by half a step.
  const double length = std::sqrt(longest) * (largest_code + 1) / largest_code;
  return {.reach = static_cast<float>((std::sqrt(residual) + gamma * 2 * length) * kUpward),
          .length = static_cast<float>(length * kUpward)};
}

}  // namespace

bool StrictScreen::Supports(const QuantizedMatrix& matrix) {
  const kernels::QuantizedFormat& format = matrix.format();
  return format.planes[1] != 0 && !format.mins && !format.nonlinear;
}

RowSketch StrictScreen::Blank(const QuantizedMatrix& matrix) {
  RowSketch sketch;
  sketch.reach = AlignedBuffer<float>(matrix.rows());
  sketch.largest_row = AlignedBuffer<float>(1);
  return sketch;
}

RowSketch StrictScreen::Measure(const QuantizedMatrix& matrix) {
  assert(Supports(matrix));
  RowSketch sketch = Blank(matrix);
  std::vector<float> lengths(matrix.rows());
  const kernels::QuantizedTile tile = matrix.Tile();
  ParallelFor(lengths.size(), kTaskRows, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      const RowBounds bounds = MeasureRow(tile, static_cast<uint32_t>(row));
      sketch.reach[row] = bounds.reach;
      lengths[row] = bounds.length;
    }
  });
  sketch.largest_row[0] = Largest(lengths);
  return sketch;
}

StrictScreen::StrictScreen(std::shared_ptr<const QuantizedMatrix> matrix,
                           std::shared_ptr<const RowSketch> sketch, WorkerTeam& team,
                           uint32_t max_tokens)
    : RowScreen(matrix, std::move(sketch), team, max_tokens,
                std::numeric_limits<float>::infinity()),
      quantized_(*matrix) {}

void StrictScreen::Sketch(const ActivationView& x) noexcept {
  assert(x.kind == ActivationKind::kInt8Block && x.tokens <= norms_.size());
  x_ = x;
  for (uint32_t token = 0; token < x.tokens; ++token) {
    double sum = 0;
    for (uint32_t block = 0; block < x.cols / kActivationBlock; ++block) {
      const int8_t* codes = x.codes + token * x.code_stride + size_t{block} * kActivationBlock;
      int32_t squares = 0;
      for (uint32_t i = 0; i < kActivationBlock; ++i) squares += codes[i] * codes[i];
      const double d = x.scales[token * x.scale_stride + block];
      sum += d * d * squares;
    }
    norms_[token] = static_cast<float>(std::sqrt(sum) * kUpward);
  }
  // Doubled sketches are halved here, which is exact.
  const bool doubled = kernels::IsDoubled(quantized_.format(), 1);
  const kernels::KernelTable& kernels = kernels::ActiveKernels();
  const auto task = [&](int, size_t begin, size_t end) {
    uint32_t rows[kTileRows];
    for (size_t first = begin; first < end; first += kTileRows) {
      const size_t count = std::min<size_t>(kTileRows, end - first);
      std::iota(rows, rows + count, static_cast<uint32_t>(first));
      kernels::QuantizedTile tile =
          QuantizedTileOf(quantized_, x, 0, x.tokens, std::span(rows, count),
                          sketched_.data() + first, padded_rows_);
      tile.sketch_planes = 1;
      kernels.quantized(tile);
      if (!doubled) continue;
      for (uint32_t token = 0; token < x.tokens; ++token) {
        float* values = sketched_.data() + token * padded_rows_ + first;
        for (size_t i = 0; i < count; ++i) values[i] *= 0.5F;
      }
    }
  };
  // kTaskRows is a multiple of kTileRows, so tasks write whole vectors of their own.
  team_.ParallelFor(quantized_.rows(), kTaskRows, std::ref(task));
}

}  // namespace fabric
