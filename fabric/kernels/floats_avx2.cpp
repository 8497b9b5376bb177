#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/attention_lanes.h"

// The 16 virtual lanes are two registers: lanes 0..7 and 8..15.

namespace fabric::kernels {
namespace {

struct Avx2Lanes {
  static constexpr size_t kRowBlock = 2;
  static constexpr size_t kTokenBlock = 2;
  static constexpr size_t kHeadBlock = 2;
  static constexpr size_t kKeyBlock = 2;
  static constexpr size_t kValueBlock = 1;

  __m256 low;
  __m256 high;

  static Avx2Lanes Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Avx2Lanes Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Avx2Lanes Load(const float* x) { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
  static void Store(float* y, Avx2Lanes a) {
    _mm256_storeu_ps(y, a.low);
    _mm256_storeu_ps(y + 8, a.high);
  }
  static __m128i Load128(const uint8_t* p) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static Avx2Lanes LoadHalf(const uint8_t* p) {
    return {_mm256_cvtph_ps(Load128(p)), _mm256_cvtph_ps(Load128(p + 16))};
  }
  static __m256 WidenBFloat16(__m128i halves) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
  }
  static Avx2Lanes LoadBFloat16(const uint8_t* p) {
    return {WidenBFloat16(Load128(p)), WidenBFloat16(Load128(p + 16))};
  }
  static __m256 WidenInt8(__m128i codes) { return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)); }
  static Avx2Lanes LoadInt8(const int8_t* p) {
    const __m128i codes = Load128(reinterpret_cast<const uint8_t*>(p));
    return {WidenInt8(codes), WidenInt8(_mm_srli_si128(codes, 8))};
  }
  // Each lane shifts its code to the two lowest bits, which choose from the table.
  static __m256 Trits(__m256i codes, __m256i shifts) {
    const __m256 table = _mm256_setr_ps(0, 1, 0, -1, 0, 1, 0, -1);
    return _mm256_permutevar_ps(table, _mm256_srlv_epi32(codes, shifts));
  }
  static Avx2Lanes LoadTrits(const uint8_t* p) {
    int32_t codes;
    __builtin_memcpy(&codes, p, sizeof codes);
    const __m256i all = _mm256_set1_epi32(codes);
    return {Trits(all, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14)),
            Trits(all, _mm256_setr_epi32(16, 18, 20, 22, 24, 26, 28, 30))};
  }
  static void StoreHalf(uint16_t* y, Avx2Lanes a) {
    constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y), _mm256_cvtps_ph(a.low, kNearest));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + 8), _mm256_cvtps_ph(a.high, kNearest));
  }
  static Avx2Lanes Add(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
  }
  static Avx2Lanes Sub(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)};
  }
  static Avx2Lanes Mul(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static Avx2Lanes Div(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }
  static Avx2Lanes Fma(Avx2Lanes a, Avx2Lanes b, Avx2Lanes c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
  static Avx2Lanes Max(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)};
  }
  static Avx2Lanes Min(Avx2Lanes a, Avx2Lanes b) {
    return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)};
  }
  // In two factors, since 2^n alone may not be a normal number; only the second product rounds.
  static __m256 ScaleHalf(__m256 x, __m256 n) {
    const __m256i exponent = _mm256_cvtps_epi32(n);
    const __m256i first = _mm256_srai_epi32(exponent, 1);
    const __m256i second = _mm256_sub_epi32(exponent, first);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(first, bias), 23);
    const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(second, bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(x, _mm256_castsi256_ps(a)), _mm256_castsi256_ps(b));
  }
  static Avx2Lanes Scale(Avx2Lanes x, Avx2Lanes n) {
    return {ScaleHalf(x.low, n.low), ScaleHalf(x.high, n.high)};
  }
  static float Sum(Avx2Lanes a) {
    const __m256 eight = _mm256_add_ps(a.low, a.high);
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float Largest(Avx2Lanes a) {
    const __m256 eight = _mm256_max_ps(a.low, a.high);
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  static float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
  static float Fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
};

}  // namespace

FloatOps FloatOpsAvx2() noexcept { return MakeFloatOps<Avx2Lanes>(); }
DenseKernels DenseAvx2() noexcept { return FloatLanes<Avx2Lanes>::DenseTable(); }

}  // namespace fabric::kernels
