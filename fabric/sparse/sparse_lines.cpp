#include "fabric/sparse/sparse_lines.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <vector>

#include "fabric/parallel.h"

namespace fabric::sparse {
namespace {

using kernels::kSparseBlockCols;
using kernels::kSparseEmpty;
using kernels::kSparseLineBytes;
using kernels::kSparseMinus;
using kernels::kSparsePanelRows;
using kernels::kSparseSlots;
using kernels::SparsePanel;

constexpr size_t kPanelsPerTask = 4;
constexpr uint32_t kWordBits = 64;

size_t RoundUp(size_t bytes) {
  return (bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
}

uint32_t BlocksOf(uint32_t cols) { return (cols + kSparseBlockCols - 1) / kSparseBlockCols; }
uint32_t PanelsOf(uint32_t rows) { return (rows + kSparsePanelRows - 1) / kSparsePanelRows; }
size_t WordsOf(uint64_t lines) { return (lines + kWordBits - 1) / kWordBits; }

size_t AdvanceOffset(uint32_t panels) { return RoundUp(panels * sizeof(SparsePanel)); }
size_t LinesOffset(uint32_t panels, size_t words) {
  return AdvanceOffset(panels) + RoundUp(words * sizeof(uint64_t));
}

// The entries of one row in one block, ascending by column.
struct BlockRow {
  std::array<uint8_t, kSparseBlockCols> entries;
  uint32_t count = 0;
};

// Splits a row into blocks and counts its non-zeros per column.
void SplitRow(std::span<const int8_t> trits, BlockRow* blocks, uint32_t* nonzeros) {
  const auto add = [&](size_t col) {
    BlockRow& block = blocks[col / kSparseBlockCols];
    const uint8_t sign = trits[col] < 0 ? kSparseMinus : uint8_t{0};
    block.entries[block.count++] = static_cast<uint8_t>(col % kSparseBlockCols | sign);
    ++nonzeros[col];
  };
  size_t col = 0;
  for (uint64_t eight; col + sizeof eight <= trits.size(); col += sizeof eight) {
    std::memcpy(&eight, trits.data() + col, sizeof eight);
    for (size_t i = 0; eight != 0 && i < sizeof eight; ++i) {
      if (trits[col + i] != 0) add(col + i);
    }
  }
  for (; col < trits.size(); ++col) {
    if (trits[col] != 0) add(col);
  }
}

// The lines of one panel and the advance bit of each.
struct PanelLines {
  std::vector<uint8_t> lines;
  std::vector<uint64_t> advance;

  uint64_t line_count() const { return lines.size() / kSparseLineBytes; }

  // split: [16, blocks].
  void AddBlock(std::span<const BlockRow> split, uint32_t block, uint32_t blocks) {
    uint32_t longest = 1;  // an empty block has a line too
    for (uint32_t row = 0; row < kSparsePanelRows; ++row) {
      longest = std::max(longest, split[size_t{row} * blocks + block].count);
    }
    const uint64_t first = line_count();
    const uint64_t end = first + (longest + kSparseSlots - 1) / kSparseSlots;
    lines.resize(end * kSparseLineBytes, kSparseEmpty);
    for (uint32_t row = 0; row < kSparsePanelRows; ++row) {
      const BlockRow& entries = split[size_t{row} * blocks + block];
      for (uint32_t i = 0; i < entries.count; ++i) {
        lines[(first + i / kSparseSlots) * kSparseLineBytes + row * kSparseSlots +
              i % kSparseSlots] = entries.entries[i];
      }
    }
    advance.resize(WordsOf(end));
    advance[(end - 1) / kWordBits] |= uint64_t{1} << ((end - 1) % kWordBits);
  }
};

PanelLines PackPanel(uint32_t panel, uint32_t rows, uint32_t cols, const RowOfTrits& row_of,
                     std::vector<BlockRow>* split, std::vector<int8_t>* trits, uint32_t* nonzeros) {
  const uint32_t blocks = BlocksOf(cols);
  for (BlockRow& block : *split) block.count = 0;
  for (uint32_t i = 0; i < kSparsePanelRows; ++i) {
    const uint32_t row = panel * kSparsePanelRows + i;
    if (row >= rows) break;
    row_of(row, *trits);
    SplitRow(*trits, split->data() + size_t{i} * blocks, nonzeros);
  }
  PanelLines packed;
  for (uint32_t block = 0; block < blocks; ++block) packed.AddBlock(*split, block, blocks);
  return packed;
}

AlignedBuffer<uint8_t> Join(const std::vector<PanelLines>& panels) {
  const auto count = static_cast<uint32_t>(panels.size());
  std::vector<SparsePanel> table(count);
  uint64_t lines = 0;
  uint64_t words = 0;
  for (uint32_t i = 0; i < count; ++i) {
    table[i] = {.line_begin = lines, .bits_begin = words, .line_count = panels[i].line_count()};
    lines += panels[i].line_count();
    words += panels[i].advance.size();
  }
  const size_t lines_offset = LinesOffset(count, words);
  AlignedBuffer<uint8_t> bytes(lines_offset + lines * kSparseLineBytes);
  std::memcpy(bytes.data(), table.data(), count * sizeof(SparsePanel));
  ParallelFor(count, kPanelsPerTask, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      std::memcpy(bytes.data() + AdvanceOffset(count) + table[i].bits_begin * sizeof(uint64_t),
                  panels[i].advance.data(), panels[i].advance.size() * sizeof(uint64_t));
      std::memcpy(bytes.data() + lines_offset + table[i].line_begin * kSparseLineBytes,
                  panels[i].lines.data(), panels[i].lines.size());
    }
  });
  return bytes;
}

}  // namespace

