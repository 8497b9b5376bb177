#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "fabric/aligned_buffer.h"
#include "fabric/kernels/sparse_tile.h"

namespace fabric::sparse {

// The bytes of TernaryLayout::kSparse: compressed rows whose non-zeros are one byte each
// (fabric/kernels/sparse_tile.h has lines and entries).
//
//   [SparsePanel per 16 rows] [advance bits of all panels] [lines of all panels]
//
// Each part begins at a multiple of 64 bytes. Nothing in them is an address, so they may be copied
// and written to files.

// Fills trits, [cols], of -1, 0, 1 for a row. Called from several threads at once.
using RowOfTrits = std::function<void(uint32_t row, std::span<int8_t> trits)>;

struct PackedLines {
  AlignedBuffer<uint8_t> bytes;
  AlignedBuffer<uint32_t> nonzeros;  // of each column, [cols]
};
PackedLines PackLines(uint32_t rows, uint32_t cols, const RowOfTrits& row_of);

struct LinesView {
  const kernels::SparsePanel* panels = nullptr;
  const uint64_t* advance = nullptr;
  const uint8_t* lines = nullptr;
};
// bytes: as PackLines() made them for that many panels; 64-byte aligned.
LinesView ViewLines(std::span<const uint8_t> bytes, uint32_t panel_count) noexcept;
// trits: [cols].
void GetLinesRow(const LinesView& view, uint32_t row, std::span<int8_t> trits) noexcept;

// Codes as kernels look them up: tables of 127 codes + 128 and a 128, for the empty places.
size_t TableBytes(uint32_t cols) noexcept;
// codes: [cols]; table: [TableBytes(cols)], 64-byte aligned.
void MakeTable(const int8_t* codes, uint32_t cols, uint8_t* table) noexcept;

}  // namespace fabric::sparse
