#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/count_activity.h"
#include "fabric/kernels/pairs_avx2.h"
#include "fabric/kernels/ternary_driver.h"

// What the 256-bit targets share: unpacking and floats. Included by one file per target,
// which compiles its own copy: everything is in an anonymous namespace.
//
// A line is two registers of eight rows: dword r holds, per digit, the codes (trit + 1) of four
// columns.

namespace fabric::kernels {
namespace {

// How far one token reads ahead of itself: see ternary_avx512.h.
constexpr size_t kPrefetchBytes = 8192;
constexpr size_t kHalfLine = kLineBytes / 2;

inline __m256i LoadHalf(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
inline void StoreHalf(uint8_t* p, __m256i v) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(p), v);
}

// Four activations of one token in every dword.
inline __m256i Broadcast(const int8_t* codes) {
  int32_t dword;
  __builtin_memcpy(&dword, codes, sizeof dword);
  return _mm256_set1_epi32(dword);
}

// Puts one token after the other: GCC would fetch the operands of several early, and have no
// registers left for the sums.
inline void KeepInRegisters(__m256i* low, __m256i* high) {
  __asm__ volatile("" : "+x"(*low), "+x"(*high));
}

// Bytes divided by 3^k: see ternary_avx512.h.
struct Quotients {
  __m256i even;
  __m256i odd;

  explicit Quotients(__m256i line)
      : even(_mm256_and_si256(line, _mm256_set1_epi16(0x00FF))),
        odd(_mm256_andnot_si256(_mm256_set1_epi16(0x00FF), line)) {}
  __m256i By(int16_t reciprocal) const {
    const __m256i r = _mm256_set1_epi16(reciprocal);
    return _mm256_blendv_epi8(_mm256_mulhi_epu16(even, r), _mm256_mulhi_epu16(odd, r),
                              _mm256_set1_epi16(static_cast<int16_t>(0xFF00)));
  }
};
constexpr int16_t kReciprocalOf3 = 21846;
constexpr int16_t kReciprocalOf9 = 7282;
constexpr int16_t kReciprocalOf27 = 2428;
constexpr int16_t kReciprocalOf81 = 810;

inline __m256i Minus3Times(__m256i a, __m256i b) {
  return _mm256_sub_epi8(a, _mm256_add_epi8(_mm256_add_epi8(b, b), b));
}

template <uint32_t kDigits>
inline void Decode(__m256i line, __m256i (&codes)[kDigits]) {
  if constexpr (kDigits == k2BitDigits) {
    const __m256i mask = _mm256_set1_epi8(3);
    codes[0] = _mm256_and_si256(line, mask);
    codes[1] = _mm256_and_si256(_mm256_srli_epi32(line, 2), mask);
    codes[2] = _mm256_and_si256(_mm256_srli_epi32(line, 4), mask);
    codes[3] = _mm256_and_si256(_mm256_srli_epi32(line, 6), mask);
  } else {
    const Quotients by(line);
    const __m256i q1 = by.By(kReciprocalOf3);
    const __m256i q2 = by.By(kReciprocalOf9);
    const __m256i q3 = by.By(kReciprocalOf27);
    const __m256i q4 = by.By(kReciprocalOf81);
    codes[0] = Minus3Times(line, q1);
    codes[1] = Minus3Times(q1, q2);
    codes[2] = Minus3Times(q2, q3);
    codes[3] = Minus3Times(q3, q4);
    codes[4] = q4;
  }
}

// Everything of a target but its dot products; rows 0..7 are low, 8..15 high.
struct Ymm : PairOps {
  // A window of 960 columns of one panel stays in the first-level cache with the activations.
  static constexpr size_t kExpandedBytes = 15 << 10;
  static constexpr uint32_t kPanels = 1;
  static constexpr uint32_t kWidePanels = 1;
  template <uint32_t kDigits, bool kSegmented>
  static constexpr uint32_t kWideTokens = 0;
  template <uint32_t kDigits, bool kSegmented>
  static constexpr uint32_t kMostInPlace = 0;
  template <uint32_t kDigits>
  static constexpr bool kSegmentVector = kDigits == k2BitDigits;

  static Ints ZeroInts() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
  static Ints LoadInts(const int32_t* x) {
    const auto* at = reinterpret_cast<const __m256i*>(x);
    return {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
  }
  static void StoreInts(int32_t* y, Ints v) {
    auto* at = reinterpret_cast<__m256i*>(y);
    _mm256_storeu_si256(at, v.low);
    _mm256_storeu_si256(at + 1, v.high);
  }
  static Floats Set(float x) { return SetFloat(x); }
  static Floats ToFloats(Ints sums, int32_t minus) {
    const __m256i m = _mm256_set1_epi32(minus);
    return {_mm256_cvtepi32_ps(_mm256_sub_epi32(sums.low, m)),
            _mm256_cvtepi32_ps(_mm256_sub_epi32(sums.high, m))};
  }

  // Over `steps` dwords of expanded bytes: low[j] = add(low[j], codes of rows 0..7, activations of
  // token j), and high[j] likewise. Prefetches `ahead`. Always inlined, since only then the sums
  // stay in registers, of which there are just enough.
  template <uint32_t T, typename Add>
  __attribute__((always_inline)) static void AddSteps(const uint8_t* bytes, const int8_t* x,
                                                      size_t code_stride, uint32_t steps,
                                                      LinesAhead* ahead, const Add& add,
                                                      __m256i (&low)[T], __m256i (&high)[T]) {
    for (uint32_t step = 0; step < steps; ++step) {
      if (step % kStepsPerTouch == 0 && ahead->count > 0) {
        _mm_prefetch(ahead->first, _MM_HINT_T1);
        ahead->Advance(1);
      }
      const __m256i w_low = LoadHalf(bytes);
      const __m256i w_high = LoadHalf(bytes + kHalfLine);
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) {
        const __m256i codes = Broadcast(x + j * code_stride);
        low[j] = add(low[j], w_low, codes);
        high[j] = add(high[j], w_high, codes);
        KeepInRegisters(&low[j], &high[j]);
      }
      bytes += kLineBytes;
      x += kStepCols;
    }
  }

  template <uint32_t kDigits>
  static void ExpandLine(const uint8_t* line, uint8_t* bytes, size_t stride) {
#pragma GCC unroll 2
    for (uint32_t half = 0; half < 2; ++half) {
      __m256i codes[kDigits];
      Decode<kDigits>(LoadHalf(line + half * kHalfLine), codes);
#pragma GCC unroll 5
      for (uint32_t k = 0; k < kDigits; ++k) {
        StoreHalf(bytes + k * stride + half * kHalfLine, codes[k]);
      }
    }
  }
};

}  // namespace
}  // namespace fabric::kernels
