#include "fabric/coarse_screen.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>
#include <span>

#include "fabric/kernels/kernel_table.h"
#include "fabric/matrix_store.h"
#include "fabric/panel_layout.h"
#include "fabric/parallel.h"
#include "fabric/sparse/mix.h"
#include "fabric/vector_ops.h"

namespace fabric {
namespace {

// Panels of a task: enough to repay its wake-up.
constexpr size_t kTaskPanels = 16;
// The step between levels that is best for a Gaussian row of standard deviation 1.
constexpr float kGaussianStep = 0.9957F;
// Covers the roundings of float sums and of the rotation.
constexpr float kRoundedUp = 1.0F + 1e-5F;
// Squares of a row shorter than this are lost below the smallest float.
constexpr float kShortest = 1e-18F;

void ReadRow(const Matrix& matrix, uint32_t row, std::span<float> out) {
  if (const QuantizedMatrix* quantized = AsQuantized(matrix)) return quantized->GetRow(row, out);
  AsDense(matrix)->GetRow(row, out);
}

size_t PanelBytes(uint32_t cols) { return size_t{LinesOf(cols, k2BitDigits)} * kLineBytes; }

// 0..3 for the level that is nearest to w: -1.5, -0.5, 0.5 or 1.5 steps.
uint8_t CodeOf(float w, float step) {
  return static_cast<uint8_t>(int{w >= -step} + int{w >= 0.0F} + int{w >= step});
}
float LevelOf(uint8_t code) { return static_cast<float>(code) - 1.5F; }

}  // namespace

// Sketches rows of one panel after the other, with buffers of its own.
class CoarseScreen::PanelBuilder {
 public:
  // matrix, rotation and sketch outlive it.
  PanelBuilder(const Matrix& matrix, const Rotation& rotation, RowSketch* sketch)
      : matrix_(matrix),
        rotation_(rotation),
        sketch_(*sketch),
        row_(ColsOf(matrix)),
        codes_(row_.size()),
        levels_(row_.size()) {}

  // Returns a bound of |w|.
  float Sketch(uint32_t row) {
    ReadRow(matrix_, row, row_);
    rotation_.Apply(row_.data());
    const float squares = Dot(row_.data(), row_.data(), row_.size());
    const float step = kGaussianStep * std::sqrt(squares / static_cast<float>(row_.size()));
    for (size_t i = 0; i < row_.size(); ++i) {
      codes_[i] = CodeOf(row_[i], step);
      levels_[i] = LevelOf(codes_[i]);
    }
    Store(row);
    const float products = Dot(levels_.data(), row_.data(), row_.size());
    const float scale = squares > 0 && std::isfinite(squares) ? squares / products : 0.0F;
    const float level_squares = Dot(levels_.data(), levels_.data(), row_.size());
    sketch_.scales[row] = scale;
    sketch_.reach[row] = Reach(squares, scale * scale * level_squares);
    return std::sqrt(squares) * kRoundedUp + kShortest;
  }

 private:
  void Store(uint32_t row) {
    const auto cols = static_cast<uint32_t>(codes_.size());
    uint8_t* panel = sketch_.panels.data() + row / kPanelRows * PanelBytes(cols);
    for (uint32_t first = 0; first < cols; first += kStepCols) {
      const PanelPosition at = PositionInPanel(row % kPanelRows, first, k2BitDigits);
      const uint32_t count = std::min(kStepCols, cols - first);
      for (uint32_t j = 0; j < count; ++j) {
        panel[at.byte + j] |= static_cast<uint8_t>(codes_[first + j] << 2 * at.digit);
      }
    }
  }

  // Of a row of |w|^2 = squares and its sketch of |w~|^2 = sketch: |r|^2 is their difference, for r
  // and w are orthogonal.
  float Reach(float squares, float sketch) const {
    if (!std::isfinite(squares)) return std::numeric_limits<float>::infinity();
    const float widest = std::sqrt(std::max(sketch - squares, sketch / 16));
    return widest / std::sqrt(static_cast<float>(row_.size())) * kMargin * kRoundedUp + kShortest;
  }

