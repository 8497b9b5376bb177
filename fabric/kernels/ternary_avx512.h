#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/ternary_driver.h"

// The ternary kernels of the AVX-512 targets, with VNNI alone and with VBMI too. Included by one
// file per target, which compiles its own copy: everything is in an anonymous namespace.
//
// One register is one line: dword r holds, for row r of the panel, the codes (trit + 1) of four
// columns per digit. vpdpbusd multiplies the four u8 codes of a row by four s8 activations, the
// same for all rows, and adds them to the row's int32: no shuffles, and no intermediate that
// saturates.
//
//   line    | row 0: c0 c1 c2 c3 | row 1: c0 c1 c2 c3 | ... | row 15 |   bytes, one digit each
//   x       |        x0 x1 x2 x3 |        x0 x1 x2 x3 | ... |        |   a dword, broadcast
//
// For one token the 2-bit digits are not shifted down: masked in place they are the codes times 1,
// 4, 16 and 64, and four accumulators are shifted once at the end. The bound of the largest sum is
// in ternary_matrix.cpp.

namespace fabric::kernels {
namespace {

// How far one token reads ahead of itself. The latency of memory at the rate of one core asks for
// 4 KiB; twice that hides the gaps between panels as well.
constexpr size_t kPrefetchBytes = 8192;

inline __m512i LoadLine(const uint8_t* p) { return _mm512_loadu_si512(p); }

// Four activations of one token in every dword.
inline __m512i Broadcast(const int8_t* codes) {
  int32_t dword;
  __builtin_memcpy(&dword, codes, sizeof dword);
  return _mm512_set1_epi32(dword);
}

inline __m512i Mask(unsigned bits) { return _mm512_set1_epi8(static_cast<char>(bits)); }

// A line's worth of activations of one token, for the last line: past `steps` dwords lie another
// token's.
inline void CopyLastCodes(const int8_t* x, uint32_t steps,
                          int8_t (&codes)[kPt5Digits * kStepCols]) {
  for (uint32_t i = 0; i < sizeof codes; ++i) codes[i] = i < steps * kStepCols ? x[i] : int8_t{0};
}

// Bytes divided by 3^k, k = 1..4, by 16-bit multiplication with ceil(2^16 / 3^k), even and odd
// bytes apart. Exact for bytes: the error is below 256 * 0.92 / 2^16 = 0.0036, less than 1 / 81.
struct Quotients {
  __m512i even;
  __m512i odd;

  explicit Quotients(__m512i line)
      : even(_mm512_and_si512(line, _mm512_set1_epi16(0x00FF))),
        odd(_mm512_and_si512(line, _mm512_set1_epi16(static_cast<int16_t>(0xFF00)))) {}
  __m512i By(int16_t reciprocal) const {
    const __m512i r = _mm512_set1_epi16(reciprocal);
    return _mm512_mask_blend_epi8(0xAAAAAAAAAAAAAAAA, _mm512_mulhi_epu16(even, r),
                                  _mm512_mulhi_epu16(odd, r));
  }
};
constexpr int16_t kReciprocalOf3 = 21846;
constexpr int16_t kReciprocalOf9 = 7282;
constexpr int16_t kReciprocalOf27 = 2428;
constexpr int16_t kReciprocalOf81 = 810;

// The four 2-bit digits of a line as bytes, to bytes, bytes + stride, ...
inline void StoreDigits(__m512i line, uint8_t* bytes, size_t stride) {
  const __m512i mask = Mask(3);
  _mm512_store_si512(bytes, _mm512_and_si512(line, mask));
  _mm512_store_si512(bytes + stride, _mm512_and_si512(_mm512_srli_epi32(line, 2), mask));
  _mm512_store_si512(bytes + 2 * stride, _mm512_and_si512(_mm512_srli_epi32(line, 4), mask));
  _mm512_store_si512(bytes + 3 * stride, _mm512_and_si512(_mm512_srli_epi32(line, 6), mask));
}

// Sums of digits that were masked in place.
inline __m512i AddShifted(const __m512i (&sums)[4]) {
  const __m512i low = _mm512_add_epi32(sums[0], _mm512_srai_epi32(sums[1], 2));
  const __m512i high =
      _mm512_add_epi32(_mm512_srai_epi32(sums[2], 4), _mm512_srai_epi32(sums[3], 6));
  return _mm512_add_epi32(low, high);
}

// PT-5 without byte permutes.
struct Pt5ByDivision {
  // From nine tokens on it pays to divide once for all.
  static constexpr uint32_t kMostInPlace = 8;

