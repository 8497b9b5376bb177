#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/count_activity.h"
#include "fabric/kernels/ternary_driver.h"

// A line is four registers of four rows: dword r holds, per digit, the codes (trit + 1) of four
// columns. sdot multiplies the four codes of a row by four activations, picked by lane from the
// sixteen of a register, and adds them to the row's int32.
//
//   codes   | row 0: c0 c1 c2 c3 | row 1 | row 2 | row 3 |   bytes, one digit each
//   x       | x0 x1 x2 x3 | x4 .. x7 | x8 .. x11 | x12 .. x15 |   lane k belongs to digit k
//
// Codes are at most 3, so it does not matter that sdot takes them as signed. Bits in place, as on
// x86, would: the upper digit would be negative.

namespace fabric::kernels {
namespace {

constexpr uint32_t kQuarters = 4;
constexpr size_t kQuarterLine = kLineBytes / kQuarters;
constexpr size_t kPrefetchBytes = 4096;

// Four activations of one token in every dword.
int8x16_t Broadcast(const int8_t* codes) {
  int32_t dword;
  __builtin_memcpy(&dword, codes, sizeof dword);
  return vreinterpretq_s8_s32(vdupq_n_s32(dword));
}

// Bytes divided by 3: (b * 171) >> 9 is exact below 512.
uint8x16_t Third(uint8x16_t b) {
  const uint8x8_t factor = vdup_n_u8(171);
  const uint8x8_t low = vshrn_n_u16(vmull_u8(vget_low_u8(b), factor), 8);
  const uint8x8_t high = vshrn_n_u16(vmull_u8(vget_high_u8(b), factor), 8);
  return vshrq_n_u8(vcombine_u8(low, high), 1);
}

template <uint32_t kDigits>
void Decode(uint8x16_t line, uint8x16_t (&codes)[kDigits]) {
  if constexpr (kDigits == k2BitDigits) {
    const uint8x16_t mask = vdupq_n_u8(3);
    codes[0] = vandq_u8(line, mask);
    codes[1] = vandq_u8(vshrq_n_u8(line, 2), mask);
    codes[2] = vandq_u8(vshrq_n_u8(line, 4), mask);
    codes[3] = vshrq_n_u8(line, 6);
  } else {
    const uint8x16_t three = vdupq_n_u8(3);
    for (uint32_t k = 0; k + 1 < kDigits; ++k) {
      const uint8x16_t quotient = Third(line);
      codes[k] = vmlsq_u8(line, quotient, three);
      line = quotient;
    }
    codes[kDigits - 1] = line;
  }
}

struct Neon {
  struct Ints {
    int32x4_t rows[kQuarters];
  };
  struct Floats {
    float32x4_t rows[kQuarters];
  };

  static constexpr size_t kExpandedBytes = 15 << 10;
  static constexpr uint32_t kPanels = 1;
  static constexpr uint32_t kWidePanels = 1;
  // 20 sums, 5 registers of activations and 4 of codes.
  template <uint32_t kDigits, bool kSegmented, bool kInPlace>
  static constexpr uint32_t kTokens = 5;
  template <uint32_t kDigits, bool kSegmented>
  static constexpr uint32_t kWideTokens = 0;
  template <uint32_t kDigits, bool kSegmented>
  static constexpr uint32_t kMostInPlace = 0;
  template <uint32_t kDigits>
  static constexpr bool kSegmentVector = kDigits == k2BitDigits;

  template <class Quarter>
  static Ints EachInts(Quarter quarter) {
    return {{quarter(0), quarter(1), quarter(2), quarter(3)}};
  }
  template <class Quarter>
  static Floats EachFloats(Quarter quarter) {
    return {{quarter(0), quarter(1), quarter(2), quarter(3)}};
  }

  static Ints ZeroInts() {
    return EachInts([](int) { return vdupq_n_s32(0); });
  }
  static Ints LoadInts(const int32_t* x) {
    return EachInts([x](int q) { return vld1q_s32(x + 4 * q); });
  }
  static void StoreInts(int32_t* y, const Ints& v) {
    for (uint32_t q = 0; q < kQuarters; ++q) vst1q_s32(y + 4 * q, v.rows[q]);
  }
  static Ints AddInts(const Ints& a, const Ints& b) {
    return EachInts([&](int q) { return vaddq_s32(a.rows[q], b.rows[q]); });
  }
  static Floats Zero() { return Set(0.0F); }
  static Floats Set(float x) {
    return EachFloats([x](int) { return vdupq_n_f32(x); });
  }
  static Floats Load(const float* x) {
    return EachFloats([x](int q) { return vld1q_f32(x + 4 * q); });
  }
  static void Store(float* y, const Floats& v) {
    for (uint32_t q = 0; q < kQuarters; ++q) vst1q_f32(y + 4 * q, v.rows[q]);
  }
  static Floats Mul(const Floats& a, const Floats& b) {
    return EachFloats([&](int q) { return vmulq_f32(a.rows[q], b.rows[q]); });
  }
  static Floats Div(const Floats& a, const Floats& b) {
    return EachFloats([&](int q) { return vdivq_f32(a.rows[q], b.rows[q]); });
  }
  static Floats Fma(const Floats& a, const Floats& b, const Floats& c) {
    return EachFloats([&](int q) { return vfmaq_f32(c.rows[q], a.rows[q], b.rows[q]); });
  }
  static Floats ToFloats(const Ints& sums, int32_t minus) {
    return EachFloats(
        [&](int q) { return vcvtq_f32_s32(vsubq_s32(sums.rows[q], vdupq_n_s32(minus))); });
  }

