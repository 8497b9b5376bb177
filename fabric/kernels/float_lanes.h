#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/dense_tile.h"
#include "fabric/kernels/float_ops.h"

namespace fabric::kernels {

// The float kernels, written once over a vector type V of 16 float lanes: AVX-512 is one register,
// AVX2 two, scalar an array. One text gives one order of operations, which is what makes the bits
// equal everywhere; tails are padded with zeros to whole vectors.
//
// V is a type of the including file's anonymous namespace, so each instruction set compiles copies
// of its own that the linker cannot mix. For the same reason nothing here calls an inline function
// of the standard library.
//
// V has: kRowBlock, kTokenBlock (register blocking of Dense), kHeadBlock, kKeyBlock, kValueBlock
// (of
//   attention), and static
//   Zero, Set(float), Load(const float*), Store(float*, V), LoadHalf/LoadBFloat16(const uint8_t*),
//   StoreHalf(uint16_t*, V), LoadInt8(const int8_t*),
//   LoadTrits(const uint8_t*): 16 codes of KvElement::kT2 from 4 bytes,
//   Add, Sub, Mul, Div, Fma(a, b, c) = a * b + c, Max(a, b) = a > b ? a : b, Min(a, b) likewise <,
//   Scale(x, n) = x * 2^n, rounded once, for integral -160 <= n <= 129 and 0.5 < x < 2,
//   Sum(V) = the tree: lane j += lane j + 8, then + 4, + 2, + 1; Largest(V) = the same tree of Max;
//   Sums(const V (&)[4][4]) = the Sum of each, if kHeadBlock * kKeyBlock = 16;
//   SquareRoot(float), Fma1(float, float, float).
template <class V>
struct FloatLanes {
  static constexpr size_t kLanes = 16;
  // Adding and subtracting 1.5 * 2^23 rounds |x| < 2^22 to the nearest even integer.
  static constexpr float kRounder = 12582912.0F;

  // First n < 16 elements, then zeros.
  static V LoadFirst(const float* x, size_t n) noexcept {
    alignas(64) float lanes[kLanes] = {};
    for (size_t i = 0; i < n; ++i) lanes[i] = x[i];
    return V::Load(lanes);
  }
  static void StoreFirst(float* y, V v, size_t n) noexcept {
    alignas(64) float lanes[kLanes];
    V::Store(lanes, v);
    for (size_t i = 0; i < n; ++i) y[i] = lanes[i];
  }
  template <class Body>
  static void ForVectors(size_t n, Body body) noexcept {
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) body(i, kLanes);
    if (i < n) body(i, n - i);
  }
  static V LoadN(const float* x, size_t n) noexcept {
    return n == kLanes ? V::Load(x) : LoadFirst(x, n);
  }
  static void StoreN(float* y, V v, size_t n) noexcept {
    if (n == kLanes) {
      V::Store(y, v);
    } else {
      StoreFirst(y, v, n);
    }
  }

  // Cephes' expf: x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 5 in r around 1 + r +
  // r^2/2 refit to 7 coefficients; relative error below 1e-7. 0 below -110, infinity above 89, NaN
  // stays.
  static V Exp(V x) noexcept {
    x = V::Max(V::Set(-110.0F), x);
    x = V::Min(V::Set(89.0F), x);
    const V n =
        V::Sub(V::Add(V::Mul(x, V::Set(1.44269504088896341F)), V::Set(kRounder)), V::Set(kRounder));
    V r = V::Fma(n, V::Set(-0.693359375F), x);
    r = V::Fma(n, V::Set(2.12194440e-4F), r);
    V p = V::Set(1.9875691500e-4F);
    p = V::Fma(p, r, V::Set(1.3981999507e-3F));
    p = V::Fma(p, r, V::Set(8.3334519073e-3F));
    p = V::Fma(p, r, V::Set(4.1665795894e-2F));
    p = V::Fma(p, r, V::Set(1.6666665459e-1F));
    p = V::Fma(p, r, V::Set(5.0000001201e-1F));
    p = V::Fma(p, V::Mul(r, r), r);
    p = V::Add(p, V::Set(1.0F));
    return V::Scale(p, n);
  }
  static float ExpOne(float x) noexcept {
    alignas(64) float lanes[kLanes];
    V::Store(lanes, Exp(V::Set(x)));
    return lanes[0];
  }