  // The line's digits 0..3 as a 2-bit line, and digit 4 apart: with q_k = byte / 3^k, and digit k =
  // q_k - 3 q_{k+1}, the sum of digit k times 4^k is b + q_1 + 4 q_2 + 16 q_3 - 192 q_4.
  static void Split(__m512i* line, __m512i* fifth) {
    const Quotients by(*line);
    const __m512i q1 = by.By(kReciprocalOf3);
    const __m512i q2 = by.By(kReciprocalOf9);
    const __m512i q3 = by.By(kReciprocalOf27);
    const __m512i q4 = by.By(kReciprocalOf81);
    // Modulo 256, -192 q_4 is 64 q_4. None of the shifts leaves its byte: q_2 is at most 26, q_3 8.
    const __m512i q2_times_4 = _mm512_slli_epi32(q2, 2);
    const __m512i q3_times_16 = _mm512_slli_epi32(q3, 4);
    const __m512i q4_times_64 = _mm512_slli_epi32(q4, 6);
    *line = _mm512_add_epi8(_mm512_add_epi8(_mm512_add_epi8(*line, q1), q2_times_4),
                            _mm512_add_epi8(q3_times_16, q4_times_64));
    *fifth = q4;
  }

  // With q_k = byte / 3^k a digit is q_k - 3 q_{k+1}. The quotients go into the dot products as
  // they are, and the factor 3 is applied to the second sum once at the end.
  struct Dot {
    __m512i upper = _mm512_setzero_si512();
    __m512i lower = _mm512_setzero_si512();

    void AddLine(__m512i line, const int8_t* x) {
      const Quotients by(line);
      const __m512i q[kPt5Digits] = {line, by.By(kReciprocalOf3), by.By(kReciprocalOf9),
                                     by.By(kReciprocalOf27), by.By(kReciprocalOf81)};
#pragma GCC unroll 5
      for (uint32_t k = 0; k < kPt5Digits; ++k) {
        const __m512i codes = Broadcast(x + k * kStepCols);
        upper = _mm512_dpbusd_epi32(upper, q[k], codes);
        if (k + 1 < kPt5Digits) lower = _mm512_dpbusd_epi32(lower, q[k + 1], codes);
      }
    }
    __m512i Sum() const {
      const __m512i thrice = _mm512_add_epi32(_mm512_slli_epi32(lower, 1), lower);
      return _mm512_sub_epi32(upper, thrice);
    }
  };
};

// Pt5: how PT-5 bytes are taken apart: Pt5ByDivision, or another type like it.
template <class Pt5>
struct Avx512 {
  using Ints = __m512i;
  using Floats = __m512;

