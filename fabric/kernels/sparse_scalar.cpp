#include <cstddef>
#include <cstdint>

#include "fabric/kernels/sparse_tile.h"

namespace fabric::kernels {
namespace {

void AddLine(const uint8_t* line, const int8_t* table, int32_t* sums) {
  for (uint32_t row = 0; row < kSparsePanelRows; ++row) {
    for (uint32_t slot = 0; slot < kSparseSlots; ++slot) {
      const uint8_t entry = line[row * kSparseSlots + slot];
      const int32_t code = table[entry & (kSparseMinus - 1)];
      sums[row] += (entry & kSparseMinus) != 0 ? -code : code;
    }
  }
}

void Lines(const SparseLinesTile& tile) noexcept {
  for (uint32_t panel = 0; panel < tile.panel_count; ++panel) {
    const SparsePanel& at = tile.panels[panel];
    for (uint32_t token = 0; token < tile.tokens; ++token) {
      int32_t* sums = tile.sums + token * tile.sum_stride + size_t{panel} * kSparsePanelRows;
      for (uint32_t row = 0; row < kSparsePanelRows; ++row) sums[row] = 0;
      const int8_t* table = tile.tables + token * tile.table_stride;
      for (uint64_t i = 0; i < at.line_count; ++i) {
        AddLine(tile.lines + (at.line_begin + i) * kSparseLineBytes, table, sums);
        table += kSparseTableBytes * (tile.advance[at.bits_begin + i / 64] >> (i % 64) & 1);
      }
    }
  }
}

int32_t SumOfBits(uint64_t bits, const int8_t* codes) {
  int32_t sum = 0;
  for (; bits != 0; bits &= bits - 1) sum += codes[__builtin_ctzll(bits)];
  return sum;
}

void Planes(const SparsePlanesTile& tile) noexcept {
  for (uint32_t row = 0; row < tile.rows; ++row) {
    const uint64_t* plus = tile.plus + row * tile.words;
    const uint64_t* minus = tile.minus + row * tile.words;
    const uint64_t* occupied = tile.occupied + row * tile.occupied_words;
    for (uint32_t token = 0; token < tile.tokens; ++token) {
      const int8_t* codes = tile.codes + token * tile.code_stride;
      int32_t sum = 0;
      for (size_t group = 0; group < tile.occupied_words; ++group) {
        for (uint64_t left = occupied[group]; left != 0; left &= left - 1) {
          const size_t word = group * 64 + static_cast<size_t>(__builtin_ctzll(left));
          sum +=
              SumOfBits(plus[word], codes + word * 64) - SumOfBits(minus[word], codes + word * 64);
        }
      }
      tile.sums[token * tile.sum_stride + row] = sum;
    }
  }
}

}  // namespace

SparseKernels SparseScalar() noexcept { return {.lines = &Lines, .planes = &Planes}; }

}  // namespace fabric::kernels
