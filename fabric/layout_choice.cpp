#include "fabric/layout_choice.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <functional>
#include <vector>

#include "fabric/aligned_buffer.h"
#include "fabric/panel_layout.h"
#include "fabric/parallel.h"
#include "fabric/projection.h"
#include "fabric/seconds_since.h"
#include "fabric/sparse/mix.h"
#include "fabric/sparse/sparse_lines.h"

namespace fabric {
namespace {

// More than last-level caches hold, as the weights of a model are.
constexpr size_t kPanelBytes = size_t{96} << 20;
constexpr uint32_t kCols = 2560;
constexpr uint32_t kPanelsPerTile = 4;
constexpr int kRuns = 4;
constexpr int kPairs = 7;
// PT-5 takes four fifths of the memory, which is worth a smaller loss.
constexpr double kNoLoss = 0.92;

// One token's worth of activations, and the tiles that one matrix of many panels is cut into.
class Workload {
 public:
  explicit Workload(ActivationKind activation)
      : panels_(kPanelBytes),
        codes_(kCols),
        scales_(kCols / kActivationBlock),
        sums_(kCols / kActivationBlock),
        blocks_(activation == ActivationKind::kInt8Block) {
    // Untouched pages would all be one page of zeros.
    for (size_t i = 0; i < kPanelBytes; i += kLineBytes) panels_[i] = k2BitZeros;
    for (uint32_t i = 0; i < kCols; ++i) codes_[i] = static_cast<int8_t>(i);
    std::fill(scales_.begin(), scales_.end(), 1.0F);
    std::fill(std::begin(w_scales_), std::end(w_scales_), 1.0F);
  }

  double Seconds(const kernels::KernelTable& kernels, WorkerTeam* team,
                 TernaryLayout layout) const {
    const bool two_bit = layout == TernaryLayout::kPanel2Bit;
    const kernels::TernaryTileFn run = two_bit ? kernels.ternary.two_bit : kernels.ternary.pt5;
    const size_t stride = size_t{LinesOf(kCols, two_bit ? k2BitDigits : kPt5Digits)} * kLineBytes;
    // The same number of weights in either layout.
    const size_t tiles =
        kPanelBytes / (size_t{LinesOf(kCols, k2BitDigits)} * kLineBytes * kPanelsPerTile);
    const auto work = [&](int, size_t begin, size_t end) {
      for (size_t tile = begin; tile < end; ++tile) RunTile(run, tile, stride);
    };
    const auto start = std::chrono::steady_clock::now();
    if (team == nullptr) {
      work(0, 0, tiles);
    } else {
      team->ParallelFor(tiles, 1, std::ref(work));
    }
    return SecondsSince(start);
  }

 private:
  void RunTile(kernels::TernaryTileFn run, size_t index, size_t stride) const {
    alignas(64) float out[kPanelsPerTile * kPanelRows];
    kernels::TernaryTile tile;
    tile.panels = panels_.data() + index * kPanelsPerTile * stride;
    tile.panel_stride = stride;
    tile.panel_count = kPanelsPerTile;
    tile.cols = kCols;
    tile.sum = blocks_ ? kernels::TernarySum::kBlocks : kernels::TernarySum::kToken;
    tile.segment = kActivationBlock;
    tile.segments_per_scale = 0;
    tile.w_scales = w_scales_;
    tile.tokens = 1;
    tile.codes = codes_.data();
    tile.code_stride = kCols;
    tile.x_scales = scales_.data();
    tile.scale_stride = scales_.size();
    tile.x_sums = sums_.data();
    tile.sum_stride = sums_.size();
    tile.out = out;
    tile.out_stride = kPanelsPerTile * kPanelRows;
    run(tile);
  }

  AlignedBuffer<uint8_t> panels_;
  AlignedBuffer<int8_t> codes_;
  AlignedBuffer<float> scales_;
  AlignedBuffer<int32_t> sums_;
  float w_scales_[kPanelRows];
  bool blocks_;
};

// As many weights as the layers of a small model have, in a shape of such a model's.
constexpr uint32_t kSparseRows = 32768;
constexpr uint32_t kSparseCols = 4096;
constexpr double kFewNonZeros = 0.02;
constexpr double kManyNonZeros = 0.1;
constexpr uint32_t kPromptTokens = 32;
constexpr size_t kSparseRowsPerTask = 256;
constexpr double kDensestFound = 0.5;
// Of runs of a few milliseconds, which a busy machine disturbs more.
constexpr int kShortRuns = 16;

// So many non-zeros per row, at random.
TernaryMatrix RandomSparse(double density) {
  const auto count = static_cast<uint32_t>(density * kSparseCols);
  const float scale = 1.0F;
  return TernaryMatrix::PackSparse(
      kSparseRows, kSparseCols, ScaleKind::kTensor, 0, {&scale, 1},
      [count](uint32_t row, std::span<int8_t> trits) {
        std::fill(trits.begin(), trits.end(), int8_t{0});
        for (uint32_t i = 0; i < count; ++i) {
          const uint64_t bits = sparse::Mix(uint64_t{row} * kSparseCols + i + 1);
          trits[bits % kSparseCols] = bits >> 63 != 0 ? int8_t{1} : int8_t{-1};
        }
      });
}

// The speed of the other layouts does not depend on the trits.
TernaryMatrix Zeros(TernaryLayout layout) {
  TernaryMatrix matrix(kSparseRows, kSparseCols, ScaleKind::kTensor, 0, layout);
  const std::vector<int8_t> trits(kSparseCols);
  const float scale = 1.0F;
  ParallelFor(kSparseRows, kSparseRowsPerTask, [&](size_t begin, size_t end) {
    for (size_t row = begin; row < end; ++row) {
      matrix.SetRow(static_cast<uint32_t>(row), trits, {&scale, 1});
    }
  });
  return matrix;
}

// Tokens of codes with one scale each, and where products with them go.
class SparseWorkload {
 public:
  SparseWorkload()
      : codes_(size_t{kPromptTokens} * kSparseCols),
        tables_(kPromptTokens * sparse::TableBytes(kSparseCols)),
        scales_(kPromptTokens, 1.0F),
        sums_(kPromptTokens),
        y_(size_t{kPromptTokens} * kSparseRows) {
    for (size_t i = 0; i < codes_.size(); ++i) codes_[i] = static_cast<int8_t>(sparse::Mix(i));
    for (size_t token = 0; token < kPromptTokens; ++token) {
      sparse::MakeTable(codes_.data() + token * kSparseCols, kSparseCols,
                        tables_.data() + token * sparse::TableBytes(kSparseCols));
    }
  }