  // A window of 2560 columns for two panels: larger than the first-level cache, but it is read in
  // order and once per twelve tokens.
  static constexpr size_t kExpandedBytes = 80 << 10;
  static constexpr uint32_t kPanels = 2;
  static constexpr uint32_t kWidePanels = 4;
  // Look-ups of PT-5 in place leave registers for the sums of eight tokens.
  template <uint32_t kDigits, bool kSegmented, bool kInPlace>
  static constexpr uint32_t kTokens = kSegmented ? (kDigits == k2BitDigits ? 4 : 6)
                                      : kDigits == kPt5Digits&& kInPlace ? 8
                                                                         : 12;
  // Fewer accumulators than ten would wait for each other.
  template <uint32_t kDigits, bool kSegmented>
  static constexpr uint32_t kWideTokens = kSegmented               ? 3
                                          : kDigits == k2BitDigits ? 6
                                                                   : 4;
  // Masks and shifts of the 2-bit layout find free ports beside the dot products. PT-5 lines do not
  // divide a segment.
  template <uint32_t kDigits, bool kSegmented>
  static constexpr uint32_t kMostInPlace = kDigits == k2BitDigits ? kAlways
                                           : kSegmented           ? 0
                                                                  : Pt5::kMostInPlace;
  template <uint32_t kDigits>
  static constexpr bool kSegmentVector = kDigits == k2BitDigits;

  static Ints ZeroInts() { return _mm512_setzero_si512(); }
  static Ints LoadInts(const int32_t* x) { return _mm512_loadu_si512(x); }
  static void StoreInts(int32_t* y, Ints v) { _mm512_storeu_si512(y, v); }
  static Ints AddInts(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static Floats Zero() { return _mm512_setzero_ps(); }
  static Floats Set(float x) { return _mm512_set1_ps(x); }
  static Floats Load(const float* x) { return _mm512_loadu_ps(x); }
  static void Store(float* y, Floats v) { _mm512_storeu_ps(y, v); }
  static Floats Mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static Floats Div(Floats a, Floats b) { return _mm512_div_ps(a, b); }
  static Floats Fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  static Floats ToFloats(Ints sums, int32_t minus) {
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(sums, _mm512_set1_epi32(minus)));
  }

  template <uint32_t kDigits>
  static void ExpandLine(const uint8_t* line, uint8_t* bytes, size_t stride) {
    if constexpr (kDigits == k2BitDigits) {
      StoreDigits(LoadLine(line), bytes, stride);
    } else {
      __m512i four = LoadLine(line);
      __m512i fifth;
      Pt5::Split(&four, &fifth);
      StoreDigits(four, bytes, stride);
      _mm512_store_si512(bytes + 4 * stride, fifth);
    }
  }

  template <uint32_t P>
  static void Touch(LinesAhead* ahead) {
    if (ahead->count == 0) return;
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) {
      _mm_prefetch(ahead->first + p * ahead->panel_stride, _MM_HINT_T0);
    }
    ahead->Advance(1);
  }

