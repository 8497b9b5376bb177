#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/sparse_tile.h"

// Lines: a block's table of 128 biased codes fills two registers, and vpermt2b looks up 64
// non-zeros at once. It reads the low seven bits of an index, so the sign in bit 7 needs no
// masking; vpmovb2m turns it into trits, once for all tokens:
//
//   line   | row 0: i0 i1 i2 i3 | row 1: ... | ... | row 15 |
//   looked | x[i0] .. x[i3]     |            |     |        |   unsigned: code + 128
//   trits  | +1 or -1           |            |     |        |
//   sums   += vpdpbusd(looked, trits)       a row's four are added into its dword
//   biases += vpdpbusd(128, trits)          what the sums have too much
//
// |sum| <= 255 * 2^17 < 2^31. One token takes its lines in turn into two accumulators, four and
// more have one each: either way the latency of vpdpbusd is hidden.

namespace fabric::kernels {
namespace {

// Enough to cover the latency of memory at the rate at which one core consumes lines.
constexpr size_t kPrefetchBytes = 8192;

// The sums of kTokens tokens, in kChains accumulators each.
template <uint32_t kTokens, uint32_t kChains>
struct Accumulators {
  __m512i sums[kChains][kTokens];
  __m512i biases[kChains];

  Accumulators() {
    for (uint32_t c = 0; c < kChains; ++c) {
      biases[c] = _mm512_setzero_si512();
      for (uint32_t j = 0; j < kTokens; ++j) sums[c][j] = _mm512_setzero_si512();
    }
  }

  void AddLine(uint32_t chain, const uint8_t* line, const uint8_t* table, size_t table_stride) {
    _mm_prefetch(reinterpret_cast<const char*>(line) + kPrefetchBytes, _MM_HINT_T0);
    const __m512i index = _mm512_load_si512(line);
    const __m512i trits = _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), _mm512_set1_epi8(1),
                                                 _mm512_set1_epi8(-1));
    biases[chain] =
        _mm512_dpbusd_epi32(biases[chain], _mm512_set1_epi8(static_cast<char>(kSparseBias)), trits);
    for (uint32_t j = 0; j < kTokens; ++j) {
      const uint8_t* entries = table + j * table_stride;
      const __m512i x = _mm512_permutex2var_epi8(_mm512_load_si512(entries), index,
                                                 _mm512_load_si512(entries + 64));
      sums[chain][j] = _mm512_dpbusd_epi32(sums[chain][j], x, trits);
    }
  }

  __m512i Total(uint32_t j) const {
    __m512i total = _mm512_setzero_si512();
    for (uint32_t c = 0; c < kChains; ++c) {
      total = _mm512_add_epi32(total, _mm512_sub_epi32(sums[c][j], biases[c]));
    }
    return total;
  }
};

template <uint32_t kTokens, uint32_t kChains>
void LinesOfPanel(const SparseLinesTile& t, uint32_t panel, uint32_t token) {
  const SparsePanel& at = t.panels[panel];
  const uint8_t* line = t.lines + at.line_begin * kSparseLineBytes;
  const uint8_t* table = t.tables + token * t.table_stride;
  Accumulators<kTokens, kChains> sums;
  for (uint64_t begin = 0; begin < at.line_count; begin += 64) {
    uint64_t advance = t.advance[at.bits_begin + begin / 64];
    const uint64_t left = at.line_count - begin;
    const uint64_t count = left < 64 ? left : 64;
    uint64_t i = 0;
    for (; i + kChains <= count; i += kChains) {
      for (uint32_t c = 0; c < kChains; ++c) {
        sums.AddLine(c, line, table, t.table_stride);
        line += kSparseLineBytes;
        table += kSparseTableBytes * (advance & 1);
        advance >>= 1;
      }
    }
    for (; i < count; ++i) {
      sums.AddLine(0, line, table, t.table_stride);
      line += kSparseLineBytes;
      table += kSparseTableBytes * (advance & 1);
      advance >>= 1;
    }
  }
  const __m512 w = _mm512_loadu_ps(t.tile.w_scales + panel * t.tile.w_panel_stride);
  for (uint32_t j = 0; j < kTokens; ++j) {
    const __m512 factor = _mm512_div_ps(w, _mm512_set1_ps(t.tile.x_scales[token + j]));
    _mm512_storeu_ps(
        t.tile.out + (token + j) * t.tile.out_stride + size_t{panel} * kSparsePanelRows,
        _mm512_mul_ps(_mm512_cvtepi32_ps(sums.Total(j)), factor));
  }
}

void Lines(const SparseLinesTile& t) noexcept {
  // Sums per group or block are in no hurry: a matrix that needs them is not made sparse unasked.
  if (t.tile.sum != TernarySum::kToken) {
    SparseScalar().lines(t);
    return;
  }
  for (uint32_t panel = 0; panel < t.tile.panel_count; ++panel) {
    uint32_t token = 0;
    for (; token + 8 <= t.tile.tokens; token += 8) LinesOfPanel<8, 1>(t, panel, token);
    if (token + 4 <= t.tile.tokens) {
      LinesOfPanel<4, 1>(t, panel, token);
      token += 4;
    }
    for (; token < t.tile.tokens; ++token) LinesOfPanel<1, 2>(t, panel, token);
  }
}

}  // namespace

SparseKernels SparseAvx512Vbmi() noexcept {
  return {.lines = &Lines, .planes = SparseAvx512Vnni().planes};
}

}  // namespace fabric::kernels
