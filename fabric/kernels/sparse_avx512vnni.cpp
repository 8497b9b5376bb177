#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/sparse_tile.h"

// Bit planes: a word of a plane is a mask register. Ones where the mask is set, as the unsigned
// operand of vpdpbusd, select the signed codes of 64 columns; both signs have an accumulator, so
// that a code of -128 is never negated in 8 bits. Words without a non-zero are never loaded.

namespace fabric::kernels {
namespace {

template <uint32_t kTokens>
void PlanesOfRow(const SparsePlanesTile& tile, uint32_t row, uint32_t token) {
  const uint64_t* plus = tile.plus + row * tile.words;
  const uint64_t* minus = tile.minus + row * tile.words;
  const uint64_t* occupied = tile.occupied + row * tile.occupied_words;
  const int8_t* codes = tile.codes + token * tile.code_stride;
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i added[kTokens];
  __m512i subtracted[kTokens];
  for (uint32_t j = 0; j < kTokens; ++j) added[j] = subtracted[j] = _mm512_setzero_si512();
  for (size_t group = 0; group < tile.occupied_words; ++group) {
    for (uint64_t left = occupied[group]; left != 0; left &= left - 1) {
      const size_t word = group * 64 + static_cast<size_t>(__builtin_ctzll(left));
      const __m512i select_plus = _mm512_maskz_mov_epi8(plus[word], ones);
      const __m512i select_minus = _mm512_maskz_mov_epi8(minus[word], ones);
      for (uint32_t j = 0; j < kTokens; ++j) {
        const __m512i x = _mm512_loadu_si512(codes + j * tile.code_stride + word * 64);
        added[j] = _mm512_dpbusd_epi32(added[j], select_plus, x);
        subtracted[j] = _mm512_dpbusd_epi32(subtracted[j], select_minus, x);
      }
    }
  }
  for (uint32_t j = 0; j < kTokens; ++j) {
    tile.sums[(token + j) * tile.sum_stride + row] =
        _mm512_reduce_add_epi32(_mm512_sub_epi32(added[j], subtracted[j]));
  }
}

void Planes(const SparsePlanesTile& tile) noexcept {
  for (uint32_t row = 0; row < tile.rows; ++row) {
    uint32_t token = 0;
    for (; token + 4 <= tile.tokens; token += 4) PlanesOfRow<4>(tile, row, token);
    for (; token < tile.tokens; ++token) PlanesOfRow<1>(tile, row, token);
  }
}

}  // namespace

SparseKernels SparseAvx512Vnni() noexcept {
  return {.lines = SparseScalar().lines, .planes = &Planes};
}

}  // namespace fabric::kernels
