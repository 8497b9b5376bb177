#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/ternary_driver.h"

// One register is one line: dword r holds, for row r of the panel, the codes (trit + 1) of four
// columns per digit. vpdpbusd multiplies the four u8 codes of a row by four s8 activations, the
// same for all rows, and adds them to the row's int32: no shuffles, and no intermediate that
// saturates.
//
//   line      | row 0: c0 c1 c2 c3 | row 1: c0 c1 c2 c3 | ... | row 15 |      (bytes, one digit
//   each) x         | x0 x1 x2 x3        | x0 x1 x2 x3        | ... |        |      (a dword,
//   broadcast)
//
// For one token the 2-bit digits are not shifted down: masked in place they are the codes times 1,
// 4, 16 and 64, and four accumulators are shifted once at the end. The bound of the largest sum is
// in ternary_matrix.cpp.

namespace fabric::kernels {
namespace {

// Enough to cover the latency of memory at the rate at which one core consumes lines.
constexpr size_t kPrefetchBytes = 1536;

__m512i LoadLine(const uint8_t* p) { return _mm512_loadu_si512(p); }

// Four activations of one token in every dword.
__m512i Broadcast(const int8_t* codes) {
  int32_t dword;
  __builtin_memcpy(&dword, codes, sizeof dword);
  return _mm512_set1_epi32(dword);
}

__m512i Mask(char bits) { return _mm512_set1_epi8(bits); }

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

__m512i Minus3Times(__m512i a, __m512i b) {
  return _mm512_sub_epi8(a, _mm512_add_epi8(_mm512_add_epi8(b, b), b));
}

// The codes of a line, a register per digit.
template <uint32_t kDigits>
void Decode(__m512i line, __m512i (&codes)[kDigits]) {
  if constexpr (kDigits == k2BitDigits) {
    const __m512i mask = Mask(3);
    codes[0] = _mm512_and_si512(line, mask);
    codes[1] = _mm512_and_si512(_mm512_srli_epi32(line, 2), mask);
    codes[2] = _mm512_and_si512(_mm512_srli_epi32(line, 4), mask);
    codes[3] = _mm512_and_si512(_mm512_srli_epi32(line, 6), mask);
  } else {
    const Quotients by(line);
    const __m512i q1 = by.By(kReciprocalOf3);
    const __m512i q2 = by.By(kReciprocalOf9);
    const __m512i q3 = by.By(kReciprocalOf27);
    const __m512i q4 = by.By(kReciprocalOf81);
    codes[0] = Minus3Times(line, q1);
    codes[1] = Minus3Times(q1, q2);
    codes[2] = Minus3Times(q2, q3);
    codes[3] = Minus3Times(q3, q4);
    codes[4] = q4;
  }
}

struct Avx512 {
  template <uint32_t kDigits>
  static constexpr uint32_t kTokenBlock = kDigits == k2BitDigits ? 12 : 8;

  using Ints = __m512i;
  using Floats = __m512;

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

  // Adds digits [first, last) of one line to `sums`. Not inlined: indexing the sums at run time
  // would keep those of the main loop out of registers.
  template <uint32_t kDigits, uint32_t P, uint32_t T>
  __attribute__((noinline)) static void AddPartOfLine(const uint8_t* line, size_t panel_stride,
                                                      const int8_t* codes, size_t code_stride,
                                                      uint32_t first, uint32_t last,
                                                      Ints (&sums)[P][T]) {
    for (uint32_t p = 0; p < P; ++p) {
      __m512i w[kDigits];
      Decode<kDigits>(LoadLine(line + p * panel_stride), w);
      for (uint32_t k = first; k < last; ++k) {
        for (uint32_t j = 0; j < T; ++j) {
          const __m512i x = Broadcast(codes + j * code_stride + (k - first) * kStepCols);
          sums[p][j] = _mm512_dpbusd_epi32(sums[p][j], w[k], x);
        }
      }
    }
  }