  const Matrix& matrix_;
  const Rotation& rotation_;
  RowSketch& sketch_;
  std::vector<float> row_;
  std::vector<uint8_t> codes_;
  std::vector<float> levels_;
};

CoarseScreen::Rotation::Rotation(uint32_t cols) : signs_(cols) {
  for (uint32_t i = 0; i < cols; ++i) signs_[i] = sparse::Mix(i + 1) % 2 == 0 ? 1.0F : -1.0F;
}

void CoarseScreen::Rotation::Apply(float* x) const noexcept {
  const auto cols = static_cast<uint32_t>(signs_.size());
  for (uint32_t i = 0; i < cols; ++i) x[i] *= signs_[i];
  const uint32_t block = cols & (~cols + 1U);  // the largest power of two that divides it
  if (block > 1) Hadamard(x, cols, block);
}

RowSketch CoarseScreen::Blank(const Matrix& matrix) {
  const size_t panels = (size_t{RowsOf(matrix)} + kPanelRows - 1) / kPanelRows;
  RowSketch sketch;
  sketch.reach = AlignedBuffer<float>(RowsOf(matrix));
  sketch.largest_row = AlignedBuffer<float>(1);
  sketch.panels = AlignedBuffer<uint8_t>(panels * PanelBytes(ColsOf(matrix)));
  sketch.scales = AlignedBuffer<float>(panels * kPanelRows);
  return sketch;
}

RowSketch CoarseScreen::Measure(const Matrix& matrix) {
  RowSketch sketch = Blank(matrix);
  const Rotation rotation(ColsOf(matrix));
  std::vector<float> lengths(RowsOf(matrix));
  // Tasks have whole panels, whose bytes rows share.
  ParallelFor(sketch.scales.size() / kPanelRows, kTaskPanels, [&](size_t begin, size_t end) {
    PanelBuilder builder(matrix, rotation, &sketch);
    for (size_t row = begin * kPanelRows; row < std::min(end * kPanelRows, lengths.size()); ++row) {
      lengths[row] = builder.Sketch(static_cast<uint32_t>(row));
    }
  });
  sketch.largest_row[0] = Largest(lengths);
  return sketch;
}

CoarseScreen::CoarseScreen(Matrix matrix, std::shared_ptr<const RowSketch> sketch, WorkerTeam& team,
                           uint32_t max_tokens)
    : RowScreen(std::move(matrix), std::move(sketch), team, max_tokens, kGuard / kMargin),
      cols_(ColsOf(matrix_)),
      panel_bytes_(PanelBytes(cols_)),
      code_stride_(PaddedCols(cols_)),
      rotation_(cols_),
      values_(cols_),
      codes_(max_tokens * code_stride_),
      code_scales_(max_tokens),
      code_sums_(max_tokens) {}

void CoarseScreen::EncodeActivations(const ActivationView& x, uint32_t token) noexcept {
  if (x.kind == ActivationKind::kFloat) {
    std::copy_n(x.values + token * x.value_stride, cols_, values_.data());
  } else {
    const int8_t* codes = x.codes + token * x.code_stride;
    const float* scales = x.scales + token * x.scale_stride;
    for (uint32_t i = 0; i < cols_; ++i) {
      values_[i] = static_cast<float>(codes[i]) * scales[i / kActivationBlock];
    }
  }
  rotation_.Apply(values_.data());
  int8_t* codes = codes_.data() + token * code_stride_;
  const bool finite = QuantizeToken(values_.data(), cols_, code_stride_, codes,
                                    &code_scales_[token], &code_sums_[token]);
  double squares = 0;
  double errors = 0;
  for (uint32_t i = 0; i < cols_; ++i) {
    const auto code = static_cast<double>(codes[i]);
    const double error = double{values_[i]} - code / double{code_scales_[token]};
    squares += double{values_[i]} * double{values_[i]};
    errors += error * error;
  }
  norms_[token] = finite
                      ? static_cast<float>(std::sqrt(squares) + 4 * std::sqrt(errors)) * kRoundedUp
                      : std::numeric_limits<float>::quiet_NaN();
}

void CoarseScreen::Sketch(const ActivationView& x) noexcept {
  assert(x.kind != ActivationKind::kInt8Token && x.tokens <= norms_.size());
  x_ = x;
  for (uint32_t token = 0; token < x.tokens; ++token) EncodeActivations(x, token);
  const kernels::TernaryTileFn kernel = kernels::ActiveKernels().ternary.two_bit;
  const auto task = [&](int, size_t begin, size_t end) {
    const size_t first = begin * kPanelRows;
    const size_t rows = (end - begin) * kPanelRows;
    kernels::TernaryTile tile;
    tile.panels = row_sketch_->panels.data() + begin * panel_bytes_;
    tile.panel_stride = panel_bytes_;
    tile.panel_count = static_cast<uint32_t>(end - begin);
    tile.cols = cols_;
    tile.w_scales = row_sketch_->scales.data() + first;
    tile.w_panel_stride = kPanelRows;
    tile.tokens = x.tokens;
    tile.codes = codes_.data();
    tile.code_stride = code_stride_;
    tile.x_scales = code_scales_.data();
    tile.x_sums = code_sums_.data();
    tile.sum_stride = 1;
    tile.out = sketched_.data() + first;
    tile.out_stride = padded_rows_;
    kernel(tile);
    // To the kernel a code is its level + 1.
    for (uint32_t token = 0; token < x.tokens; ++token) {
      const float half = 0.5F * static_cast<float>(code_sums_[token]) / code_scales_[token];
      float* values = tile.out + token * padded_rows_;
      for (size_t i = 0; i < rows; ++i) values[i] -= half * tile.w_scales[i];
    }
  };
  team_.ParallelFor(padded_rows_ / kPanelRows, kTaskPanels, std::ref(task));
}

}  // namespace fabric
