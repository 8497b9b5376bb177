#include "fabric/kernels/ternary_avx2.h"

// vpmaddubsw multiplies u8 codes by s8 activations and adds pairs to int16, which are added up in
// int16 and widened by vpmaddwd before they can overflow.
//
//   codes     | row 0: c0 c1 c2 c3 | ... | row 7 |     (bytes)
//   maddubs   | c0 x0 + c1 x1 , c2 x2 + c3 x3 | ...    (int16, at most 2 * 3 * 128)

namespace fabric::kernels {
namespace {

// Dwords of columns whose pairs fit in an int16 together, for codes up to 3; whole lines of either
// layout.
constexpr uint32_t kStepsBeforeWidening = 40;
static_assert(int{kStepsBeforeWidening} * 2 * 3 * -128 >= -32768);
static_assert(kStepsBeforeWidening % k2BitDigits == 0 && kStepsBeforeWidening % kPt5Digits == 0);

struct Avx2 : Ymm {
  template <uint32_t kDigits, bool kSegmented, bool kInPlace>
  static constexpr uint32_t kTokens = 6;

  static __m256i AddPairs(__m256i sum, __m256i codes, __m256i x) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
  }
  static __m256i Widen(__m256i sum, __m256i pairs) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }

  // Not inlined: sixteen registers are just enough for the sums.
  template <uint32_t P, uint32_t T>
  __attribute__((noinline)) static void AddBytes(const uint8_t* bytes, const int8_t* x,
                                                 size_t code_stride, uint32_t steps,
                                                 LinesAhead ahead, Ints (&sums)[P][T]) {
    static_assert(P == 1);
    while (steps > 0) {
      const uint32_t chunk = steps < kStepsBeforeWidening ? steps : kStepsBeforeWidening;
      __m256i low[T];
      __m256i high[T];
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) low[j] = high[j] = _mm256_setzero_si256();
      AddSteps<T>(bytes, x, code_stride, chunk, &ahead, AddPairs, low, high);
      bytes += size_t{chunk} * kLineBytes;
      x += size_t{chunk} * kStepCols;
      steps -= chunk;
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) {
        sums[0][j] = {Widen(sums[0][j].low, low[j]), Widen(sums[0][j].high, high[j])};
      }
    }
  }

  // Adds digits [0, count) of eight rows of one line to int16 sums.
  template <uint32_t kDigits>
  static __m256i AddDigits(const uint8_t* half_line, const int8_t* x, uint32_t count, __m256i sum) {
    __m256i w[kDigits];
    Decode<kDigits>(LoadHalf(half_line), w);
#pragma GCC unroll 5
    for (uint32_t k = 0; k < kDigits; ++k) {
      if (k < count) sum = AddPairs(sum, w[k], Broadcast(x + k * kStepCols));
    }
    return sum;
  }

  // Both halves of a line together, so that memory is read in order.
  template <uint32_t kDigits>
  static Ints DotVector(const uint8_t* line, const int8_t* x, uint32_t steps) {
    Ints sums = ZeroInts();
    constexpr uint32_t kChunk = kStepsBeforeWidening;
    for (uint32_t step = 0; step < steps;) {
      const uint32_t stop = steps - step > kChunk ? step + kChunk : steps;
      __m256i low = _mm256_setzero_si256();
      __m256i high = _mm256_setzero_si256();
      for (; step < stop; step += kDigits) {
        _mm_prefetch(line + kPrefetchBytes, _MM_HINT_T0);
        const uint32_t count = stop - step < kDigits ? stop - step : kDigits;
        low = AddDigits<kDigits>(line, x, count, low);
        high = AddDigits<kDigits>(line + kHalfLine, x, count, high);
        line += kLineBytes;
        x += kDigits * kStepCols;
      }
      sums = {Widen(sums.low, low), Widen(sums.high, high)};
    }
    return sums;
  }

  template <uint32_t kDigits>
  static Ints SegmentVector(const uint8_t* line, const int8_t* x, uint32_t steps) {
    return DotVector<kDigits>(line, x, steps);
  }
};

}  // namespace

TernaryKernels TernaryAvx2() noexcept {
  return {TernaryDriver<Avx2, k2BitDigits>::Run, TernaryDriver<Avx2, kPt5Digits>::Run,
          CountActivity, PlaneDriver<Avx2>::Run};
}

}  // namespace fabric::kernels
