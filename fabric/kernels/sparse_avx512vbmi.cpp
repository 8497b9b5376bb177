#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/sparse_tile.h"

// Lines: a block's table of 128 codes fills two registers, and vpermi2b looks up 64 non-zeros at
// once. It reads the low seven bits of an index, so the sign in bit 7 needs no masking; vpmovb2m
// turns it into two selections, one per accumulator:
//
//   line   | row 0: i0 i1 i2 i3 | row 1: ... | ... | row 15 |
//   looked | x[i0] .. x[i3]     |            |     |        |
//   plus   += vpdpbusd(1 where bit 7 is clear, looked)       a row's four are added into its dword
//   minus  += vpdpbusd(1 where bit 7 is set, looked)
//
// One token takes its lines in turn into two pairs of accumulators, four tokens into one pair each:
// either way the latency of vpdpbusd is hidden.

namespace fabric::kernels {
namespace {

// Enough to cover the latency of memory at the rate at which one core consumes lines.
constexpr size_t kPrefetchBytes = 1024;

// The sums of kTokens tokens, in kChains pairs of accumulators each.
template <uint32_t kTokens, uint32_t kChains>
struct Accumulators {
  __m512i plus[kChains][kTokens];
  __m512i minus[kChains][kTokens];

  Accumulators() {
    for (uint32_t c = 0; c < kChains; ++c) {
      for (uint32_t j = 0; j < kTokens; ++j) plus[c][j] = minus[c][j] = _mm512_setzero_si512();
    }
  }

  void AddLine(uint32_t chain, const uint8_t* line, const int8_t* table, size_t table_stride) {
    _mm_prefetch(reinterpret_cast<const char*>(line) + kPrefetchBytes, _MM_HINT_T0);
    const __m512i ones = _mm512_set1_epi8(1);
    const __m512i index = _mm512_load_si512(line);
    const __mmask64 negative = _mm512_movepi8_mask(index);
    const __m512i select_minus = _mm512_maskz_mov_epi8(negative, ones);
    const __m512i select_plus = _mm512_maskz_mov_epi8(~negative, ones);
    for (uint32_t j = 0; j < kTokens; ++j) {
      const int8_t* entries = table + j * table_stride;
      const __m512i x = _mm512_permutex2var_epi8(_mm512_load_si512(entries), index,
                                                 _mm512_load_si512(entries + 64));
      plus[chain][j] = _mm512_dpbusd_epi32(plus[chain][j], select_plus, x);
      minus[chain][j] = _mm512_dpbusd_epi32(minus[chain][j], select_minus, x);
    }
  }

  void Store(int32_t* sums, size_t sum_stride) const {
    for (uint32_t j = 0; j < kTokens; ++j) {
      __m512i sum = _mm512_setzero_si512();
      for (uint32_t c = 0; c < kChains; ++c) {
        sum = _mm512_add_epi32(sum, _mm512_sub_epi32(plus[c][j], minus[c][j]));
      }
      _mm512_storeu_si512(sums + j * sum_stride, sum);
    }
  }
};

template <uint32_t kTokens, uint32_t kChains>
void LinesOfPanel(const SparseLinesTile& tile, uint32_t panel, uint32_t token) {
  const SparsePanel& at = tile.panels[panel];
  const uint8_t* line = tile.lines + at.line_begin * kSparseLineBytes;
  const int8_t* table = tile.tables + token * tile.table_stride;
  Accumulators<kTokens, kChains> sums;
  for (uint64_t begin = 0; begin < at.line_count; begin += 64) {
    uint64_t advance = tile.advance[at.bits_begin + begin / 64];
    const uint64_t left = at.line_count - begin;
    const uint64_t count = left < 64 ? left : 64;
    uint64_t i = 0;
    for (; i + kChains <= count; i += kChains) {
      for (uint32_t c = 0; c < kChains; ++c) {
        sums.AddLine(c, line, table, tile.table_stride);
        line += kSparseLineBytes;
        table += kSparseTableBytes * (advance & 1);
        advance >>= 1;
      }
    }
    for (; i < count; ++i) {
      sums.AddLine(0, line, table, tile.table_stride);
      line += kSparseLineBytes;
      table += kSparseTableBytes * (advance & 1);
      advance >>= 1;
    }
  }
  sums.Store(tile.sums + token * tile.sum_stride + size_t{panel} * kSparsePanelRows,
             tile.sum_stride);
}

void Lines(const SparseLinesTile& tile) noexcept {
  for (uint32_t panel = 0; panel < tile.panel_count; ++panel) {
    uint32_t token = 0;
    for (; token + 4 <= tile.tokens; token += 4) LinesOfPanel<4, 1>(tile, panel, token);
    for (; token < tile.tokens; ++token) LinesOfPanel<1, 2>(tile, panel, token);
  }
}

}  // namespace

SparseKernels SparseAvx512Vbmi() noexcept {
  return {.lines = &Lines, .planes = SparseAvx512Vnni().planes};
}

}  // namespace fabric::kernels