  template <int kRows, int kCols>
  static void FillZero(V (&sums)[kRows][kCols]) noexcept {
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (size_t c = 0; c < kCols; ++c) sums[r][c] = V::Zero();
    }
  }
  template <int kRows, int kCols>
  static void Copy(const V (&from)[kRows][kCols], V (&to)[kRows][kCols]) noexcept {
#pragma GCC unroll 4
    for (size_t r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (size_t c = 0; c < kCols; ++c) to[r][c] = from[r][c];
    }
  }

  static float Dot(const float* a, const float* b, size_t n) noexcept {
    V sum = V::Zero();
    ForVectors(n, [&](size_t i, size_t count) {
      sum = V::Fma(LoadN(a + i, count), LoadN(b + i, count), sum);
    });
    return V::Sum(sum);
  }

  static void RmsNorm(const float* x, const float* weight, float eps, size_t n, float* y) noexcept {
    const float mean = Dot(x, x, n) / static_cast<float>(n);
    const V scale = V::Set(1.0F / V::SquareRoot(mean + eps));
    ForVectors(n, [&](size_t i, size_t count) {
      V v = V::Mul(LoadN(x + i, count), scale);
      if (weight != nullptr) v = V::Mul(v, LoadN(weight + i, count));
      StoreN(y + i, v, count);
    });
  }

  static uint32_t Magnitude(float x) noexcept {
    return __builtin_bit_cast(uint32_t, x) & 0x7FFFFFFF;
  }
  // The largest |x| as its bits, which order like the magnitudes and keep NaN and infinity on top.
  static uint32_t MaxMagnitude(const float* x, size_t n) noexcept {
    uint32_t largest = 0;
    for (size_t i = 0; i < n; ++i) {
      const uint32_t magnitude = Magnitude(x[i]);
      largest = magnitude > largest ? magnitude : largest;
    }
    return largest;
  }
  static constexpr uint32_t kInfinityBits = 0x7F800000;

  static float ScaleFor(uint32_t max_magnitude) noexcept {
    const float largest = __builtin_bit_cast(float, max_magnitude);
    return 127.0F / (largest > 1e-5F ? largest : 1e-5F);
  }
  static int32_t Encode(const float* x, size_t n, float scale, int8_t* codes) noexcept {
    int32_t sum = 0;
    for (size_t i = 0; i < n; ++i) {
      const float rounded = (x[i] * scale + kRounder) - kRounder;
      // |x| * s is at most 127 and two roundings, so the clamp of the definition never bites.
      const auto code = static_cast<int32_t>(rounded);
      codes[i] = static_cast<int8_t>(code);
      sum += code;
    }
    return sum;
  }
  static void ZeroCodes(int8_t* codes, size_t begin, size_t end) noexcept {
    for (size_t i = begin; i < end; ++i) codes[i] = 0;
  }

  static bool QuantizeToken(const float* x, size_t n, size_t padded_n, int8_t* codes, float* scale,
                            int32_t* sum) noexcept {
    const uint32_t largest = MaxMagnitude(x, n);
    if (largest >= kInfinityBits) {
      ZeroCodes(codes, 0, padded_n);
      *scale = ScaleFor(0);
      *sum = 0;
      return false;
    }
    *scale = ScaleFor(largest);
    *sum = Encode(x, n, *scale, codes);
    ZeroCodes(codes, n, padded_n);
    return true;
  }

  static bool QuantizeBlocks(const float* x, size_t n, size_t padded_n, int8_t* codes,
                             float* scales, int32_t* sums) noexcept {
    constexpr size_t kBlock = 32;
    const bool finite = MaxMagnitude(x, n) < kInfinityBits;
    for (size_t block = 0; block * kBlock < n; ++block) {
      const size_t begin = block * kBlock;
      const size_t count = n - begin < kBlock ? n - begin : kBlock;
      const float scale = ScaleFor(finite ? MaxMagnitude(x + begin, count) : 0);
      scales[block] = 1.0F / scale;
      sums[block] = finite ? Encode(x + begin, count, scale, codes + begin) : 0;
    }
    ZeroCodes(codes, finite ? n : 0, padded_n);
    return finite;
  }

  static void AddTo(const float* x, size_t n, float* y) noexcept {
    for (size_t i = 0; i < n; ++i) y[i] += x[i];
  }
  static V ReluSquared(V x) noexcept {
    // NaN stays: Max() returns its second operand then.
    const V positive = V::Max(V::Zero(), x);
    return V::Mul(positive, positive);
  }
  static V Silu(V x) noexcept {
    const V e = Exp(V::Sub(V::Zero(), x));
    return V::Div(x, V::Add(V::Set(1.0F), e));
  }
  // Hendrycks and Gimpel's approximation x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), written
  // with tanh(u) = 2 / (1 + exp(-2u)) - 1.
  static V Gelu(V x) noexcept {
    const V cubic = V::Fma(V::Mul(x, x), V::Set(-0.0713548162726F), V::Set(-1.5957691216057F));
    return V::Div(x, V::Add(V::Set(1.0F), Exp(V::Mul(x, cubic))));
  }
  static void ReluSquaredMul(const float* up, size_t n, float* gate) noexcept {
    ForVectors(n, [&](size_t i, size_t count) {
      StoreN(gate + i, V::Mul(ReluSquared(LoadN(gate + i, count)), LoadN(up + i, count)), count);
    });
  }
  static void SiluMul(const float* up, size_t n, float* gate) noexcept {
    ForVectors(n, [&](size_t i, size_t count) {
      StoreN(gate + i, V::Mul(Silu(LoadN(gate + i, count)), LoadN(up + i, count)), count);
    });
  }
  static void GeluMul(const float* up, size_t n, float* gate) noexcept {
    ForVectors(n, [&](size_t i, size_t count) {
      StoreN(gate + i, V::Mul(Gelu(LoadN(gate + i, count)), LoadN(up + i, count)), count);
    });
  }

  static void ApplyEpilogue(TileEpilogue epilogue, const float* v, const float* bias, size_t n,
                            float* y) noexcept {
    ForVectors(n, [&](size_t i, size_t count) {
      V value = LoadN(v + i, count);
      if (bias != nullptr) value = V::Add(value, LoadN(bias + i, count));
      switch (epilogue) {
        case TileEpilogue::kStore:
          break;
        case TileEpilogue::kAdd:
          value = V::Add(LoadN(y + i, count), value);
          break;
        case TileEpilogue::kReluSquaredMul:
          value = V::Mul(ReluSquared(LoadN(y + i, count)), value);
          break;
        case TileEpilogue::kSiluMul:
          value = V::Mul(Silu(LoadN(y + i, count)), value);
          break;
        case TileEpilogue::kGeluMul:
          value = V::Mul(Gelu(LoadN(y + i, count)), value);
          break;
      }
      StoreN(y + i, value, count);
    });
  }

  // The largest of `start` and the elements; NaN among these never wins.
  static float Largest(float start, const float* x, size_t n) noexcept {
    V lanes = V::Set(start);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) lanes = V::Max(V::Load(x + i), lanes);
    float largest = V::Largest(lanes);
    for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
    return largest;
  }
  // -infinity when there is none.
  static float MaxOf(const float* x, size_t n) noexcept { return Largest(-__builtin_inff(), x, n); }
  static size_t ArgMax(const float* x, size_t n, bool* finite) noexcept {
    *finite = MaxMagnitude(x, n) < kInfinityBits;
    const float largest = MaxOf(x, n);
    for (size_t i = 0; i < n; ++i) {
      if (x[i] == largest) return i;
    }
    return 0;
  }

  // y may be null: only the sum is wanted.
  static float ExpShifted(const float* x, float shift, size_t n, float* y) noexcept {
    const V shifts = V::Set(shift);
    V sum = V::Zero();
    ForVectors(n, [&](size_t i, size_t count) {
      V e = Exp(V::Sub(LoadN(x + i, count), shifts));
      if (count < kLanes) {
        // Padding must add nothing, and exp(0 - shift) is not nothing.
        alignas(64) float lanes[kLanes];
        V::Store(lanes, e);
        for (size_t lane = count; lane < kLanes; ++lane) lanes[lane] = 0.0F;
        e = V::Load(lanes);
      }
      sum = V::Add(sum, e);
      if (y != nullptr) StoreN(y + i, e, count);
    });
    return V::Sum(sum);
  }

  // (a, b) -> (a cos - b sin, b cos + a sin)
  static void Rotate(float cosine, float sine, float* a, float* b) noexcept {
    const float a0 = *a;
    const float b0 = *b;
    *a = V::Fma1(a0, cosine, -(b0 * sine));
    *b = V::Fma1(b0, cosine, a0 * sine);
  }
  static void Rope(float* x, uint32_t heads, uint32_t head_dim, uint32_t rope_dim, bool neox,
                   const float* cosines, const float* sines) noexcept {
    const uint32_t half = rope_dim / 2;
    for (uint32_t h = 0; h < heads; ++h, x += head_dim) {
      if (!neox) {
        for (uint32_t i = 0; i < half; ++i) {
          Rotate(cosines[i], sines[i], x + 2 * i, x + 2 * i + 1);
        }
        continue;
      }
      ForVectors(half, [&](size_t i, size_t count) {
        const V a = LoadN(x + i, count);
        const V b = LoadN(x + half + i, count);
        const V cosine = LoadN(cosines + i, count);
        const V sine = LoadN(sines + i, count);
        const V minus_b_sine = V::Sub(V::Zero(), V::Mul(b, sine));
        StoreN(x + i, V::Fma(a, cosine, minus_b_sine), count);
        StoreN(x + half + i, V::Fma(b, cosine, V::Mul(a, sine)), count);
      });
    }
  }

  // Butterflies of stride 1, 2, 4, ...: every sum has the same two operands on every target.
  static void Hadamard(float* x, size_t n, size_t block) noexcept {
    const size_t narrow = block < kLanes ? block : kLanes;
    for (size_t begin = 0; begin < n; begin += narrow) ButterflyNarrow(x + begin, narrow);
    for (size_t stride = kLanes; stride < block; stride *= 2) {
      for (size_t begin = 0; begin < n; begin += 2 * stride) {
        for (size_t i = begin; i < begin + stride; i += kLanes) {
          const V a = V::Load(x + i);
          const V b = V::Load(x + i + stride);
          V::Store(x + i, V::Add(a, b));
          V::Store(x + i + stride, V::Sub(a, b));
        }
      }
    }
    const V scale = V::Set(1.0F / V::SquareRoot(static_cast<float>(block)));
    ForVectors(n, [&](size_t i, size_t count) {
      StoreN(x + i, V::Mul(LoadN(x + i, count), scale), count);
    });
  }
  // Strides below 16.
  static void ButterflyNarrow(float* x, size_t n) noexcept {
    for (size_t stride = 1; stride < n; stride *= 2) {
      for (size_t begin = 0; begin < n; begin += 2 * stride) {
        for (size_t i = begin; i < begin + stride; ++i) {
          const float a = x[i];
          const float b = x[i + stride];
          x[i] = a + b;
          x[i + stride] = a - b;
        }
      }
    }
  }

  static void DeltaRule(const DeltaRuleStep& s) noexcept {
    const V decay = V::Set(s.decay);
    const V beta = V::Set(s.beta);
    ForVectors(s.value_dim, [&](size_t j, size_t count) {
      V recalled = V::Zero();
      for (size_t i = 0; i < s.key_dim; ++i) {
        const V state = V::Mul(LoadN(s.before + i * s.value_dim + j, count), decay);
        recalled = V::Fma(V::Set(s.key[i]), state, recalled);
      }
      const V delta = V::Mul(beta, V::Sub(LoadN(s.value + j, count), recalled));
      V read = V::Zero();
      for (size_t i = 0; i < s.key_dim; ++i) {
        V state = V::Mul(LoadN(s.before + i * s.value_dim + j, count), decay);
        state = V::Fma(V::Set(s.key[i]), delta, state);
        StoreN(s.after + i * s.value_dim + j, state, count);
        read = V::Fma(V::Set(s.query[i]), state, read);
      }
      StoreN(s.out + j, read, count);
    });
  }

  static void FloatsToHalves(const float* x, size_t n, uint16_t* y) noexcept {
    ForVectors(n, [&](size_t i, size_t count) {
      if (count == kLanes) {
        V::StoreHalf(y + i, V::Load(x + i));
        return;
      }
      uint16_t halves[kLanes];
      V::StoreHalf(halves, LoadFirst(x + i, count));
      for (size_t lane = 0; lane < count; ++lane) y[i + lane] = halves[lane];
    });
  }
  static V LoadHalves(const uint16_t* x, size_t n) noexcept {
    if (n == kLanes) return V::LoadHalf(reinterpret_cast<const uint8_t*>(x));
    uint16_t halves[kLanes] = {};
    for (size_t i = 0; i < n; ++i) halves[i] = x[i];
    return V::LoadHalf(reinterpret_cast<const uint8_t*>(halves));
  }
  static void HalvesToFloats(const uint16_t* x, size_t n, float* y) noexcept {
    ForVectors(n, [&](size_t i, size_t count) { StoreN(y + i, LoadHalves(x + i, count), count); });
  }

  static constexpr uint16_t kNanHalf = 0x7E00;
  static constexpr uint16_t kLargestHalf = 0x7BFF;
  static uint16_t ToHalf(float x) noexcept {
    uint16_t halves[kLanes];
    V::StoreHalf(halves, V::Set(x));
    return halves[0];
  }
  static float FromHalf(uint16_t half) noexcept {
    float x = 0;
    HalvesToFloats(&half, 1, &x);
    return x;
  }
  // Weight rows as vectors of 16 floats.
  struct F32Weights {
    static constexpr size_t kBytes = 4;
    static V Load(const uint8_t* p) noexcept { return V::Load(reinterpret_cast<const float*>(p)); }
  };
  struct F16Weights {
    static constexpr size_t kBytes = 2;
    static V Load(const uint8_t* p) noexcept { return V::LoadHalf(p); }
  };
  struct BF16Weights {
    static constexpr size_t kBytes = 2;
    static V Load(const uint8_t* p) noexcept { return V::LoadBFloat16(p); }
  };
  template <class Weights>
  static V LoadWeights(const uint8_t* p, size_t n) noexcept {
    if (n == kLanes) return Weights::Load(p);
    alignas(64) uint8_t bytes[kLanes * Weights::kBytes] = {};
    for (size_t i = 0; i < n * Weights::kBytes; ++i) bytes[i] = p[i];
    return Weights::Load(bytes);
  }

  // Columns [begin, cols), fewer than 16. Not inlined: tails would keep the sums of the main loop
  // out of registers.
  template <class Weights, int kRows, int kTokens>
  __attribute__((noinline)) static void AddDenseTail(const DenseTile& t, size_t row, size_t token,
                                                     size_t begin,
                                                     V (&sums)[kRows][kTokens]) noexcept {
    const size_t count = t.cols - begin;
    for (size_t j = 0; j < kTokens; ++j) {
      const V x = LoadFirst(t.values + (token + j) * t.value_stride + begin, count);
      for (size_t r = 0; r < kRows; ++r) {
        const uint8_t* at = t.rows + (row + r) * t.row_stride + begin * Weights::kBytes;
        sums[r][j] = V::Fma(LoadWeights<Weights>(at, count), x, sums[r][j]);
      }
    }
  }
  template <class Weights, int kRows, int kTokens>
  static void DenseBlock(const DenseTile& t, size_t row, size_t token) noexcept {
    V sums[kRows][kTokens];
    FillZero(sums);
    const uint8_t* weights = t.rows + row * t.row_stride;
    const float* values = t.values + token * t.value_stride;
    const size_t whole = t.cols / kLanes * kLanes;
    for (size_t i = 0; i < whole; i += kLanes) {
      V x[kTokens];
#pragma GCC unroll 4
      for (size_t j = 0; j < kTokens; ++j) x[j] = V::Load(values + j * t.value_stride + i);
#pragma GCC unroll 4
      for (size_t r = 0; r < kRows; ++r) {
        const V w = Weights::Load(weights + r * t.row_stride + i * Weights::kBytes);
#pragma GCC unroll 4
        for (size_t j = 0; j < kTokens; ++j) sums[r][j] = V::Fma(w, x[j], sums[r][j]);
      }
    }
    V all[kRows][kTokens];
    Copy(sums, all);
    if (whole < t.cols) AddDenseTail<Weights, kRows, kTokens>(t, row, token, whole, all);
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t j = 0; j < kTokens; ++j) {
        t.out[(token + j) * t.out_stride + row + r] = V::Sum(all[r][j]);
      }
    }
  }
  template <class Weights, int kTokens>
  static void DenseRows(const DenseTile& t, size_t token) noexcept {
    size_t row = 0;
    for (; row + V::kRowBlock <= t.row_count; row += V::kRowBlock) {
      DenseBlock<Weights, V::kRowBlock, kTokens>(t, row, token);
    }
    for (; row < t.row_count; ++row) DenseBlock<Weights, 1, kTokens>(t, row, token);
  }
  template <class Weights>
  static void Dense(const DenseTile& t) noexcept {
    size_t token = 0;
    for (; token + V::kTokenBlock <= t.tokens; token += V::kTokenBlock) {
      DenseRows<Weights, V::kTokenBlock>(t, token);
    }
    for (; token < t.tokens; ++token) DenseRows<Weights, 1>(t, token);
  }

  static DenseKernels DenseTable() noexcept {
    return {.f32 = Dense<F32Weights>, .f16 = Dense<F16Weights>, .bf16 = Dense<BF16Weights>};
  }
};

}  // namespace fabric::kernels
