#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/ternary_driver.h"

// A line is two registers of eight rows: dword r holds, per digit, the codes (trit + 1) of four
// columns. vpmaddubsw multiplies u8 codes by s8 activations and adds pairs to int16, which are
// added up in int16 and widened by vpmaddwd before they can overflow.
//
//   codes     | row 0: c0 c1 c2 c3 | ... | row 7 |     (bytes)
//   maddubs   | c0 x0 + c1 x1 , c2 x2 + c3 x3 | ...    (int16, at most 2 * 2 * 128)

namespace fabric::kernels {
namespace {

constexpr int kLargestPair = 2 * 2 * 128;
constexpr uint32_t kStepsBeforeWidening = 60;  // a multiple of both line lengths, 4 and 5
static_assert(kLargestPair * kStepsBeforeWidening <= INT16_MAX);

constexpr size_t kPrefetchBytes = 1024;

__m256i LoadHalfLine(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

__m256i Broadcast(const int8_t* codes) {
  int32_t dword;
  __builtin_memcpy(&dword, codes, sizeof dword);
  return _mm256_set1_epi32(dword);
}

// Bytes divided by 3^k: see ternary_avx512vnni.cpp.
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

__m256i Minus3Times(__m256i a, __m256i b) {
  return _mm256_sub_epi8(a, _mm256_add_epi8(_mm256_add_epi8(b, b), b));
}

template <uint32_t kDigits>
void Decode(__m256i line, __m256i (&codes)[kDigits]) {
  if constexpr (kDigits == k2BitDigits) {
    const __m256i mask = _mm256_set1_epi8(3);
    codes[0] = _mm256_and_si256(line, mask);
    codes[1] = _mm256_and_si256(_mm256_srli_epi32(line, 2), mask);
    codes[2] = _mm256_and_si256(_mm256_srli_epi32(line, 4), mask);
    codes[3] = _mm256_and_si256(_mm256_srli_epi32(line, 6), mask);
  } else {
    const Quotients by(line);
    const __m256i q1 = by.By(21846);
    const __m256i q2 = by.By(7282);
    const __m256i q3 = by.By(2428);
    const __m256i q4 = by.By(810);
    codes[0] = Minus3Times(line, q1);
    codes[1] = Minus3Times(q1, q2);
    codes[2] = Minus3Times(q2, q3);
    codes[3] = Minus3Times(q3, q4);
    codes[4] = q4;
  }
}

struct Avx2 {
  template <uint32_t kDigits>
  static constexpr uint32_t kTokenBlock = 4;

  struct Ints {
    __m256i low;
    __m256i high;
  };
  struct Floats {
    __m256 low;
    __m256 high;
  };

  static Floats Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
  static Floats Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
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
  static Floats ToFloats(Ints sums, int32_t minus) {
    const __m256i m = _mm256_set1_epi32(minus);
    return {_mm256_cvtepi32_ps(_mm256_sub_epi32(sums.low, m)),
            _mm256_cvtepi32_ps(_mm256_sub_epi32(sums.high, m))};
  }

  // Adds digits [first, last) of eight rows of one line to int16 sums.
  template <uint32_t kDigits, uint32_t T>
  static void AddDigits(const uint8_t* half_line, const int8_t* x, size_t code_stride,
                        uint32_t first, uint32_t last, __m256i (&sums)[T]) {
    __m256i w[kDigits];
    Decode<kDigits>(LoadHalfLine(half_line), w);
#pragma GCC unroll 5
    for (uint32_t k = 0; k < kDigits; ++k) {
      if (k < first || k >= last) continue;
#pragma GCC unroll 4
      for (uint32_t j = 0; j < T; ++j) {
        const __m256i codes = Broadcast(x + j * code_stride + (k - first) * kStepCols);
        sums[j] = _mm256_add_epi16(sums[j], _mm256_maddubs_epi16(w[k], codes));
      }
    }
  }

  // Eight rows of one panel, dwords [begin, end) of columns.
  template <uint32_t kDigits, uint32_t T>
  static void DotHalf(const uint8_t* half_panel, const int8_t* codes, size_t code_stride,
                      uint32_t begin, uint32_t end, __m256i (&out)[T]) {
    const __m256i ones = _mm256_set1_epi16(1);
    for (__m256i& sum : out) sum = _mm256_setzero_si256();
    const uint8_t* line = half_panel + size_t{begin / kDigits} * kLineBytes;
    const int8_t* x = codes + size_t{begin} * kStepCols;
    for (uint32_t step = begin; step < end;) {
      const uint32_t stop = end - step > kStepsBeforeWidening ? step + kStepsBeforeWidening : end;
      __m256i sums[T];
      for (__m256i& sum : sums) sum = _mm256_setzero_si256();
      while (step < stop) {
        const uint32_t first = step % kDigits;
        if (first == 0 && stop - step >= kDigits) {
          _mm_prefetch(line + kPrefetchBytes, _MM_HINT_T0);
          AddDigits<kDigits, T>(line, x, code_stride, 0, kDigits, sums);
          step += kDigits;
          x += kDigits * kStepCols;
          line += kLineBytes;
          continue;
        }
        const uint32_t last = first + (stop - step) < kDigits ? first + (stop - step) : kDigits;
        AddDigits<kDigits, T>(line, x, code_stride, first, last, sums);
        step += last - first;
        x += (last - first) * kStepCols;
        if (last == kDigits) line += kLineBytes;
      }
      for (uint32_t j = 0; j < T; ++j) {
        out[j] = _mm256_add_epi32(out[j], _mm256_madd_epi16(sums[j], ones));
      }
    }
  }

  template <uint32_t kDigits, uint32_t P, uint32_t T>
  static void DotRange(const uint8_t* panels, size_t panel_stride, const int8_t* codes,
                       size_t code_stride, uint32_t begin, uint32_t end, Ints (&out)[P][T]) {
    for (uint32_t p = 0; p < P; ++p) {
      __m256i low[T];
      __m256i high[T];
      const uint8_t* panel = panels + p * panel_stride;
      DotHalf<kDigits, T>(panel, codes, code_stride, begin, end, low);
      DotHalf<kDigits, T>(panel + kLineBytes / 2, codes, code_stride, begin, end, high);
      for (uint32_t j = 0; j < T; ++j) out[p][j] = {low[j], high[j]};
    }
  }

  template <uint32_t kDigits, uint32_t P>
  static void DotVector(const uint8_t* panels, size_t panel_stride, const int8_t* codes,
                        uint32_t end, Ints (&out)[P]) {
    for (uint32_t p = 0; p < P; ++p) {
      Ints sums[1][1];
      DotVectorPanel<kDigits>(panels + p * panel_stride, codes, end, &sums[0][0]);
      out[p] = sums[0][0];
    }
  }

  // Both halves of a line together, so that memory is read in order.
  template <uint32_t kDigits>
  static void DotVectorPanel(const uint8_t* panel, const int8_t* codes, uint32_t end, Ints* out) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i low = _mm256_setzero_si256();
    __m256i high = _mm256_setzero_si256();
    for (uint32_t step = 0; step < end;) {
      const uint32_t stop = end - step > kStepsBeforeWidening ? step + kStepsBeforeWidening : end;
      __m256i low_sums[1] = {_mm256_setzero_si256()};
      __m256i high_sums[1] = {_mm256_setzero_si256()};
      for (; step < stop; step += kDigits) {
        _mm_prefetch(panel + kPrefetchBytes, _MM_HINT_T0);
        const uint32_t last = stop - step < kDigits ? stop - step : kDigits;
        AddDigits<kDigits, 1>(panel, codes, 0, 0, last, low_sums);
        AddDigits<kDigits, 1>(panel + kLineBytes / 2, codes, 0, 0, last, high_sums);
        panel += kLineBytes;
        codes += kDigits * kStepCols;
      }
      low = _mm256_add_epi32(low, _mm256_madd_epi16(low_sums[0], ones));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(high_sums[0], ones));
    }
    *out = {low, high};
  }
};

ActivityCount CountActivity(const int8_t* codes, const uint32_t* nonzeros, uint32_t cols) noexcept {
  uint64_t ops = 0;
  uint64_t columns = 0;
  for (uint32_t col = 0; col < cols; ++col) {
    const uint32_t active = codes[col] != 0 ? 1 : 0;
    ops += active * nonzeros[col];
    columns += active;
  }
  return {ops, columns};
}

}  // namespace

TernaryKernels TernaryAvx2() noexcept {
  return {TernaryDriver<Avx2, k2BitDigits>::Run, TernaryDriver<Avx2, kPt5Digits>::Run,
          CountActivity};
}

}  // namespace fabric::kernels