  // Whole lines first, in registers; then the digits that are left at either end. PT-5 lines of 20
  // columns do not divide a scale group; 2-bit lines always do.
  template <uint32_t kDigits, uint32_t P, uint32_t T>
  static void DotRange(const uint8_t* panels, size_t panel_stride, const int8_t* codes,
                       size_t code_stride, uint32_t begin, uint32_t end, Ints (&out)[P][T]) {
    const uint32_t first_line = (begin + kDigits - 1) / kDigits;
    const uint32_t last_line = end / kDigits;
    AddLines<kDigits, P, T>(panels + size_t{first_line} * kLineBytes, panel_stride,
                            codes + size_t{first_line} * kDigits * kStepCols, code_stride,
                            last_line > first_line ? last_line - first_line : 0, out);
    if constexpr (kDigits == kPt5Digits) {
      const auto add = [&](uint32_t from, uint32_t to) {
        const uint32_t line = from / kDigits;
        AddPartOfLine<kDigits, P, T>(panels + size_t{line} * kLineBytes, panel_stride,
                                     codes + size_t{from} * kStepCols, code_stride,
                                     from - line * kDigits, to - line * kDigits, out);
      };
      const uint32_t head_end = first_line * kDigits;
      if (begin < head_end) add(begin, head_end < end ? head_end : end);
      if (last_line >= first_line && last_line * kDigits < end) add(last_line * kDigits, end);
    }
  }

  template <uint32_t kDigits, uint32_t P, uint32_t T>
  static void AddLines(const uint8_t* line, size_t panel_stride, const int8_t* x,
                       size_t code_stride, uint32_t lines, Ints (&out)[P][T]) {
    Ints sums[P][T];
#pragma GCC unroll 2
    for (uint32_t p = 0; p < P; ++p) {
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) sums[p][j] = _mm512_setzero_si512();
    }
    for (; lines > 0; --lines) {
      __m512i rest[P];
#pragma GCC unroll 2
      for (uint32_t p = 0; p < P; ++p) {
        rest[p] = LoadLine(line + p * panel_stride);
        _mm_prefetch(line + p * panel_stride + kPrefetchBytes, _MM_HINT_T0);
      }
      FullLine<kDigits, P, T>(rest, x, code_stride, sums);
      line += kLineBytes;
      x += kDigits * kStepCols;
    }
#pragma GCC unroll 2
    for (uint32_t p = 0; p < P; ++p) {
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) out[p][j] = sums[p][j];
    }
  }

  // One broadcast serves P panels.
  template <uint32_t kDigits, uint32_t P, uint32_t T>
  static void FullLine(__m512i (&line)[P], const int8_t* x, size_t code_stride,
                       Ints (&sums)[P][T]) {
    if constexpr (kDigits == k2BitDigits) {
      const __m512i mask = Mask(3);
#pragma GCC unroll 4
      for (uint32_t k = 0; k < kDigits; ++k) {
        __m512i w[P];
#pragma GCC unroll 2
        for (uint32_t p = 0; p < P; ++p) {
          w[p] = _mm512_and_si512(line[p], mask);
          line[p] = _mm512_srli_epi32(line[p], 2);
        }
        AddStep<P, T>(w, x + k * kStepCols, code_stride, sums);
      }
    } else {
      __m512i w[P][kDigits];
#pragma GCC unroll 2
      for (uint32_t p = 0; p < P; ++p) Decode<kDigits>(line[p], w[p]);
#pragma GCC unroll 5
      for (uint32_t k = 0; k < kDigits; ++k) {
        __m512i digit[P];
#pragma GCC unroll 2
        for (uint32_t p = 0; p < P; ++p) digit[p] = w[p][k];
        AddStep<P, T>(digit, x + k * kStepCols, code_stride, sums);
      }
    }
  }
  template <uint32_t P, uint32_t T>
  static void AddStep(const __m512i (&w)[P], const int8_t* x, size_t code_stride,
                      Ints (&sums)[P][T]) {
#pragma GCC unroll 12
    for (uint32_t j = 0; j < T; ++j) {
      const __m512i codes = Broadcast(x + j * code_stride);
#pragma GCC unroll 2
      for (uint32_t p = 0; p < P; ++p) {
        sums[p][j] = _mm512_dpbusd_epi32(sums[p][j], w[p], codes);
      }
    }
  }

  template <uint32_t kDigits, uint32_t P>
  static void DotVector(const uint8_t* panels, size_t panel_stride, const int8_t* codes,
                        uint32_t end, Ints (&out)[P]) {
    if constexpr (kDigits == k2BitDigits) {
      DotVector2Bit<P>(panels, panel_stride, codes, end, out);
    } else {
      DotVectorPt5<P>(panels, panel_stride, codes, end, out);
    }
  }

