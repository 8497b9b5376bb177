#include "fabric/kernels/ternary_avx2.h"

// vpdpbusd on eight rows: the four u8 codes of a row times four s8 activations, added to the row's
// int32 without an intermediate that saturates.
//
// For one token nothing is unpacked. 2-bit digits are masked in place, so that they are the codes
// times 1, 4, 16 and 64, and the sums are shifted at the end. Of PT-5 the quotients q_k = byte /
// 3^k go in as they are, because digit k is q_k - 3 q_{k+1}: the factor 3 is applied to the sums.

namespace fabric::kernels {
namespace {

__m256i Dot(__m256i sum, __m256i codes, __m256i x) {
  return _mm256_dpbusd_avx_epi32(sum, codes, x);
}

// A line's worth of activations of one token, for the last line: past `steps` dwords lie another
// token's.
struct LastCodes {
  int8_t codes[kPt5Digits * kStepCols] = {};
  LastCodes(const int8_t* x, uint32_t steps) {
    for (uint32_t i = 0; i < steps * kStepCols; ++i) codes[i] = x[i];
  }
};

struct AvxVnni : Ymm {
  template <uint32_t kDigits, bool kSegmented, bool kInPlace>
  static constexpr uint32_t kTokens = 6;

  // Not inlined: sixteen registers are just enough for the sums.
  template <uint32_t P, uint32_t T>
  __attribute__((noinline)) static void AddBytes(const uint8_t* bytes, const int8_t* x,
                                                 size_t code_stride, uint32_t steps,
                                                 LinesAhead ahead, Ints (&sums)[P][T]) {
    static_assert(P == 1);
    __m256i low[T];
    __m256i high[T];
#pragma GCC unroll 12
    for (uint32_t j = 0; j < T; ++j) {
      low[j] = sums[0][j].low;
      high[j] = sums[0][j].high;
    }
    AddSteps<T>(bytes, x, code_stride, steps, &ahead, Dot, low, high);
#pragma GCC unroll 12
    for (uint32_t j = 0; j < T; ++j) sums[0][j] = {low[j], high[j]};
  }

  template <uint32_t kDigits>
  static Ints DotVector(const uint8_t* panel, const int8_t* codes, uint32_t steps) {
    return kDigits == k2BitDigits ? Dot2Bit(panel, codes, steps) : DotPt5(panel, codes, steps);
  }
  template <uint32_t kDigits>
  static Ints SegmentVector(const uint8_t* line, const int8_t* x, uint32_t steps) {
    static_assert(kDigits == k2BitDigits);
    return Dot2Bit(line, x, steps);
  }

  static Ints Dot2Bit(const uint8_t* line, const int8_t* codes, uint32_t end) {
    __m256i low[4];
    __m256i high[4];
    for (uint32_t k = 0; k < 4; ++k) low[k] = high[k] = _mm256_setzero_si256();
    for (uint32_t step = 0; step < end; step += 4, codes += 16, line += kLineBytes) {
      _mm_prefetch(line + kPrefetchBytes, _MM_HINT_T0);
      const __m256i w_low = LoadHalf(line);
      const __m256i w_high = LoadHalf(line + kHalfLine);
#pragma GCC unroll 4
      for (uint32_t k = 0; k < 4; ++k) {
        const __m256i mask = _mm256_set1_epi8(static_cast<char>(3 << (2 * k)));
        const __m256i x = Broadcast(codes + k * kStepCols);
        low[k] = Dot(low[k], _mm256_and_si256(w_low, mask), x);
        high[k] = Dot(high[k], _mm256_and_si256(w_high, mask), x);
      }
    }
    return {AddShifted(low), AddShifted(high)};
  }
  static __m256i AddShifted(const __m256i (&sums)[4]) {
    const __m256i low = _mm256_add_epi32(sums[0], _mm256_srai_epi32(sums[1], 2));
    const __m256i high =
        _mm256_add_epi32(_mm256_srai_epi32(sums[2], 4), _mm256_srai_epi32(sums[3], 6));
    return _mm256_add_epi32(low, high);
  }

  struct Pt5Sums {
    __m256i upper = _mm256_setzero_si256();
    __m256i lower = _mm256_setzero_si256();

    void AddHalfLine(const uint8_t* half_line, const int8_t* x) {
      const __m256i q0 = LoadHalf(half_line);
      const Quotients by(q0);
      const __m256i q1 = by.By(kReciprocalOf3);
      const __m256i q2 = by.By(kReciprocalOf9);
      const __m256i q3 = by.By(kReciprocalOf27);
      const __m256i q4 = by.By(kReciprocalOf81);
      const __m256i quotients[6] = {q0, q1, q2, q3, q4, _mm256_setzero_si256()};
#pragma GCC unroll 5
      for (uint32_t k = 0; k < kPt5Digits; ++k) {
        const __m256i codes = Broadcast(x + k * kStepCols);
        upper = Dot(upper, quotients[k], codes);
        if (k + 1 < kPt5Digits) lower = Dot(lower, quotients[k + 1], codes);
      }
    }
    __m256i Sum() const {
      const __m256i thrice = _mm256_add_epi32(_mm256_slli_epi32(lower, 1), lower);
      return _mm256_sub_epi32(upper, thrice);
    }
  };
  static Ints DotPt5(const uint8_t* line, const int8_t* codes, uint32_t end) {
    Pt5Sums low;
    Pt5Sums high;
    const auto add = [&](const int8_t* x) {
      _mm_prefetch(line + kPrefetchBytes, _MM_HINT_T0);
      low.AddHalfLine(line, x);
      high.AddHalfLine(line + kHalfLine, x);
    };
    uint32_t step = 0;
    for (; step + kPt5Digits <= end; step += kPt5Digits) {
      add(codes);
      codes += kPt5Digits * kStepCols;
      line += kLineBytes;
    }
    if (step < end) add(LastCodes(codes, end - step).codes);
    return {low.Sum(), high.Sum()};
  }
};

}  // namespace

TernaryKernels TernaryAvxVnni() noexcept {
  return {TernaryDriver<AvxVnni, k2BitDigits>::Run, TernaryDriver<AvxVnni, kPt5Digits>::Run,
          CountActivity, PlaneDriver<AvxVnni>::Run};
}

}  // namespace fabric::kernels
