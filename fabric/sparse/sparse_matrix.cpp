#include "fabric/sparse/sparse_matrix.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <vector>

namespace fabric::sparse {
namespace {

using kernels::kSparseBlockCols;
using kernels::kSparseEmpty;
using kernels::kSparseLineBytes;
using kernels::kSparseMinus;
using kernels::kSparsePanelRows;
using kernels::kSparseSlots;

// The entries of one row in one block, ascending by column.
struct BlockRow {
  std::array<uint8_t, kSparseBlockCols> entries;
  uint32_t count = 0;
};

// Splits a row into blocks: out[block] gets the entries.
void SplitRow(const TritPlanes& planes, uint32_t row, std::span<BlockRow> out) {
  for (BlockRow& block : out) block.count = 0;
  const auto plus = planes.plus(row);
  const auto minus = planes.minus(row);
  for (size_t word = 0; word < plus.size(); ++word) {
    for (uint64_t left = plus[word] | minus[word]; left != 0; left &= left - 1) {
      const uint64_t bit = left & (~left + 1);
      const auto col =
          static_cast<uint32_t>(word * kWordTrits) + static_cast<uint32_t>(__builtin_ctzll(left));
      BlockRow& block = out[col / kSparseBlockCols];
      const uint8_t sign = (minus[word] & bit) != 0 ? kSparseMinus : uint8_t{0};
      block.entries[block.count++] = static_cast<uint8_t>(col % kSparseBlockCols | sign);
    }
  }
}

// Lines and advance bits of one panel after another.
struct LineWriter {
  std::vector<uint8_t> lines;
  std::vector<uint64_t> advance;

  kernels::SparsePanel BeginPanel() {
    begin = lines.size() / kSparseLineBytes;
    return {.line_begin = begin, .bits_begin = advance.size(), .line_count = 0};
  }

  // split: [16, blocks]; the first `used` rows are filled.
  void AddBlock(std::span<const BlockRow> split, uint32_t block, uint32_t blocks, uint32_t used) {
    uint32_t longest = 1;  // an empty block has a line too
    for (uint32_t row = 0; row < used; ++row) {
      longest = std::max(longest, split[size_t{row} * blocks + block].count);
    }
    const uint32_t count = (longest + kSparseSlots - 1) / kSparseSlots;
    const size_t first = lines.size();
    lines.resize(first + size_t{count} * kSparseLineBytes, kSparseEmpty);
    for (uint32_t row = 0; row < used; ++row) {
      const BlockRow& entries = split[size_t{row} * blocks + block];
      for (uint32_t i = 0; i < entries.count; ++i) {
        lines[first + size_t{i / kSparseSlots} * kSparseLineBytes + row * kSparseSlots +
              i % kSparseSlots] = entries.entries[i];
      }
    }
    for (uint32_t i = 0; i < count; ++i) AddBit(i + 1 == count);
  }

  // The panel's lines.
  uint64_t EndPanel() {
    bits = 0;
    return lines.size() / kSparseLineBytes - begin;
  }

 private:
  void AddBit(bool bit) {
    if (bits % 64 == 0) advance.push_back(0);
    advance.back() |= uint64_t{bit} << (bits % 64);
    ++bits;
  }

