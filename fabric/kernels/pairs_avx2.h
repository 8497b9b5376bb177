#pragma once

#include <immintrin.h>

// The 16 rows of a panel as two 256-bit registers: rows 0..7 are low, 8..15 high. Included by files
// of 256-bit targets, each of which compiles its own copy: hence the anonymous namespace.

namespace fabric::kernels {
namespace {

struct IntPair {
  __m256i low;
  __m256i high;
};

struct FloatPair {
  __m256 low;
  __m256 high;
};

// What kernels over pairs derive from.
struct PairOps {
  using Ints = IntPair;
  using Floats = FloatPair;

  static Ints AddInts(Ints a, Ints b) {
    return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)};
  }
  static Floats Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Floats SetFloat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
  static Floats Load(const float* x) { return {_mm256_loadu_ps(x), _mm256_loadu_ps(x + 8)}; }
  static void Store(float* y, Floats v) {
    _mm256_storeu_ps(y, v.low);
    _mm256_storeu_ps(y + 8, v.high);
  }
  static Floats Mul(Floats a, Floats b) {
    return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
  }
  static Floats Div(Floats a, Floats b) {
    return {_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high)};
  }
  static Floats Fma(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
  }
};

}  // namespace
}  // namespace fabric::kernels
