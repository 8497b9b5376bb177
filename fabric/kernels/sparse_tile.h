#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/ternary_tile.h"

namespace fabric::kernels {

// Products of a sparse ternary matrix and int8 codes: sums over the non-zeros, exact for any codes,
// -128 included.

// The non-zeros of 16 rows (a panel) as lines of 64 bytes, ascending by blocks of 127 columns.
// Dword r of a line holds four non-zeros of row r, ascending; a byte is the column within the
// block, with bit 7 set for a trit of -1. Column 127 belongs to no block: it fills the places that
// a row leaves empty, and its code is zero.
//
// Which block a line belongs to is one bit per line: set when the next line belongs to the next
// block. A block without non-zeros has one empty line. So the loop over lines has no branch that
// depends on the weights; counts of lines per block cost a misprediction each (30 cycles per line
// against 4 at 95 % zeros).
inline constexpr uint32_t kSparseBlockCols = 127;
inline constexpr uint32_t kSparseTableBytes = 128;
inline constexpr uint32_t kSparsePanelRows = 16;
inline constexpr uint32_t kSparseSlots = 4;  // non-zeros of a row in one line
inline constexpr uint32_t kSparseLineBytes = kSparsePanelRows * kSparseSlots;
inline constexpr uint8_t kSparseMinus = 0x80;
inline constexpr uint8_t kSparseEmpty = kSparseBlockCols;
// Tables hold code + 128, an unsigned byte, so that trits can be the signed operand of a byte dot
// product: sum of (code + 128) * trit, less 128 times the sum of the trits. (-128 has no negative
// in eight bits.)
inline constexpr uint8_t kSparseBias = 0x80;

// Where a panel's lines are.
struct SparsePanel {
  uint64_t line_begin = 0;  // in lines
  uint64_t bits_begin = 0;  // in words of advance bits
  uint64_t line_count = 0;
};

// v = W x as fabric/kernels/ternary_tile.h defines it, from lines.
struct SparseLinesTile {
  TernaryTile tile;  // panels, panel_stride and x_sums are not used
  const uint8_t* lines = nullptr;
  const uint64_t* advance = nullptr;    // bit i % 64 of word bits_begin + i / 64 is line i's
  const SparsePanel* panels = nullptr;  // [tile.panel_count]
  // [tile.tokens, table_stride], biased: 127 codes of each block and a zero, 64-byte aligned. Read
  // where tile.sum is kToken; otherwise tile.codes are.
  const uint8_t* tables = nullptr;
  size_t table_stride = 0;
};

// Rows as bit planes (fabric/sparse/trit_planes.h). REQUIRES: codes are readable up to a multiple
// of 64 columns.
struct SparsePlanesTile {
  const uint64_t* plus = nullptr;      // [rows, words]
  const uint64_t* minus = nullptr;     // [rows, words]
  const uint64_t* occupied = nullptr;  // [rows, occupied_words]: bit w of a row, word w is not zero
  uint32_t rows = 0;
  size_t words = 0;
  size_t occupied_words = 0;
  uint32_t tokens = 0;
  const int8_t* codes = nullptr;  // [tokens, code_stride]
  size_t code_stride = 0;
  int32_t* sums = nullptr;  // [tokens, sum_stride]; writes rows of each
  size_t sum_stride = 0;
};

using SparseLinesFn = void (*)(const SparseLinesTile& tile) noexcept;
using SparsePlanesFn = void (*)(const SparsePlanesTile& tile) noexcept;

struct SparseKernels {
  SparseLinesFn lines = nullptr;
  SparsePlanesFn planes = nullptr;
};

SparseKernels SparseScalar() noexcept;
#if defined(__x86_64__)
SparseKernels SparseAvx512Vnni() noexcept;  // planes; lines as scalar
SparseKernels SparseAvx512Vbmi() noexcept;
#endif

}  // namespace fabric::kernels