  template <uint32_t P>
  static void DotVector2Bit(const uint8_t* panels, size_t panel_stride, const int8_t* codes,
                            uint32_t end, Ints (&out)[P]) {
    const __m512i masks[4] = {Mask(0x03), Mask(0x0C), Mask(0x30), Mask(static_cast<char>(0xC0))};
    __m512i sums[P][4];
    for (auto& of_panel : sums) {
      for (__m512i& sum : of_panel) sum = _mm512_setzero_si512();
    }
    const uint8_t* line = panels;
    for (uint32_t step = 0; step < end; step += 4, codes += 16, line += kLineBytes) {
      const __m512i x[4] = {Broadcast(codes), Broadcast(codes + 4), Broadcast(codes + 8),
                            Broadcast(codes + 12)};
#pragma GCC unroll 2
      for (uint32_t p = 0; p < P; ++p) {
        const __m512i w = LoadLine(line + p * panel_stride);
        _mm_prefetch(line + p * panel_stride + kPrefetchBytes, _MM_HINT_T0);
#pragma GCC unroll 4
        for (uint32_t k = 0; k < 4; ++k) {
          sums[p][k] = _mm512_dpbusd_epi32(sums[p][k], _mm512_and_si512(w, masks[k]), x[k]);
        }
      }
    }
    for (uint32_t p = 0; p < P; ++p) {
      const __m512i low = _mm512_add_epi32(sums[p][0], _mm512_srai_epi32(sums[p][1], 2));
      const __m512i high =
          _mm512_add_epi32(_mm512_srai_epi32(sums[p][2], 4), _mm512_srai_epi32(sums[p][3], 6));
      out[p] = _mm512_add_epi32(low, high);
    }
  }

  // With q_k = byte / 3^k a digit is q_k - 3 q_{k+1}. The quotients go into the dot products as
  // they are, and the factor 3 is applied to the second sum once at the end.
  template <uint32_t P>
  static void DotVectorPt5(const uint8_t* panels, size_t panel_stride, const int8_t* codes,
                           uint32_t end, Ints (&out)[P]) {
    Ints upper[P];
    Ints lower[P];
    Ints rest[P][1];
    for (uint32_t p = 0; p < P; ++p) {
      upper[p] = _mm512_setzero_si512();
      lower[p] = _mm512_setzero_si512();
      rest[p][0] = _mm512_setzero_si512();
    }
    const uint8_t* line = panels;
    uint32_t step = 0;
    for (; step + 5 <= end; step += 5, codes += 20, line += kLineBytes) {
      const __m512i x[5] = {Broadcast(codes), Broadcast(codes + 4), Broadcast(codes + 8),
                            Broadcast(codes + 12), Broadcast(codes + 16)};
#pragma GCC unroll 2
      for (uint32_t p = 0; p < P; ++p) {
        const __m512i w = LoadLine(line + p * panel_stride);
        _mm_prefetch(line + p * panel_stride + kPrefetchBytes, _MM_HINT_T0);
        const Quotients by(w);
        const __m512i q1 = by.By(kReciprocalOf3);
        const __m512i q2 = by.By(kReciprocalOf9);
        const __m512i q3 = by.By(kReciprocalOf27);
        const __m512i q4 = by.By(kReciprocalOf81);
        upper[p] = _mm512_dpbusd_epi32(upper[p], w, x[0]);
        lower[p] = _mm512_dpbusd_epi32(lower[p], q1, x[0]);
        upper[p] = _mm512_dpbusd_epi32(upper[p], q1, x[1]);
        lower[p] = _mm512_dpbusd_epi32(lower[p], q2, x[1]);
        upper[p] = _mm512_dpbusd_epi32(upper[p], q2, x[2]);
        lower[p] = _mm512_dpbusd_epi32(lower[p], q3, x[2]);
        upper[p] = _mm512_dpbusd_epi32(upper[p], q3, x[3]);
        lower[p] = _mm512_dpbusd_epi32(lower[p], q4, x[3]);
        upper[p] = _mm512_dpbusd_epi32(upper[p], q4, x[4]);
      }
    }
    if (step < end) {
      AddPartOfLine<kPt5Digits, P, 1>(line, panel_stride, codes, 0, 0, end - step, rest);
    }
    for (uint32_t p = 0; p < P; ++p) {
      const __m512i thrice = _mm512_add_epi32(_mm512_slli_epi32(lower[p], 1), lower[p]);
      out[p] = _mm512_add_epi32(_mm512_sub_epi32(upper[p], thrice), rest[p][0]);
    }
  }
};

ActivityCount CountActivity(const int8_t* codes, const uint32_t* nonzeros, uint32_t cols) noexcept {
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

TernaryKernels TernaryAvx512Vnni() noexcept {
  return {TernaryDriver<Avx512, k2BitDigits>::Run, TernaryDriver<Avx512, kPt5Digits>::Run,
          CountActivity};
}

}  // namespace fabric::kernels
