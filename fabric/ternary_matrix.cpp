#include "fabric/ternary_matrix.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <mutex>
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

// The weight of digit k in a byte.
template <uint32_t kDigits>
constexpr unsigned DigitWeight(uint32_t k) {
  return kDigits == k2BitDigits ? 1U << (2 * k) : kPowersOf3[k];
}

// The four bytes of one row in one line, from line_cols trits. All four at once in one word: no
// byte of the sum passes 242, so nothing is carried from one to the next.
template <uint32_t kDigits>
void PackStep(const int8_t* trits, uint8_t* bytes) {
  uint32_t packed = 0;
  for (uint32_t k = 0; k < kDigits; ++k) {
    uint32_t four;
    std::memcpy(&four, trits + k * kStepCols, sizeof four);
    // Bytes -1, 0, 1 to 0, 1, 2, without a carry.
    const uint32_t codes = ((four & 0x7F7F7F7F) + 0x01010101) ^ (four & 0x80808080);
    assert((codes & 0xFCFCFCFC) == 0);
    packed += codes * DigitWeight<kDigits>(k);
  }
  std::memcpy(bytes, &packed, sizeof packed);
}

// bytes: of the row in its panel's first line.
template <uint32_t kDigits>
void PackRow(const int8_t* trits, uint32_t cols, uint8_t* bytes) {
  constexpr uint32_t kLineCols = kDigits * kStepCols;
  uint32_t col = 0;
  for (; col + kLineCols <= cols; col += kLineCols, bytes += kLineBytes) {
    PackStep<kDigits>(trits + col, bytes);
  }
  if (col == cols) return;
  int8_t last[kLineCols] = {};
  std::copy(trits + col, trits + cols, last);
  PackStep<kDigits>(last, bytes);
}

// For every byte of a layout, 1 in byte k where digit k is not the code of zero. Sixteen of them
// add up without a carry.
std::array<uint64_t, 256> NonZeroDigits(TernaryLayout layout) {
  std::array<uint64_t, 256> table = {};
  for (unsigned byte = 0; byte < table.size(); ++byte) {
    for (uint32_t k = 0; k < DigitsOf(layout); ++k) {
      const unsigned code =
          layout == TernaryLayout::kPanel2Bit ? (byte >> (2 * k)) & 3 : byte / kPowersOf3[k] % 3;
      if (code != 1) table[byte] |= uint64_t{1} << (8 * k);
    }
  }
  return table;
}

}  // namespace

std::string_view LayoutName(TernaryLayout layout) {
  switch (layout) {
    case TernaryLayout::kPanel2Bit:
      return "2bit";
    case TernaryLayout::kPanelPt5:
      return "pt5";
    case TernaryLayout::kSparse:
      return "sparse";
  }
  return "";
}

TernaryMatrix::TernaryMatrix(TernaryLayout layout, uint32_t rows, uint32_t cols, ScaleKind kind,
                             uint32_t group)
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
  scales_ = AlignedBuffer<float>(scale_entries());
}

TernaryMatrix::TernaryMatrix(uint32_t rows, uint32_t cols, ScaleKind kind, uint32_t group,
                             TernaryLayout layout)
    : TernaryMatrix(layout, rows, cols, kind, group) {
  if (layout == TernaryLayout::kSparse) {
    throw std::invalid_argument("A sparse matrix is made by PackSparse(), not row by row.");
  }
  panels_ = AlignedBuffer<uint8_t>(panel_count() * panel_bytes());
  panels_size_ = panels_.size();
  // Rows write their own bytes, so that their pages are first touched by many threads. Nobody
  // writes those that the last panel has too many.
  if (rows % kPanelRows != 0) {
    std::fill(panels_.end() - static_cast<ptrdiff_t>(panel_bytes()), panels_.end(),
              layout == TernaryLayout::kPanel2Bit ? k2BitZeros : kPt5Zeros);
  }
}

TernaryMatrix TernaryMatrix::PackSparse(uint32_t rows, uint32_t cols, ScaleKind kind,
                                        uint32_t group, std::span<const float> scales,
                                        const sparse::RowOfTrits& row_of) {
  TernaryMatrix matrix(TernaryLayout::kSparse, rows, cols, kind, group);
  sparse::PackedLines packed = sparse::PackLines(rows, cols, row_of);
  matrix.panels_ = std::move(packed.bytes);
  matrix.panels_size_ = matrix.panels_.size();
  matrix.nonzeros_ = std::move(packed.nonzeros);
  const size_t per_row = matrix.scales_per_row();
  for (uint32_t row = 0; row < rows; ++row) {
    matrix.SetScales(row, scales.subspan(kind == ScaleKind::kTensor ? 0 : row * per_row, per_row));
  }
  return matrix;
}

uint32_t TernaryMatrix::scales_per_row() const {
  return kind_ == ScaleKind::kGroup ? (cols_ + group_ - 1) / group_ : 1;
}