  uint64_t begin = 0;
  uint64_t bits = 0;
};

}  // namespace

SparseMatrix::SparseMatrix(const TritPlanes& planes)
    : rows_(planes.rows()),
      cols_(planes.cols()),
      blocks_((planes.cols() + kSparseBlockCols - 1) / kSparseBlockCols),
      nonzeros_(planes.nonzeros()),
      panels_(panel_count()) {
  std::vector<BlockRow> split(size_t{kSparsePanelRows} * blocks_);
  LineWriter writer;
  for (uint32_t panel = 0; panel < panel_count(); ++panel) {
    const uint32_t first = panel * kSparsePanelRows;
    const uint32_t used = std::min(kSparsePanelRows, rows_ - first);
    for (uint32_t row = 0; row < used; ++row) {
      SplitRow(planes, first + row, std::span(split).subspan(size_t{row} * blocks_, blocks_));
    }
    panels_[panel] = writer.BeginPanel();
    for (uint32_t block = 0; block < blocks_; ++block) {
      writer.AddBlock(split, block, blocks_, used);
    }
    panels_[panel].line_count = writer.EndPanel();
  }
  lines_ = AlignedBuffer<uint8_t>(writer.lines.size());
  std::copy(writer.lines.begin(), writer.lines.end(), lines_.begin());
  advance_ = AlignedBuffer<uint64_t>(writer.advance.size());
  std::copy(writer.advance.begin(), writer.advance.end(), advance_.begin());
}

uint32_t SparseMatrix::panel_count() const {
  return (rows_ + kSparsePanelRows - 1) / kSparsePanelRows;
}

size_t SparseMatrix::bytes() const {
  return lines_.size() + advance_.size() * sizeof(uint64_t) +
         panels_.size() * sizeof(kernels::SparsePanel);
}

TritPlanes SparseMatrix::ToPlanes() const {
  TritPlanes planes(rows_, cols_);
  for (uint32_t panel = 0; panel < panel_count(); ++panel) {
    const kernels::SparsePanel& at = panels_[panel];
    uint32_t first_col = 0;
    for (uint64_t line = 0; line < at.line_count; ++line) {
      const uint8_t* entries = lines_.data() + (at.line_begin + line) * kSparseLineBytes;
      for (uint32_t i = 0; i < kSparseLineBytes; ++i) {
        const uint8_t column = entries[i] & (kSparseMinus - 1);
        if (column == kSparseEmpty) continue;
        planes.Set(panel * kSparsePanelRows + i / kSparseSlots, first_col + column,
                   (entries[i] & kSparseMinus) != 0 ? int8_t{-1} : int8_t{1});
      }
      const uint64_t bit = advance_[at.bits_begin + line / 64] >> (line % 64) & 1;
      if (bit != 0) first_col += kSparseBlockCols;
    }
  }
  return planes;
}

void SparseMatrix::MakeTable(const int8_t* codes, int8_t* table) const noexcept {
  for (uint32_t block = 0; block < blocks_; ++block) {
    const uint32_t begin = block * kSparseBlockCols;
    const uint32_t count = std::min(kSparseBlockCols, cols_ - begin);
    int8_t* entries = table + size_t{block} * kernels::kSparseTableBytes;
    std::copy_n(codes + begin, count, entries);
    std::fill(entries + count, entries + kernels::kSparseTableBytes, int8_t{0});
  }
}

void SparseMatrix::Multiply(const kernels::SparseKernels& kernels, uint32_t panel_begin,
                            uint32_t panel_end, const int8_t* tables, uint32_t tokens,
                            int32_t* sums, size_t sum_stride) const noexcept {
  assert(panel_begin <= panel_end && panel_end <= panel_count());
  kernels.lines({.lines = lines_.data(),
                 .advance = advance_.data(),
                 .panels = panels_.data() + panel_begin,
                 .panel_count = panel_end - panel_begin,
                 .tokens = tokens,
                 .tables = tables,
                 .table_stride = table_bytes(),
                 .sums = sums + size_t{panel_begin} * kSparsePanelRows,
                 .sum_stride = sum_stride});
}

void Multiply(const TritPlanes& planes, const kernels::SparseKernels& kernels, uint32_t row_begin,
              uint32_t row_end, const int8_t* codes, size_t code_stride, uint32_t tokens,
              int32_t* sums, size_t sum_stride) noexcept {
  assert(row_begin <= row_end && row_end <= planes.rows());
  if (row_begin == row_end) return;
  kernels.planes({.plus = planes.plus(row_begin).data(),
                  .minus = planes.minus(row_begin).data(),
                  .occupied = planes.occupied(row_begin).data(),
                  .rows = row_end - row_begin,
                  .words = planes.words_per_row(),
                  .occupied_words = planes.occupied(row_begin).size(),
                  .tokens = tokens,
                  .codes = codes,
                  .code_stride = code_stride,
                  .sums = sums + row_begin,
                  .sum_stride = sum_stride});
}

}  // namespace fabric::sparse
