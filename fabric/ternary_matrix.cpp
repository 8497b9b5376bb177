#include "fabric/ternary_matrix.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cassert>
#include <stdexcept>
#include <string>

#include "fabric/activations.h"
#include "fabric/panel_layout.h"
#include "fabric/parallel.h"

namespace fabric {
namespace {

constexpr uint32_t kMaxCols = (1U << 17) - 1;
// The largest partial sum of any kernel: codes up to 2 scaled by 64 in place, times |-128|, over a
// quarter of the columns (four dwords of a line go to four accumulators).
static_assert(uint64_t{2} * 64 * 128 * ((kMaxCols + 3) / 4 + kCodePadding) < (uint64_t{1} << 31));
// PT-5: undecoded quotients up to 242 + 80 + 26 + 8 + 2 over a fifth of the columns.
static_assert(uint64_t{358} * 128 * ((kMaxCols + 4) / 5 + kCodePadding) < (uint64_t{1} << 31));

constexpr std::array<uint8_t, 5> kPowersOf3 = {1, 3, 9, 27, 81};
constexpr size_t kPanelsPerTask = 4;

uint32_t DigitsOf(TernaryLayout layout) {
  return layout == TernaryLayout::kPanel2Bit ? k2BitDigits : kPt5Digits;
}

}  // namespace

TernaryMatrix::TernaryMatrix(uint32_t rows, uint32_t cols, ScaleKind kind, uint32_t group,
                             TernaryLayout layout)
    : rows_(rows),
      cols_(cols),
      kind_(kind),
      group_(kind == ScaleKind::kGroup ? group : 0),
      layout_(layout) {
  if (rows == 0 || rows > (1U << 30) || cols == 0 || cols > kMaxCols) {
    throw std::invalid_argument("A ternary matrix has 1.." + std::to_string(1U << 30) +
                                " rows and 1.." + std::to_string(kMaxCols) + " columns, not " +
                                std::to_string(rows) + " x " + std::to_string(cols) + ".");
  }
  if (kind == ScaleKind::kGroup && (group == 0 || group % kActivationBlock != 0)) {
    throw std::invalid_argument("A scale group is a multiple of 32 columns, not " +
                                std::to_string(group) + ".");
  }
  panels_ = AlignedBuffer<uint8_t>(panel_count() * panel_bytes());
  std::fill(panels_.begin(), panels_.end(),
            layout == TernaryLayout::kPanel2Bit ? k2BitZeros : kPt5Zeros);
  const size_t entries = kind == ScaleKind::kTensor ? 1 : size_t{panel_count()} * scales_per_row();
  scales_ = AlignedBuffer<float>(entries * kPanelRows);
}

uint32_t TernaryMatrix::scales_per_row() const {
  return kind_ == ScaleKind::kGroup ? (cols_ + group_ - 1) / group_ : 1;
}

uint32_t TernaryMatrix::panel_count() const { return (rows_ + kPanelRows - 1) / kPanelRows; }

size_t TernaryMatrix::panel_bytes() const {
  return size_t{LinesOf(cols_, DigitsOf(layout_))} * kLineBytes;
}

void TernaryMatrix::SetRow(uint32_t row, std::span<const int8_t> trits,
                           std::span<const float> scales) {
  assert(row < rows_ && trits.size() == cols_ && scales.size() == scales_per_row());
  uint8_t* panel = panels_.data() + row / kPanelRows * panel_bytes();
  const uint32_t in_panel = row % kPanelRows;
  const uint32_t digits = DigitsOf(layout_);
  const uint32_t line_cols = digits * kStepCols;
  for (uint32_t first = 0; first < cols_; first += line_cols) {
    uint8_t* bytes = panel + PositionInPanel(in_panel, first, digits).byte;
    for (uint32_t j = 0; j < kStepCols; ++j) {
      unsigned packed = 0;
      for (uint32_t k = 0; k < digits; ++k) {
        const uint32_t col = first + k * kStepCols + j;
        const unsigned code = col < cols_ ? static_cast<unsigned>(trits[col] + 1) : 1U;
        assert(code <= 2);
        packed += digits == k2BitDigits ? code << (2 * k) : code * kPowersOf3[k];
      }
      bytes[j] = static_cast<uint8_t>(packed);
    }
  }
  if (kind_ == ScaleKind::kTensor) {
    // Rows may be set concurrently and agree on the value; the first one writes it.
    if (row == 0) std::fill(scales_.begin(), scales_.end(), scales[0]);
    return;
  }
  float* panel_scales = scales_.data() + size_t{row / kPanelRows} * scales.size() * kPanelRows;
  for (size_t s = 0; s < scales.size(); ++s) panel_scales[s * kPanelRows + in_panel] = scales[s];
}

void TernaryMatrix::GetRow(uint32_t row, std::span<int8_t> trits) const {
  assert(row < rows_ && trits.size() == cols_);
  const uint8_t* panel = panels_.data() + row / kPanelRows * panel_bytes();
  const uint32_t in_panel = row % kPanelRows;
  const uint32_t digits = DigitsOf(layout_);
  for (uint32_t col = 0; col < cols_; ++col) {
    const PanelPosition at = PositionInPanel(in_panel, col, digits);
    const unsigned byte = panel[at.byte];
    const unsigned code =
        digits == k2BitDigits ? (byte >> (2 * at.digit)) & 3 : byte / kPowersOf3[at.digit] % 3;
    trits[col] = static_cast<int8_t>(static_cast<int>(code) - 1);
  }
}

float TernaryMatrix::ScaleAt(uint32_t row, uint32_t col) const {
  assert(row < rows_ && col < cols_);
  if (kind_ == ScaleKind::kTensor) return scales_[0];
  const uint32_t scale = kind_ == ScaleKind::kGroup ? col / group_ : 0;
  return scales_[(size_t{row / kPanelRows} * scales_per_row() + scale) * kPanelRows +
                 row % kPanelRows];
}

std::vector<float> TernaryMatrix::CopyScales() const {
  if (kind_ == ScaleKind::kTensor) return {scales_[0]};
  std::vector<float> scales;
  const uint32_t per_row = scales_per_row();
  scales.reserve(size_t{rows_} * per_row);
  for (uint32_t row = 0; row < rows_; ++row) {
    for (uint32_t s = 0; s < per_row; ++s) {
      scales.push_back(ScaleAt(row, kind_ == ScaleKind::kGroup ? s * group_ : 0));
    }
  }
  return scales;
}

void TernaryMatrix::CountNonZeros() {
  AlignedBuffer<uint32_t> total(cols_);
  ParallelFor(panel_count(), kPanelsPerTask, [&](size_t begin, size_t end) {
    std::vector<int8_t> trits(cols_);
    std::vector<uint32_t> counts(cols_);
    const auto last = static_cast<uint32_t>(std::min<size_t>(end * kPanelRows, rows_));
    for (auto row = static_cast<uint32_t>(begin * kPanelRows); row < last; ++row) {
      GetRow(row, trits);
      for (uint32_t col = 0; col < cols_; ++col) counts[col] += trits[col] != 0 ? 1 : 0;
    }
    for (uint32_t col = 0; col < cols_; ++col) {
      std::atomic_ref(total[col]).fetch_add(counts[col], std::memory_order_relaxed);
    }
  });
  nonzeros_ = std::move(total);
}

}  // namespace fabric
