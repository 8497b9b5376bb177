#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/pairs_avx2.h"
#include "fabric/kernels/quantized_driver.h"

// The 16 rows of a group are the dwords of two registers: rows 0..7 and 8..15.
//
// vpmaddubsw adds two products u8 x s8 in int16. Codes of at most 127 cannot saturate it:
// 2 * 127 * 128 < 2^15. Larger ones are widened to int16 first, even and odd bytes apart.

namespace fabric::kernels {
namespace {

static_assert(2 * 127 * 128 < 1 << 15);

struct Avx2 : PairOps {
  static constexpr int kTokenBlock = 4;

  static __m128i Load128(const void* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  // Rows kFirst and + 4 in the two 128-bit lanes.
  template <uint32_t kFirst, class Rows>
  static __m256i LoadLanes(const Rows& rows, size_t offset) {
    return _mm256_inserti128_si256(_mm256_castsi128_si256(Load128(rows[kFirst] + offset)),
                                   Load128(rows[kFirst + 4] + offset), 1);
  }
  template <uint32_t kFirst, class Rows>
  static void TransposeHalf(const Rows& rows, size_t offset, __m256i (&out)[4]) {
    const __m256i a = LoadLanes<kFirst>(rows, offset);
    const __m256i b = LoadLanes<kFirst + 1>(rows, offset);
    const __m256i c = LoadLanes<kFirst + 2>(rows, offset);
    const __m256i d = LoadLanes<kFirst + 3>(rows, offset);
    const __m256i ab_low = _mm256_unpacklo_epi32(a, b);
    const __m256i ab_high = _mm256_unpackhi_epi32(a, b);
    const __m256i cd_low = _mm256_unpacklo_epi32(c, d);
    const __m256i cd_high = _mm256_unpackhi_epi32(c, d);
    out[0] = _mm256_unpacklo_epi64(ab_low, cd_low);
    out[1] = _mm256_unpackhi_epi64(ab_low, cd_low);
    out[2] = _mm256_unpacklo_epi64(ab_high, cd_high);
    out[3] = _mm256_unpackhi_epi64(ab_high, cd_high);
  }
  template <class Rows>
  static void Transpose(const Rows& rows, size_t offset, Ints (&out)[4]) {
    __m256i low[4];
    __m256i high[4];
    TransposeHalf<0>(rows, offset, low);
    TransposeHalf<8>(rows, offset, high);
    for (int j = 0; j < 4; ++j) out[j] = {low[j], high[j]};
  }

  static Ints Set(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
  static Ints LoadInts(const void* p) {
    const auto* at = reinterpret_cast<const __m256i*>(p);
    return {_mm256_load_si256(at), _mm256_load_si256(at + 1)};
  }
  static void StoreInts(void* p, Ints v) {
    auto* at = reinterpret_cast<__m256i*>(p);
    _mm256_store_si256(at, v.low);
    _mm256_store_si256(at + 1, v.high);
  }
  static Ints And(Ints a, Ints b) {
    return {_mm256_and_si256(a.low, b.low), _mm256_and_si256(a.high, b.high)};
  }
  static Ints Or(Ints a, Ints b) {
    return {_mm256_or_si256(a.low, b.low), _mm256_or_si256(a.high, b.high)};
  }
  static Ints AndOr(Ints a, Ints b, Ints c) { return Or(And(a, b), c); }
  static Ints Add(Ints a, Ints b) { return AddInts(a, b); }
  static Ints MulLow(Ints a, Ints b) {
    return {_mm256_mullo_epi32(a.low, b.low), _mm256_mullo_epi32(a.high, b.high)};
  }
  template <int kLeft>
  static Ints Shift(Ints v) {
    if constexpr (kLeft > 0) {
      return {_mm256_slli_epi32(v.low, kLeft), _mm256_slli_epi32(v.high, kLeft)};
    }
    if constexpr (kLeft < 0) {
      return {_mm256_srli_epi32(v.low, -kLeft), _mm256_srli_epi32(v.high, -kLeft)};
    }
    return v;
  }
  template <int kByte>
  static Ints SignedByte(Ints v) {
    const Ints up = Shift<24 - 8 * kByte>(v);
    return {_mm256_srai_epi32(up.low, 24), _mm256_srai_epi32(up.high, 24)};
  }
  template <int kHalf>
  static Floats HalfOf(Ints v) {
    const Ints halves = And(Shift<-16 * kHalf>(v), Set(0xFFFF));
    // packus works within 128-bit lanes: its four quarters are rows 0..3, 8..11, 4..7, 12..15.
    const __m256i mixed = _mm256_packus_epi32(halves.low, halves.high);
    const __m256i packed = _mm256_permute4x64_epi64(mixed, 0xD8);
    return {_mm256_cvtph_ps(_mm256_castsi256_si128(packed)),
            _mm256_cvtph_ps(_mm256_extracti128_si256(packed, 1))};
  }
  static Floats LoadHalves(const uint16_t* p) {
    return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 8))};
  }
  static Ints Levels(Ints codes) {
    const __m256i levels = _mm256_broadcastsi128_si256(Load128(kNonlinearLevels));
    return {_mm256_shuffle_epi8(levels, codes.low), _mm256_shuffle_epi8(levels, codes.high)};
  }
  static __m256i DotNarrow(__m256i sums, __m256i codes, __m256i x) {
    const __m256i pairs = _mm256_maddubs_epi16(codes, x);
    return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
  static __m256i DotWide(__m256i sums, __m256i codes, __m256i x_even, __m256i x_odd) {
    const __m256i even = _mm256_and_si256(codes, _mm256_set1_epi16(0xFF));
    const __m256i odd = _mm256_srli_epi16(codes, 8);
    return _mm256_add_epi32(
        sums, _mm256_add_epi32(_mm256_madd_epi16(even, x_even), _mm256_madd_epi16(odd, x_odd)));
  }
  template <bool kWide>
  static Ints Dot(Ints sums, Ints codes, const int8_t* x) {
    int32_t dword;
    __builtin_memcpy(&dword, x, sizeof dword);
    const __m256i four = _mm256_set1_epi32(dword);
    if constexpr (kWide) {
      const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(four, 8), 8);
      const __m256i odd = _mm256_srai_epi16(four, 8);
      return {DotWide(sums.low, codes.low, even, odd), DotWide(sums.high, codes.high, even, odd)};
    } else {
      return {DotNarrow(sums.low, codes.low, four), DotNarrow(sums.high, codes.high, four)};
    }
  }
  // vpsadbw sums unsigned bytes: each is moved up by 128.
  static int32_t SumOf16(const int8_t* x) {
    const __m128i moved = _mm_xor_si128(Load128(x), _mm_set1_epi8(-128));
    const __m128i halves = _mm_sad_epu8(moved, _mm_setzero_si128());
    return _mm_cvtsi128_si32(halves) + _mm_extract_epi16(halves, 4) - 16 * 128;
  }

  static Floats ToFloats(Ints v) { return {_mm256_cvtepi32_ps(v.low), _mm256_cvtepi32_ps(v.high)}; }
};

}  // namespace

QuantizedTileFn QuantizedAvx2() noexcept { return QuantizedDriver<Avx2>::Run; }

}  // namespace fabric::kernels
