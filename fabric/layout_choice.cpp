#include "fabric/layout_choice.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>

#include "fabric/aligned_buffer.h"
#include "fabric/panel_layout.h"

namespace fabric {
namespace {

// More than last-level caches hold, as the weights of a model are.
constexpr size_t kPanelBytes = size_t{96} << 20;
constexpr uint32_t kCols = 2560;
constexpr uint32_t kPanelsPerTile = 4;
constexpr int kRuns = 4;
// A smaller loss is noise: PT-5 takes four fifths of the memory.
constexpr double kNoLoss = 0.97;

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
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
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

}  // namespace

LayoutChoice MeasureLayouts(const kernels::KernelTable& kernels, WorkerTeam* team,
                            ActivationKind activation) {
  const Workload workload(activation);
  double two_bit = 1e30;
  double pt5 = 1e30;
  // In turn, so that a busy moment of the machine does not fall on one of them.
  for (int run = 0; run < kRuns; ++run) {
    two_bit = std::min(two_bit, workload.Seconds(kernels, team, TernaryLayout::kPanel2Bit));
    pt5 = std::min(pt5, workload.Seconds(kernels, team, TernaryLayout::kPanelPt5));
  }
  const double gain = two_bit / pt5;
  char reason[80];
  std::snprintf(reason, sizeof reason, "one token streams pt5 at %.2f times the speed of 2bit here",
                gain);
  return {gain >= kNoLoss ? TernaryLayout::kPanelPt5 : TernaryLayout::kPanel2Bit, reason};
}

}  // namespace fabric