  template <uint32_t kDigits>
  static void ExpandLine(const uint8_t* line, uint8_t* bytes, size_t stride) {
    for (uint32_t q = 0; q < kQuarters; ++q) {
      uint8x16_t codes[kDigits];
      Decode<kDigits>(vld1q_u8(line + q * kQuarterLine), codes);
#pragma GCC unroll 5
      for (uint32_t k = 0; k < kDigits; ++k) {
        vst1q_u8(bytes + k * stride + q * kQuarterLine, codes[k]);
      }
    }
  }

  // Dword kLane of the sixteen activations in x[j].
  template <int kLane, uint32_t T>
  static void AddStep(const uint8_t* bytes, const int8x16_t (&x)[T], Ints (&sums)[T]) {
#pragma GCC unroll 4
    for (uint32_t q = 0; q < kQuarters; ++q) {
      const int8x16_t w = vreinterpretq_s8_u8(vld1q_u8(bytes + q * kQuarterLine));
#pragma GCC unroll 5
      for (uint32_t j = 0; j < T; ++j) {
        sums[j].rows[q] = vdotq_laneq_s32(sums[j].rows[q], w, x[j], kLane);
      }
    }
  }

  template <uint32_t P, uint32_t T>
  static void AddBytes(const uint8_t* bytes, const int8_t* x, size_t code_stride, uint32_t steps,
                       LinesAhead ahead, Ints (&sums)[P][T]) {
    static_assert(P == 1);
    int8x16_t codes[T];
    for (; steps >= 4; steps -= 4) {
      if (ahead.count > 0) {
        __builtin_prefetch(ahead.first);
        ahead.Advance(1);
      }
#pragma GCC unroll 5
      for (uint32_t j = 0; j < T; ++j) codes[j] = vld1q_s8(x + j * code_stride);
      AddStep<0, T>(bytes, codes, sums[0]);
      AddStep<1, T>(bytes + kLineBytes, codes, sums[0]);
      AddStep<2, T>(bytes + 2 * kLineBytes, codes, sums[0]);
      AddStep<3, T>(bytes + 3 * kLineBytes, codes, sums[0]);
      bytes += 4 * kLineBytes;
      x += 4 * kStepCols;
    }
    for (; steps > 0; --steps) {
#pragma GCC unroll 5
      for (uint32_t j = 0; j < T; ++j) codes[j] = Broadcast(x + j * code_stride);
      AddStep<0, T>(bytes, codes, sums[0]);
      bytes += kLineBytes;
      x += kStepCols;
    }
  }

  template <uint32_t kDigits>
  static Ints DotVector(const uint8_t* line, const int8_t* x, uint32_t steps) {
    Ints sums = ZeroInts();
    while (steps > 0) {
      const uint32_t count = steps < kDigits ? steps : kDigits;
      __builtin_prefetch(line + kPrefetchBytes);
#pragma GCC unroll 4
      for (uint32_t q = 0; q < kQuarters; ++q) {
        uint8x16_t codes[kDigits];
        Decode<kDigits>(vld1q_u8(line + q * kQuarterLine), codes);
#pragma GCC unroll 5
        for (uint32_t k = 0; k < kDigits; ++k) {
          if (k >= count) break;
          sums.rows[q] =
              vdotq_s32(sums.rows[q], vreinterpretq_s8_u8(codes[k]), Broadcast(x + k * kStepCols));
        }
      }
      line += kLineBytes;
      x += kDigits * kStepCols;
      steps -= count;
    }
    return sums;
  }

  template <uint32_t kDigits>
  static Ints SegmentVector(const uint8_t* line, const int8_t* x, uint32_t steps) {
    return DotVector<kDigits>(line, x, steps);
  }
};

}  // namespace

TernaryKernels TernaryNeon() noexcept {
  return {TernaryDriver<Neon, k2BitDigits>::Run, TernaryDriver<Neon, kPt5Digits>::Run,
          CountActivity, PlaneDriver<Neon>::Run};
}

}  // namespace fabric::kernels
