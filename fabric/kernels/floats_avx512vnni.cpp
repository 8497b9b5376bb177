#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/attention_lanes.h"

// The 16 virtual lanes are one register.

namespace fabric::kernels {
namespace {

struct Avx512Lanes {
  static constexpr size_t kRowBlock = 4;
  static constexpr size_t kTokenBlock = 4;
  static constexpr size_t kHeadBlock = 4;
  static constexpr size_t kKeyBlock = 4;
  static constexpr size_t kValueBlock = 2;

  __m512 v;

  static Avx512Lanes Zero() { return {_mm512_setzero_ps()}; }
  static Avx512Lanes Set(float x) { return {_mm512_set1_ps(x)}; }
  static Avx512Lanes Load(const float* x) { return {_mm512_loadu_ps(x)}; }
  static void Store(float* y, Avx512Lanes a) { _mm512_storeu_ps(y, a.v); }
  static __m256i Load256(const uint8_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static Avx512Lanes LoadHalf(const uint8_t* p) { return {_mm512_cvtph_ps(Load256(p))}; }
  static Avx512Lanes LoadBFloat16(const uint8_t* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(Load256(p)), 16))};
  }
  static Avx512Lanes LoadInt8(const int8_t* p) {
    const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))};
  }
  // Each lane shifts its code to the two lowest bits, which choose from the table.
  static Avx512Lanes LoadTrits(const uint8_t* p) {
    int32_t codes;
    __builtin_memcpy(&codes, p, sizeof codes);
    const __m512i shifts =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512 table = _mm512_setr4_ps(0, 1, 0, -1);
    const __m512i shifted = _mm512_srlv_epi32(_mm512_set1_epi32(codes), shifts);
    return {_mm512_permutevar_ps(table, shifted)};
  }
  static void StoreHalf(uint16_t* y, Avx512Lanes a) {
    const __m256i halves = _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(y), halves);
  }
  static Avx512Lanes Add(Avx512Lanes a, Avx512Lanes b) { return {_mm512_add_ps(a.v, b.v)}; }
  static Avx512Lanes Sub(Avx512Lanes a, Avx512Lanes b) { return {_mm512_sub_ps(a.v, b.v)}; }
  static Avx512Lanes Mul(Avx512Lanes a, Avx512Lanes b) { return {_mm512_mul_ps(a.v, b.v)}; }
  static Avx512Lanes Div(Avx512Lanes a, Avx512Lanes b) { return {_mm512_div_ps(a.v, b.v)}; }
  static Avx512Lanes Fma(Avx512Lanes a, Avx512Lanes b, Avx512Lanes c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
  }
  static Avx512Lanes Max(Avx512Lanes a, Avx512Lanes b) { return {_mm512_max_ps(a.v, b.v)}; }
  static Avx512Lanes Min(Avx512Lanes a, Avx512Lanes b) { return {_mm512_min_ps(a.v, b.v)}; }
  static Avx512Lanes Scale(Avx512Lanes x, Avx512Lanes n) { return {_mm512_scalef_ps(x.v, n.v)}; }
  static float Sum(Avx512Lanes a) {
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
  }
  static float Largest(Avx512Lanes a) {
    const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
  }
  // The levels of Sum's tree, each for two vectors at once.
  static __m512 AddEighths(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xEE));
  }
  static __m512 AddFourths(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xDD));
  }
  static __m512 AddSeconds(__m512 a, __m512 b) {
    const __m512d x = _mm512_castps_pd(a);
    const __m512d y = _mm512_castps_pd(b);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  static __m512 AddFirsts(__m512 a, __m512 b) {
    return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xDD));
  }
  // Four vectors that are four apart: their sums of four lanes, each in a quarter of the result.
  static __m512 Quarters(const Avx512Lanes (&v)[4][4], int j) {
    return AddFourths(AddEighths(v[0][j].v, v[1][j].v), AddEighths(v[2][j].v, v[3][j].v));
  }
  static Avx512Lanes Sums(const Avx512Lanes (&v)[4][4]) {
    return {AddFirsts(AddSeconds(Quarters(v, 0), Quarters(v, 1)),
                      AddSeconds(Quarters(v, 2), Quarters(v, 3)))};
  }
  static float SquareRoot(float x) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(x))); }
  static float Fma1(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
};

}  // namespace

FloatOps FloatOpsAvx512Vnni() noexcept { return MakeFloatOps<Avx512Lanes>(); }
DenseKernels DenseAvx512Vnni() noexcept { return FloatLanes<Avx512Lanes>::DenseTable(); }

}  // namespace fabric::kernels