  double Seconds(const kernels::KernelTable& kernels, WorkerTeam* team, const Matrix& matrix,
                 uint32_t tokens) {
    const ActivationView x{.kind = ActivationKind::kInt8Token,
                           .tokens = tokens,
                           .cols = kSparseCols,
                           .codes = codes_.data(),
                           .code_stride = kSparseCols,
                           .scales = scales_.data(),
                           .scale_stride = 1,
                           .sums = sums_.data()};
    const ProjectionOp op{.matrix = {}, .x = &x, .y = y_.data(), .y_stride = kSparseRows};
    const auto work = [&](int, size_t begin, size_t end) {
      for (size_t tile = begin; tile < end; ++tile) {
        const auto row = static_cast<uint32_t>(tile) * kTileRows;
        ProjectTile(kernels, matrix, op, {.tables = tables_.data()}, row, row + kTileRows, 0,
                    tokens, nullptr);
      }
    };
    const auto start = std::chrono::steady_clock::now();
    if (team == nullptr) {
      work(0, 0, kSparseRows / kTileRows);
    } else {
      team->ParallelFor(kSparseRows / kTileRows, 1, std::ref(work));
    }
    return SecondsSince(start);
  }

 private:
  AlignedBuffer<int8_t> codes_;
  AlignedBuffer<uint8_t> tables_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
  AlignedBuffer<float> y_;
};

// Where a line through the times of two densities meets `other`.
double BreakEven(double few_seconds, double many_seconds, double other_seconds) {
  const double slope = (many_seconds - few_seconds) / (kManyNonZeros - kFewNonZeros);
  if (slope <= 0) return other_seconds > many_seconds ? kManyNonZeros : 0.0;
  return std::clamp(kFewNonZeros + (other_seconds - few_seconds) / slope, 0.0, kDensestFound);
}

}  // namespace

LayoutChoice MeasureLayouts(const kernels::KernelTable& kernels, WorkerTeam* team,
                            ActivationKind activation) {
  const Workload workload(activation);
  // The speed of memory changes within seconds on a machine that others use, too: runs that follow
  // each other are compared, and a pair that such a change parts does not decide.
  std::array<double, kPairs> gains;
  for (double& gain : gains) {
    const double two_bit = workload.Seconds(kernels, team, TernaryLayout::kPanel2Bit);
    gain = two_bit / workload.Seconds(kernels, team, TernaryLayout::kPanelPt5);
  }
  std::nth_element(gains.begin(), gains.begin() + kPairs / 2, gains.end());
  const double gain = gains[kPairs / 2];
  char reason[80];
  std::snprintf(reason, sizeof reason, "one token streams pt5 at %.2f times the speed of 2bit here",
                gain);
  return {gain >= kNoLoss ? TernaryLayout::kPanelPt5 : TernaryLayout::kPanel2Bit, reason};
}

SparseBreakEven MeasureSparse(const kernels::KernelTable& kernels, WorkerTeam* team,
                              TernaryLayout layout) {
  const Matrix few = RandomSparse(kFewNonZeros);
  const Matrix many = RandomSparse(kManyNonZeros);
  const Matrix other = Zeros(layout);
  SparseWorkload workload;
  const auto break_even = [&](uint32_t tokens, int runs) {
    double few_seconds = 1e30;
    double many_seconds = 1e30;
    double other_seconds = 1e30;
    for (int run = 0; run < runs; ++run) {
      few_seconds = std::min(few_seconds, workload.Seconds(kernels, team, few, tokens));
      many_seconds = std::min(many_seconds, workload.Seconds(kernels, team, many, tokens));
      other_seconds = std::min(other_seconds, workload.Seconds(kernels, team, other, tokens));
    }
    return BreakEven(few_seconds, many_seconds, other_seconds);
  };
  return {.one_token = break_even(1, kShortRuns), .prompt = break_even(kPromptTokens, kRuns)};
}

}  // namespace fabric
