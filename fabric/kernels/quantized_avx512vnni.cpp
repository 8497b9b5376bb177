#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/quantized_driver.h"

// The 16 rows of a group are the 16 dwords of a register. vpdpbusd takes codes as unsigned bytes
// and activations as signed ones and adds four products to an int32: nothing saturates.

namespace fabric::kernels {
namespace {

struct Avx512 {
  static constexpr int kTokenBlock = 8;

  using Ints = __m512i;
  using Floats = __m512;

  static __m128i Load128(const void* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  // Rows kFirst, + 4, + 8 and + 12 in the four 128-bit lanes. Inlined by force, as Transpose(): as
  // calls they bring every vector in work to the stack and back.
  template <uint32_t kFirst, class Rows>
  [[gnu::always_inline]] static Ints LoadLanes(const Rows& rows, size_t offset) {
    // A masked broadcast from memory is a load and a blend, which more ports can do than an insert.
    __m512i v = _mm512_castsi128_si512(Load128(rows[kFirst] + offset));
    v = _mm512_mask_broadcast_i32x4(v, 0x00F0, Load128(rows[kFirst + 4] + offset));
    v = _mm512_mask_broadcast_i32x4(v, 0x0F00, Load128(rows[kFirst + 8] + offset));
    return _mm512_mask_broadcast_i32x4(v, 0xF000, Load128(rows[kFirst + 12] + offset));
  }
  template <class Rows>
  [[gnu::always_inline]] static void Transpose(const Rows& rows, size_t offset, Ints (&out)[4]) {
    const __m512i a = LoadLanes<0>(rows, offset);
    const __m512i b = LoadLanes<1>(rows, offset);
    const __m512i c = LoadLanes<2>(rows, offset);
    const __m512i d = LoadLanes<3>(rows, offset);
    const __m512i ab_low = _mm512_unpacklo_epi32(a, b);
    const __m512i ab_high = _mm512_unpackhi_epi32(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi32(c, d);
    const __m512i cd_high = _mm512_unpackhi_epi32(c, d);
    out[0] = _mm512_unpacklo_epi64(ab_low, cd_low);
    out[1] = _mm512_unpackhi_epi64(ab_low, cd_low);
    out[2] = _mm512_unpacklo_epi64(ab_high, cd_high);
    out[3] = _mm512_unpackhi_epi64(ab_high, cd_high);
  }

  static Ints Set(int32_t x) { return _mm512_set1_epi32(x); }
  static Ints LoadInts(const void* p) { return _mm512_load_si512(p); }
  static void StoreInts(void* p, Ints v) { _mm512_store_si512(p, v); }
  static Ints And(Ints a, Ints b) { return _mm512_and_si512(a, b); }
  static Ints Or(Ints a, Ints b) { return _mm512_or_si512(a, b); }
  static Ints AndOr(Ints a, Ints b, Ints c) { return _mm512_ternarylogic_epi32(a, b, c, 0xEA); }
  static Ints Add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Ints MulLow(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
  template <int kLeft>
  static Ints Shift(Ints v) {
    if constexpr (kLeft > 0) return _mm512_slli_epi32(v, kLeft);
    if constexpr (kLeft < 0) return _mm512_srli_epi32(v, -kLeft);
    return v;
  }
  template <int kByte>
  static Ints SignedByte(Ints v) {
    return _mm512_srai_epi32(Shift<24 - 8 * kByte>(v), 24);
  }
  template <int kHalf>
  static Floats HalfOf(Ints v) {
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(Shift<-16 * kHalf>(v)));
  }
  static Floats LoadHalves(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_load_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static Ints Levels(Ints codes) {
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(Load128(kNonlinearLevels)), codes);
  }
  template <bool kWide>
  static Ints Dot(Ints sums, Ints codes, const int8_t* x) {
    int32_t dword;
    __builtin_memcpy(&dword, x, sizeof dword);
    return _mm512_dpbusd_epi32(sums, codes, _mm512_set1_epi32(dword));
  }
  // vpsadbw sums unsigned bytes: each is moved up by 128.
  static int32_t SumOf16(const int8_t* x) {
    const __m128i moved = _mm_xor_si128(Load128(x), _mm_set1_epi8(-128));
    const __m128i halves = _mm_sad_epu8(moved, _mm_setzero_si128());
    return _mm_cvtsi128_si32(halves) + _mm_extract_epi16(halves, 4) - 16 * 128;
  }

  static Floats Zero() { return _mm512_setzero_ps(); }
  static Floats SetFloat(float x) { return _mm512_set1_ps(x); }
  static Floats Load(const float* p) { return _mm512_loadu_ps(p); }
  static void Store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
  static Floats Mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats Fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats ToFloats(Ints v) { return _mm512_cvtepi32_ps(v); }
};

}  // namespace

QuantizedTileFn QuantizedAvx512Vnni() noexcept { return QuantizedDriver<Avx512>::Run; }

}  // namespace fabric::kernels
