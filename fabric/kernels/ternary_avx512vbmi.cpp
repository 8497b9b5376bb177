#include "fabric/kernels/ternary_avx512.h"

// PT-5 with byte permutes: a table of 256 bytes is two vpermi2b, one for the lower half of the
// bytes and one for the upper, and a blend by the byte's highest bit. Table 1 turns a byte into a
// 2-bit byte of its digits 0..3, table 2 into digit 4.
//
//   byte b          b & 127 looks up   low:  T[0..127]     high: T[128..255]
//   sign bit of b   picks                ^ b < 128           ^ b >= 128
//
// What follows is as cheap as the 2-bit layout, for four fifths of its bytes.

namespace fabric::kernels {
namespace {

struct DigitTables {
  alignas(64) uint8_t four[256];   // digit 0 + 4 digit 1 + 16 digit 2 + 64 digit 3
  alignas(64) uint8_t fifth[256];  // digit 4
};

constexpr DigitTables MakeDigitTables() {
  DigitTables tables = {};
  for (int byte = 0; byte < 256; ++byte) {
    tables.four[byte] = static_cast<uint8_t>(byte % 3 + (byte / 3 % 3) * 4 + (byte / 9 % 3) * 16 +
                                             (byte / 27 % 3) * 64);
    // Bytes from 243 on are no codes and are never stored.
    tables.fifth[byte] = static_cast<uint8_t>(byte / 81 % 3);
  }
  return tables;
}

constexpr DigitTables kDigitTables = MakeDigitTables();

struct ByteTable {
  __m512i quarters[4];

  explicit ByteTable(const uint8_t* table)
      : quarters{_mm512_load_si512(table), _mm512_load_si512(table + 64),
                 _mm512_load_si512(table + 128), _mm512_load_si512(table + 192)} {}
  __m512i Find(__m512i bytes, __mmask64 upper_half) const {
    const __m512i low = _mm512_permutex2var_epi8(quarters[0], bytes, quarters[1]);
    const __m512i high = _mm512_permutex2var_epi8(quarters[2], bytes, quarters[3]);
    return _mm512_mask_blend_epi8(upper_half, low, high);
  }
};

struct Pt5ByTable {
  static constexpr uint32_t kMostInPlace = 16;

  // The line's digits 0..3 as a 2-bit line, and digit 4 apart.
  static void Split(__m512i* line, __m512i* fifth) {
    const __mmask64 upper_half = _mm512_movepi8_mask(*line);
    *fifth = ByteTable(kDigitTables.fifth).Find(*line, upper_half);
    *line = ByteTable(kDigitTables.four).Find(*line, upper_half);
  }

  struct Dot {
    ByteTable four{kDigitTables.four};
    ByteTable fifth{kDigitTables.fifth};
    __m512i sums[kPt5Digits];

    Dot() {
#pragma GCC unroll 5
      for (uint32_t k = 0; k < kPt5Digits; ++k) sums[k] = _mm512_setzero_si512();
    }
    void AddLine(__m512i line, const int8_t* x) {
      const __mmask64 upper_half = _mm512_movepi8_mask(line);
      const __m512i w = four.Find(line, upper_half);
#pragma GCC unroll 4
      for (uint32_t k = 0; k < 4; ++k) {
        sums[k] = _mm512_dpbusd_epi32(sums[k], _mm512_and_si512(w, Mask(3U << (2 * k))),
                                      Broadcast(x + k * kStepCols));
      }
      sums[4] =
          _mm512_dpbusd_epi32(sums[4], fifth.Find(line, upper_half), Broadcast(x + 4 * kStepCols));
    }
    __m512i Sum() const {
      const __m512i of_four[4] = {sums[0], sums[1], sums[2], sums[3]};
      return _mm512_add_epi32(AddShifted(of_four), sums[4]);
    }
  };
};

}  // namespace

TernaryKernels TernaryAvx512Vbmi() noexcept {
  using Target = Avx512<Pt5ByTable>;
  return {TernaryDriver<Target, k2BitDigits>::Run, TernaryDriver<Target, kPt5Digits>::Run,
          CountActivity, PlaneDriver<Target>::Run};
}

}  // namespace fabric::kernels