PackedLines PackLines(uint32_t rows, uint32_t cols, const RowOfTrits& row_of) {
  PackedLines packed{.bytes = {}, .nonzeros = AlignedBuffer<uint32_t>(cols)};
  std::vector<PanelLines> panels(PanelsOf(rows));
  ParallelFor(panels.size(), kPanelsPerTask, [&](size_t begin, size_t end) {
    std::vector<BlockRow> split(size_t{kSparsePanelRows} * BlocksOf(cols));
    std::vector<int8_t> trits(cols);
    std::vector<uint32_t> nonzeros(cols);
    for (size_t panel = begin; panel < end; ++panel) {
      panels[panel] = PackPanel(static_cast<uint32_t>(panel), rows, cols, row_of, &split, &trits,
                                nonzeros.data());
    }
    for (uint32_t col = 0; col < cols; ++col) {
      std::atomic_ref(packed.nonzeros[col]).fetch_add(nonzeros[col], std::memory_order_relaxed);
    }
  });
  packed.bytes = Join(panels);
  return packed;
}

LinesView ViewLines(std::span<const uint8_t> bytes, uint32_t panel_count) noexcept {
  LinesView view;
  view.panels = reinterpret_cast<const SparsePanel*>(bytes.data());
  view.advance = reinterpret_cast<const uint64_t*>(bytes.data() + AdvanceOffset(panel_count));
  const SparsePanel& last = view.panels[panel_count - 1];
  view.lines = bytes.data() + LinesOffset(panel_count, last.bits_begin + WordsOf(last.line_count));
  return view;
}

void GetLinesRow(const LinesView& view, uint32_t row, std::span<int8_t> trits) noexcept {
  std::fill(trits.begin(), trits.end(), int8_t{0});
  const SparsePanel& panel = view.panels[row / kSparsePanelRows];
  size_t first_col = 0;
  for (uint64_t line = 0; line < panel.line_count; ++line) {
    const uint8_t* entries = view.lines + (panel.line_begin + line) * kSparseLineBytes +
                             row % kSparsePanelRows * kSparseSlots;
    for (uint32_t slot = 0; slot < kSparseSlots; ++slot) {
      const uint32_t column = entries[slot] & (kSparseMinus - 1U);
      if (column == kSparseEmpty) continue;
      trits[first_col + column] = (entries[slot] & kSparseMinus) != 0 ? int8_t{-1} : int8_t{1};
    }
    const uint64_t word = view.advance[panel.bits_begin + line / kWordBits];
    if ((word >> (line % kWordBits) & 1) != 0) first_col += kSparseBlockCols;
  }
}

size_t TableBytes(uint32_t cols) noexcept {
  return size_t{BlocksOf(cols)} * kernels::kSparseTableBytes;
}

void MakeTable(const int8_t* codes, uint32_t cols, uint8_t* table) noexcept {
  constexpr uint8_t kBias = kernels::kSparseBias;
  for (uint32_t begin = 0; begin < cols; begin += kSparseBlockCols) {
    const uint32_t count = std::min(kSparseBlockCols, cols - begin);
    for (uint32_t i = 0; i < count; ++i) {
      table[i] = static_cast<uint8_t>(static_cast<uint8_t>(codes[begin + i]) ^ kBias);
    }
    std::fill(table + count, table + kernels::kSparseTableBytes, kBias);
    table += kernels::kSparseTableBytes;
  }
}

}  // namespace fabric::sparse