  template <uint32_t P, uint32_t T>
  static void AddBytes(const uint8_t* bytes, const int8_t* x, size_t code_stride, uint32_t steps,
                       LinesAhead ahead, Ints (&sums)[P][T]) {
    for (; steps >= kStepsPerTouch; steps -= kStepsPerTouch) {
      Touch<P>(&ahead);
#pragma GCC unroll 4
      for (uint32_t k = 0; k < kStepsPerTouch; ++k) {
        AddStep<P, T>(bytes + k * P * kLineBytes, x + k * kStepCols, code_stride, sums);
      }
      bytes += kStepsPerTouch * P * kLineBytes;
      x += kStepsPerTouch * kStepCols;
    }
    for (; steps > 0; --steps) {
      AddStep<P, T>(bytes, x, code_stride, sums);
      bytes += P * kLineBytes;
      x += kStepCols;
    }
  }
  template <uint32_t P, uint32_t T>
  static void AddStep(const uint8_t* bytes, const int8_t* x, size_t code_stride,
                      Ints (&sums)[P][T]) {
    __m512i w[P];
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) w[p] = _mm512_load_si512(bytes + p * kLineBytes);
    AddCodes<P, T>(w, x, code_stride, sums);
  }
  // Puts one step after the other: GCC would fetch the operands of several early, and have no
  // registers left for the sums.
  template <uint32_t P, uint32_t T>
  static void KeepInRegisters(Ints (&sums)[P][T]) {
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) {
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) __asm__ volatile("" : "+v"(sums[p][j]));
    }
  }
  // One broadcast serves P panels.
  template <uint32_t P, uint32_t T>
  static void AddCodes(const __m512i (&w)[P], const int8_t* x, size_t code_stride,
                       Ints (&sums)[P][T]) {
#pragma GCC unroll 12
    for (uint32_t j = 0; j < T; ++j) {
      const __m512i codes = Broadcast(x + j * code_stride);
#pragma GCC unroll 4
      for (uint32_t p = 0; p < P; ++p) {
        sums[p][j] = _mm512_dpbusd_epi32(sums[p][j], w[p], codes);
      }
    }
  }

  template <uint32_t kDigits, uint32_t P, uint32_t T>
  static void AddLines(const uint8_t* line, size_t panel_stride, const int8_t* x,
                       size_t code_stride, uint32_t steps, LinesAhead ahead, Ints (&sums)[P][T]) {
    if constexpr (kDigits == k2BitDigits) {
      // The padding of a last line meets zero codes.
      for (uint32_t step = 0; step < steps; step += kDigits) {
        Touch<P>(&ahead);
        AddLine<kDigits, P, T>(line, panel_stride, x, code_stride, sums);
        line += kLineBytes;
        x += kDigits * kStepCols;
      }
    } else {
      for (; steps >= kDigits; steps -= kDigits) {
        Touch<P>(&ahead);
        AddLine<kDigits, P, T>(line, panel_stride, x, code_stride, sums);
        line += kLineBytes;
        x += kDigits * kStepCols;
      }
      if (steps > 0) {
        int8_t last[T][kPt5Digits * kStepCols];
#pragma GCC unroll 12
        for (uint32_t j = 0; j < T; ++j) CopyLastCodes(x + j * code_stride, steps, last[j]);
        AddLine<kDigits, P, T>(line, panel_stride, last[0], sizeof last[0], sums);
      }
    }
  }
  template <uint32_t kDigits, uint32_t P, uint32_t T>
  static void AddLine(const uint8_t* line, size_t panel_stride, const int8_t* x, size_t code_stride,
                      Ints (&sums)[P][T]) {
    __m512i rest[P];
    __m512i fifth[P];
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) {
      rest[p] = LoadLine(line + p * panel_stride);
      if constexpr (kDigits == kPt5Digits) Pt5::Split(&rest[p], &fifth[p]);
    }
    const __m512i mask = Mask(3);