uint32_t TernaryMatrix::panel_count() const { return (rows_ + kPanelRows - 1) / kPanelRows; }

size_t TernaryMatrix::panel_bytes() const {
  assert(layout_ != TernaryLayout::kSparse);
  return size_t{LinesOf(cols_, DigitsOf(layout_))} * kLineBytes;
}

size_t TernaryMatrix::scale_entries() const {
  return (kind_ == ScaleKind::kTensor ? 1 : size_t{panel_count()} * scales_per_row()) * kPanelRows;
}

size_t TernaryMatrix::bytes() const { return panels_size_ + scale_entries() * sizeof(float); }

size_t TernaryMatrix::ScalesInImage() const {
  return (panels_size_ + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
}

size_t TernaryMatrix::image_bytes() const {
  return ScalesInImage() + scale_entries() * sizeof(float);
}

void TernaryMatrix::CopyImage(uint8_t* out) const {
  std::memcpy(out, panels_.data(), panels_.size());
  std::memcpy(out + ScalesInImage(), scales_.data(), scales_.size() * sizeof(float));
}

TernaryMatrix TernaryMatrix::ViewImage(std::span<uint8_t> image) const {
  assert(image.size() == image_bytes());
  TernaryMatrix view;
  view.rows_ = rows_;
  view.cols_ = cols_;
  view.kind_ = kind_;
  view.group_ = group_;
  view.layout_ = layout_;
  view.panels_ = AlignedBuffer<uint8_t>::Borrow(image.first(panels_size_));
  view.panels_size_ = panels_size_;
  auto* scales = reinterpret_cast<float*>(image.data() + ScalesInImage());
  view.scales_ = AlignedBuffer<float>::Borrow({scales, scale_entries()});
  auto* counts = const_cast<uint32_t*>(nonzeros_.data());  // nobody writes through a view
  view.nonzeros_ = AlignedBuffer<uint32_t>::Borrow({counts, nonzeros_.size()});
  return view;
}

std::array<std::span<std::byte>, 3> TernaryMatrix::Memory() {
  assert(layout_ != TernaryLayout::kSparse && !panels_.empty());
  if (nonzeros_.empty()) nonzeros_ = AlignedBuffer<uint32_t>(cols_);
  return {AsBytes(panels_), AsBytes(scales_), AsBytes(nonzeros_)};
}

void TernaryMatrix::DropWeights() {
  panels_ = {};
  scales_ = {};
}

void TernaryMatrix::SetRow(uint32_t row, std::span<const int8_t> trits,
                           std::span<const float> scales) {
  assert(row < rows_ && trits.size() == cols_ && scales.size() == scales_per_row());
  assert(layout_ != TernaryLayout::kSparse);
  const uint32_t in_panel = row % kPanelRows;
  uint8_t* bytes = panels_.data() + row / kPanelRows * panel_bytes() + in_panel * kStepCols;
  if (layout_ == TernaryLayout::kPanel2Bit) {
    PackRow<k2BitDigits>(trits.data(), cols_, bytes);
  } else {
    PackRow<kPt5Digits>(trits.data(), cols_, bytes);
  }
  SetScales(row, scales);
}

void TernaryMatrix::SetScales(uint32_t row, std::span<const float> scales) {
  const uint32_t in_panel = row % kPanelRows;
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
  if (layout_ == TernaryLayout::kSparse) {
    sparse::GetLinesRow(sparse::ViewLines(panels_, panel_count()), row, trits);
    return;
  }
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
  if (layout_ == TernaryLayout::kSparse) return;  // counted when it was packed
  AlignedBuffer<uint32_t> total(cols_);
  std::mutex mutex;  // of the total
  const std::array<uint64_t, 256> digits_of = NonZeroDigits(layout_);
  const uint32_t digits = DigitsOf(layout_);
  const uint32_t line_cols = digits * kStepCols;
  const uint32_t lines = LinesOf(cols_, digits);
  ParallelFor(panel_count(), kPanelsPerTask, [&](size_t begin, size_t end) {
    std::vector<uint32_t> counts(size_t{lines} * line_cols);
    for (size_t panel = begin; panel < end; ++panel) {
      const uint8_t* line = panels_.data() + panel * panel_bytes();
      for (uint32_t first = 0; first < cols_; first += line_cols, line += kLineBytes) {
        // Rows and columns of padding hold zeros, which do not count.
        for (uint32_t j = 0; j < kStepCols; ++j) {
          uint64_t sums = 0;
          for (uint32_t row = 0; row < kPanelRows; ++row) {
            sums += digits_of[line[row * kStepCols + j]];
          }
          for (uint32_t k = 0; k < digits; ++k) {
            counts[first + k * kStepCols + j] += static_cast<uint32_t>((sums >> (8 * k)) & 0xFF);
          }
        }
      }
    }
    const std::lock_guard lock(mutex);
    for (uint32_t col = 0; col < cols_; ++col) total[col] += counts[col];
  });
  nonzeros_ = std::move(total);
}

}  // namespace fabric
