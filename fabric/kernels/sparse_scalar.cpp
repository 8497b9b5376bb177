#include <cmath>
#include <cstddef>
#include <cstdint>

#include "fabric/kernels/sparse_tile.h"

namespace fabric::kernels {
namespace {

// Calls visit(row, column, minus) for the non-zeros of one panel, ascending by column in each row.
template <typename Visit>
void ForNonZeros(const SparseLinesTile& t, const SparsePanel& panel, const Visit& visit) {
  uint32_t first_col = 0;
  for (uint64_t i = 0; i < panel.line_count; ++i) {
    const uint8_t* line = t.lines + (panel.line_begin + i) * kSparseLineBytes;
    for (uint32_t at = 0; at < kSparseLineBytes; ++at) {
      const uint32_t column = line[at] & (kSparseMinus - 1U);
      if (column == kSparseEmpty) continue;
      visit(at / kSparseSlots, first_col + column, (line[at] & kSparseMinus) != 0);
    }
    const uint64_t ends_block = t.advance[panel.bits_begin + i / 64] >> (i % 64) & 1;
    if (ends_block != 0) first_col += kSparseBlockCols;
  }
}

void WholeRows(const SparseLinesTile& t, uint32_t panel, uint32_t token) {
  const uint8_t* table = t.tables + token * t.table_stride;
  const SparsePanel& at = t.panels[panel];
  int32_t sums[kSparsePanelRows] = {};
  for (uint64_t i = 0; i < at.line_count; ++i) {
    const uint8_t* line = t.lines + (at.line_begin + i) * kSparseLineBytes;
    for (uint32_t entry = 0; entry < kSparseLineBytes; ++entry) {
      const int32_t code = table[line[entry] & (kSparseMinus - 1U)] - int32_t{kSparseBias};
      sums[entry / kSparseSlots] += (line[entry] & kSparseMinus) != 0 ? -code : code;
    }
    table += kSparseTableBytes * (t.advance[at.bits_begin + i / 64] >> (i % 64) & 1);
  }
  const float* w_scales = t.tile.w_scales + panel * t.tile.w_panel_stride;
  float* out = t.tile.out + token * t.tile.out_stride + size_t{panel} * kSparsePanelRows;
  for (uint32_t row = 0; row < kSparsePanelRows; ++row) {
    out[row] = static_cast<float>(sums[row]) * (w_scales[row] / t.tile.x_scales[token]);
  }
}

// One row's sums per segment, added up in floats as the segments end.
struct SegmentedRow {
  uint32_t index = 0;  // of the segment that is being summed
  int32_t isum = 0;
  float v = 0.0F;

  void EndSegment(const TernaryTile& t, const float* w_scales, uint32_t token) {
    const uint32_t scale = t.segments_per_scale == 0 ? 0 : index / t.segments_per_scale;
    const float w = w_scales[size_t{scale} * kSparsePanelRows];
    const float factor = t.sum == TernarySum::kGroups
                             ? w / t.x_scales[token]
                             : w * t.x_scales[token * t.scale_stride + index];
    v = std::fma(static_cast<float>(isum), factor, v);
    isum = 0;
    ++index;
  }
};

void SegmentedRows(const SparseLinesTile& t, uint32_t panel, uint32_t token) {
  const int8_t* codes = t.tile.codes + token * t.tile.code_stride;
  const float* w_scales = t.tile.w_scales + panel * t.tile.w_panel_stride;
  SegmentedRow rows[kSparsePanelRows];
  ForNonZeros(t, t.panels[panel], [&](uint32_t row, uint32_t column, bool minus) {
    while (rows[row].index < column / t.tile.segment) {
      rows[row].EndSegment(t.tile, w_scales + row, token);
    }
    rows[row].isum += minus ? -codes[column] : codes[column];
  });
  const uint32_t segments = (t.tile.cols + t.tile.segment - 1) / t.tile.segment;
  float* out = t.tile.out + token * t.tile.out_stride + size_t{panel} * kSparsePanelRows;
  for (uint32_t row = 0; row < kSparsePanelRows; ++row) {
    while (rows[row].index < segments) rows[row].EndSegment(t.tile, w_scales + row, token);
    out[row] = rows[row].v;
  }
}

void Lines(const SparseLinesTile& t) noexcept {
  for (uint32_t panel = 0; panel < t.tile.panel_count; ++panel) {
    for (uint32_t token = 0; token < t.tile.tokens; ++token) {
      t.tile.sum == TernarySum::kToken ? WholeRows(t, panel, token)
                                       : SegmentedRows(t, panel, token);
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