#pragma GCC unroll 4
    for (uint32_t k = 0; k < 4; ++k) {
      __m512i w[P];
#pragma GCC unroll 4
      for (uint32_t p = 0; p < P; ++p) {
        w[p] = _mm512_and_si512(rest[p], mask);
        rest[p] = _mm512_srli_epi32(rest[p], 2);
      }
      AddCodes<P, T>(w, x + k * kStepCols, code_stride, sums);
      KeepInRegisters(sums);
    }
    if constexpr (kDigits == kPt5Digits) {
      AddCodes<P, T>(fifth, x + 4 * kStepCols, code_stride, sums);
    }
  }

  template <uint32_t kDigits>
  static Ints DotVector(const uint8_t* panel, const int8_t* codes, uint32_t steps) {
    if constexpr (kDigits == k2BitDigits) {
      return DotVector2Bit(panel, codes, steps);
    } else {
      return DotVectorPt5(panel, codes, steps);
    }
  }

  static Ints DotVector2Bit(const uint8_t* line, const int8_t* x, uint32_t steps) {
    const __m512i masks[4] = {Mask(0x03), Mask(0x0C), Mask(0x30), Mask(0xC0)};
    __m512i sums[4];
    for (__m512i& sum : sums) sum = _mm512_setzero_si512();
    for (uint32_t step = 0; step < steps; step += 4, x += 16, line += kLineBytes) {
      const __m512i w = LoadLine(line);
      _mm_prefetch(line + kPrefetchBytes, _MM_HINT_T0);
#pragma GCC unroll 4
      for (uint32_t k = 0; k < 4; ++k) {
        sums[k] = _mm512_dpbusd_epi32(sums[k], _mm512_and_si512(w, masks[k]),
                                      Broadcast(x + k * kStepCols));
      }
    }
    return AddShifted(sums);
  }

  static Ints DotVectorPt5(const uint8_t* line, const int8_t* x, uint32_t steps) {
    typename Pt5::Dot dot;
    for (; steps >= 2 * kPt5Digits; steps -= 2 * kPt5Digits) {
      _mm_prefetch(line + kPrefetchBytes, _MM_HINT_T0);
      _mm_prefetch(line + kPrefetchBytes + kLineBytes, _MM_HINT_T0);
      dot.AddLine(LoadLine(line), x);
      dot.AddLine(LoadLine(line + kLineBytes), x + kPt5Digits * kStepCols);
      line += 2 * kLineBytes;
      x += 2 * kPt5Digits * kStepCols;
    }
    for (; steps > 0; steps -= steps < kPt5Digits ? steps : kPt5Digits) {
      int8_t last[kPt5Digits * kStepCols];
      CopyLastCodes(x, steps, last);
      dot.AddLine(LoadLine(line), last);
      line += kLineBytes;
      x += kPt5Digits * kStepCols;
    }
    return dot.Sum();
  }

  // Two sums: digits 0 and 2 (shifted down by 4 together with 3), and 1 and 3 times 4.
  template <uint32_t kDigits>
  static Ints SegmentVector(const uint8_t* line, const int8_t* x, uint32_t steps) {
    static_assert(kDigits == k2BitDigits);
    const __m512i low = Mask(0x03);
    const __m512i high = Mask(0x0C);
    __m512i ones = _mm512_setzero_si512();
    __m512i fours = _mm512_setzero_si512();
    for (uint32_t step = 0; step < steps; step += 4, x += 16, line += kLineBytes) {
      const __m512i w = LoadLine(line);
      _mm_prefetch(line + kPrefetchBytes, _MM_HINT_T0);
      const __m512i upper = _mm512_srli_epi32(w, 4);
      ones = _mm512_dpbusd_epi32(ones, _mm512_and_si512(w, low), Broadcast(x));
      fours = _mm512_dpbusd_epi32(fours, _mm512_and_si512(w, high), Broadcast(x + 4));
      ones = _mm512_dpbusd_epi32(ones, _mm512_and_si512(upper, low), Broadcast(x + 8));
      fours = _mm512_dpbusd_epi32(fours, _mm512_and_si512(upper, high), Broadcast(x + 12));
    }
    return _mm512_add_epi32(ones, _mm512_srai_epi32(fours, 2));
  }
};

inline ActivityCount CountActivity(const int8_t* codes, const uint32_t* nonzeros,
                                   uint32_t cols) noexcept {
  ActivityCount count;
  __m512i sums = _mm512_setzero_si512();
  for (uint32_t col = 0; col < cols; col += 16) {
    const auto in_range =
        static_cast<__mmask16>(cols - col >= 16 ? 0xFFFFU : (1U << (cols - col)) - 1);
    const __m128i x = _mm_maskz_loadu_epi8(in_range, codes + col);
    const __mmask16 active = _mm_test_epi8_mask(x, x);
    const __m512i n = _mm512_maskz_loadu_epi32(active, nonzeros + col);
    sums = _mm512_add_epi64(sums, _mm512_cvtepu32_epi64(_mm512_castsi512_si256(n)));
    sums = _mm512_add_epi64(sums, _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(n, 1)));
    count.active_columns += static_cast<unsigned>(__builtin_popcount(active));
  }
  count.active_ops = static_cast<uint64_t>(_mm512_reduce_add_epi64(sums));
  return count;
}

}  // namespace
}  // namespace fabric::kernels
