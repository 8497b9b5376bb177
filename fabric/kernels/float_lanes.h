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
//   Sum(V) = the tree: lane j += lane j + 8, then + 4, + 2, + 1; Largest(V) of lanes without NaN;
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
      }
      StoreN(y + i, value, count);
    });
  }

  // The largest element; NaN never wins, -infinity when there is none.
  static float MaxOf(const float* x, size_t n) noexcept {
    float largest = -__builtin_inff();
    V lanes = V::Set(largest);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) lanes = V::Max(V::Load(x + i), lanes);
    for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
    alignas(64) float stored[kLanes];
    V::Store(stored, lanes);
    for (const float lane : stored) largest = lane > largest ? lane : largest;
    return largest;
  }
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
  static uint16_t QuantizeKvQ8(const float* x, size_t n, int8_t* codes) noexcept {
    const uint32_t magnitude = MaxMagnitude(x, n);
    if (magnitude >= kInfinityBits) {
      ZeroCodes(codes, 0, n);
      return kNanHalf;
    }
    const float wanted = __builtin_bit_cast(float, magnitude) / 127.0F;
    uint16_t half = ToHalf(wanted);
    // Up, so that no code is beyond 127.
    if (FromHalf(half) < wanted) ++half;
    if (half > kLargestHalf) half = kLargestHalf;
    const float scale = FromHalf(half);
    if (half == 0) {
      ZeroCodes(codes, 0, n);
      return half;
    }
    for (size_t i = 0; i < n; ++i) {
      float code = x[i] / scale;
      code = code > 127.0F ? 127.0F : code;
      code = code < -127.0F ? -127.0F : code;
      codes[i] = static_cast<int8_t>((code + kRounder) - kRounder);
    }
    return half;
  }

  // Magnitudes as fractions of the largest in 16 bits, so that sums are exact in any order.
  static constexpr float kKvFraction = 65535.0F;
  static constexpr size_t kKvRanges = 64;
  static uint32_t KvFraction(float x, float factor) noexcept {
    const float fraction = (x < 0 ? -x : x) * factor;
    return static_cast<uint32_t>(fraction > kKvFraction ? kKvFraction : fraction);
  }
  // Elements of at least `least` become +-1.
  struct KvSupport {
    uint32_t least;
    uint32_t count;
    uint32_t sum;
  };
  static KvSupport BestSupport(const float* x, size_t n, float factor) noexcept {
    uint32_t counts[kKvRanges] = {};
    uint32_t sums[kKvRanges] = {};
    for (size_t i = 0; i < n; ++i) {
      const uint32_t fraction = KvFraction(x[i], factor);
      ++counts[fraction / (65536 / kKvRanges)];
      sums[fraction / (65536 / kKvRanges)] += fraction;
    }
    // The cosine is sum / (sqrt(count) |x|).
    KvSupport best = {0, 0, 0};
    float best_square = 0;
    uint32_t count = 0;
    uint32_t sum = 0;
    for (size_t range = kKvRanges; range-- > 0;) {
      if (counts[range] == 0) continue;
      count += counts[range];
      sum += sums[range];
      const float square =
          static_cast<float>(sum) * static_cast<float>(sum) / static_cast<float>(count);
      if (square > best_square) {
        best = {static_cast<uint32_t>(range * (65536 / kKvRanges)), count, sum};
        best_square = square;
      }
    }
    return best;
  }
  static uint16_t QuantizeKvT2(const float* x, size_t n, uint8_t* codes) noexcept {
    for (size_t i = 0; i < (n + 15) / 16 * 4; ++i) codes[i] = 0;
    const uint32_t magnitude = MaxMagnitude(x, n);
    if (magnitude >= kInfinityBits) return kNanHalf;
    const float largest = __builtin_bit_cast(float, magnitude);
    // Rounds to zero as a half, whatever the support.
    if (largest < 0x1p-25F) return 0;
    const float factor = kKvFraction / largest;
    const KvSupport support = BestSupport(x, n, factor);
    const float mean =
        static_cast<float>(support.sum) / (static_cast<float>(support.count) * kKvFraction);
    uint16_t half = ToHalf(largest * mean);
    if (half > kLargestHalf) half = kLargestHalf;
    if (half == 0) return half;
    for (size_t i = 0; i < n; ++i) {
      const uint32_t code = KvFraction(x[i], factor) < support.least ? 0 : (x[i] < 0 ? 3 : 1);
      codes[i / 4] = static_cast<uint8_t>(codes[i / 4] | code << (i % 4 * 2));
    }
    return half;
  }

  // K or V rows as vectors of 16 floats: codes where there are scales.
  struct F32Rows {
    static constexpr bool kScaled = false;
    static constexpr float kLeastWeight = 0.0F;
    const float* data;
    size_t dim;
    size_t row_bytes() const noexcept { return dim * sizeof(float); }
    V Load(size_t row, size_t i, size_t n) const noexcept { return LoadN(data + row * dim + i, n); }
  };
  struct F16Rows {
    static constexpr bool kScaled = false;
    static constexpr float kLeastWeight = 0.0F;
    const uint16_t* data;
    size_t dim;
    size_t row_bytes() const noexcept { return dim * sizeof(uint16_t); }
    V Load(size_t row, size_t i, size_t n) const noexcept {
      return LoadHalves(data + row * dim + i, n);
    }
  };
  struct Q8Rows {
    static constexpr bool kScaled = true;
    static constexpr float kLeastWeight = 0.0F;
    const int8_t* data;
    size_t dim;
    size_t row_bytes() const noexcept { return dim; }
    V Load(size_t row, size_t i, size_t n) const noexcept {
      const int8_t* codes = data + row * dim + i;
      if (n == kLanes) return V::LoadInt8(codes);
      int8_t first[kLanes] = {};
      for (size_t lane = 0; lane < n; ++lane) first[lane] = codes[lane];
      return V::LoadInt8(first);
    }
  };
  struct T2Rows {
    static constexpr bool kScaled = true;
    static constexpr float kLeastWeight = kLeastT2Weight;
    const uint8_t* data;
    size_t bytes;  // of a row
    size_t row_bytes() const noexcept { return bytes; }
    V Load(size_t row, size_t i, size_t) const noexcept {
      return V::LoadTrits(data + row * bytes + i / 4);
    }
  };

  template <int kHeads, int kKeys, class Rows>
  __attribute__((noinline)) static void AddScoreTail(const Rows& keys, size_t first,
                                                     const float* queries, size_t dim, size_t begin,
                                                     V (&sums)[kHeads][kKeys]) noexcept {
    for (size_t h = 0; h < kHeads; ++h) {
      const V query = LoadFirst(queries + h * dim + begin, dim - begin);
      for (size_t j = 0; j < kKeys; ++j) {
        sums[h][j] = V::Fma(query, keys.Load(first + j, begin, dim - begin), sums[h][j]);
      }
    }
  }
  // scores[h][j] = q_h . k_j * scale for kHeads heads from `queries` and kKeys keys from `first`.
  template <int kHeads, int kKeys, class Rows>
  static void ScoreBlock(const Rows& keys, size_t first, const float* queries, size_t dim,
                         float scale, float (*scores)[kAttentionChunk]) noexcept {
    V sums[kHeads][kKeys];
    FillZero(sums);
    const size_t whole = dim / kLanes * kLanes;
    for (size_t i = 0; i < whole; i += kLanes) {
      V key[kKeys];
#pragma GCC unroll 4
      for (size_t j = 0; j < kKeys; ++j) key[j] = keys.Load(first + j, i, kLanes);
#pragma GCC unroll 4
      for (size_t h = 0; h < kHeads; ++h) {
        const V query = V::Load(queries + h * dim + i);
#pragma GCC unroll 4
        for (size_t j = 0; j < kKeys; ++j) sums[h][j] = V::Fma(query, key[j], sums[h][j]);
      }
    }
    V all[kHeads][kKeys];
    Copy(sums, all);
    if (whole < dim) AddScoreTail<kHeads, kKeys>(keys, first, queries, dim, whole, all);
    StoreScores(all, scale, first, scores);
  }
  template <int kHeads, int kKeys>
  static void StoreScores(const V (&sums)[kHeads][kKeys], float scale, size_t first,
                          float (*scores)[kAttentionChunk]) noexcept {
    if constexpr (kHeads * kKeys == kLanes) {
      alignas(64) float scaled[kHeads][kKeys];
      V::Store(scaled[0], V::Mul(V::Sums(sums), V::Set(scale)));
      for (size_t h = 0; h < kHeads; ++h) {
        __builtin_memcpy(scores[h] + first, scaled[h], sizeof scaled[h]);
      }
    } else {
      for (size_t h = 0; h < kHeads; ++h) {
        for (size_t j = 0; j < kKeys; ++j) scores[h][first + j] = V::Sum(sums[h][j]) * scale;
      }
    }
  }
  // The largest of `start` and n <= 16 scores; NaN among them is left out.
  static float LargestScore(float start, const float* scores, size_t n) noexcept {
    if (n == kLanes) return V::Largest(V::Max(V::Load(scores), V::Set(start)));
    for (size_t i = 0; i < n; ++i) start = scores[i] > start ? scores[i] : start;
    return start;
  }

  // Fetches `bytes` of the next chunk's rows from byte `at` on. Little by little: what is asked for
  // at once waits for the few misses that a core can have on their way. Inlined by force, because
  // GCC takes a function of prefetches alone for one without effects and removes its calls.
  [[gnu::always_inline]] static void PrefetchSome(const void* rows, size_t at,
                                                  size_t bytes) noexcept {
    if (rows == nullptr) return;
    const auto* first = static_cast<const uint8_t*>(rows) + at;
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(first + i, 0, 3);
  }

  template <int kHeads, class Rows>
  static void AttendHeads(const AttentionChunk& c, const Rows& keys, const Rows& values,
                          size_t head) noexcept {
    const size_t dim = c.head_dim;
    alignas(64) float weights[kHeads][kAttentionChunk];
    V rescale[kHeads];
    const float* queries = c.queries + head * dim;
    const float scale = Rows::kScaled ? 1.0F : c.scale;
    const size_t row_bytes = keys.row_bytes();
    size_t j = 0;
    for (; j + V::kKeyBlock <= c.count; j += V::kKeyBlock) {
      if (head == 0) PrefetchSome(c.next_keys, j * row_bytes, V::kKeyBlock * row_bytes);
      ScoreBlock<kHeads, V::kKeyBlock>(keys, j, queries, dim, scale, weights);
    }
    for (; j < c.count; ++j) ScoreBlock<kHeads, 1>(keys, j, queries, dim, scale, weights);
    if constexpr (Rows::kScaled) ScaleScores<kHeads>(c, weights);

    for (int h = 0; h < kHeads; ++h) {
      float* max = c.max + head + h;
      float* sum = c.sum + head + h;
      const float largest = LargestScore(*max, weights[h], c.count);
      const float shrink = ExpOne(*max - largest);
      *sum = V::Fma1(*sum, shrink, ExpShifted(weights[h], largest, c.count, weights[h]));
      *max = largest;
      rescale[h] = V::Set(shrink);
    }
    ValueRows rows;
    rows.count = c.count;
    if constexpr (Rows::kScaled) rows = ScaleWeights<kHeads, Rows>(c, weights);
    float* accumulators = c.accumulator + head * dim;
    size_t i = 0;
    for (; i + V::kValueBlock * kLanes <= dim; i += V::kValueBlock * kLanes) {
      if (head == 0) {
        PrefetchSome(c.next_values, i * kAttentionChunk * row_bytes / dim,
                     V::kValueBlock * kLanes * kAttentionChunk * row_bytes / dim);
      }
      AddValues<kHeads, V::kValueBlock>(values, rows, i, kLanes, weights, rescale, accumulators + i,
                                        dim);
    }
    for (; i < dim; i += kLanes) {
      const size_t count = dim - i < kLanes ? dim - i : kLanes;
      AddValues<kHeads, 1>(values, rows, i, count, weights, rescale, accumulators + i, dim);
    }
  }
  template <int kHeads>
  static void ScaleScores(const AttentionChunk& c, float (*scores)[kAttentionChunk]) noexcept {
    float scales[kAttentionChunk];
    HalvesToFloats(c.key_scales, c.count, scales);
    for (int h = 0; h < kHeads; ++h) {
      for (size_t i = 0; i < c.count; ++i) scores[h][i] = scores[h][i] * scales[i] * c.scale;
    }
  }
  // Which rows of a chunk have a weight that is not zero; all of the first `count` without a list.
  struct ValueRows {
    size_t count = 0;
    uint8_t index[kAttentionChunk] = {};
  };
  template <int kHeads, class Rows>
  static ValueRows ScaleWeights(const AttentionChunk& c,
                                float (*weights)[kAttentionChunk]) noexcept {
    float scales[kAttentionChunk];
    HalvesToFloats(c.value_scales, c.count, scales);
    ValueRows rows;
    for (size_t i = 0; i < c.count; ++i) {
      bool used = false;
      for (int h = 0; h < kHeads; ++h) {
        // A scale that is NaN is not lost.
        const bool dropped = weights[h][i] < Rows::kLeastWeight && scales[i] == scales[i];
        weights[h][i] = dropped ? 0.0F : weights[h][i] * scales[i];
        used = used || weights[h][i] != 0.0F;
      }
      const bool kept = used || Rows::kLeastWeight == 0.0F;
      if (kept) rows.index[rows.count++] = static_cast<uint8_t>(i);
    }
    return rows;
  }
  // accumulator[h] = accumulator[h] * rescale[h] + sum of weights[h][j] * v_j, ascending in j, for
  // kVectors times `count` dimensions from i on.
  template <int kHeads, int kVectors, class Rows>
  static void AddValues(const Rows& values, const ValueRows& rows, size_t i, size_t count,
                        const float (*weights)[kAttentionChunk], const V* rescale,
                        float* accumulators, size_t dim) noexcept {
    V acc[kHeads][kVectors];
#pragma GCC unroll 4
    for (size_t h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
      for (size_t k = 0; k < kVectors; ++k) {
        acc[h][k] = V::Mul(LoadN(accumulators + h * dim + k * kLanes, count), rescale[h]);
        // A weight of zero turns -0 into 0, and the same must come of not adding it.
        if constexpr (Rows::kLeastWeight > 0) acc[h][k] = V::Add(acc[h][k], V::Zero());
      }
    }
    for (size_t at = 0; at < rows.count; ++at) {
      const size_t row = Rows::kLeastWeight > 0 ? rows.index[at] : at;
      V value[kVectors];
#pragma GCC unroll 4
      for (size_t k = 0; k < kVectors; ++k) value[k] = values.Load(row, i + k * kLanes, count);
#pragma GCC unroll 4
      for (size_t h = 0; h < kHeads; ++h) {
        const V weight = V::Set(weights[h][row]);
#pragma GCC unroll 4
        for (size_t k = 0; k < kVectors; ++k) acc[h][k] = V::Fma(weight, value[k], acc[h][k]);
      }
    }
#pragma GCC unroll 4
    for (size_t h = 0; h < kHeads; ++h) {
#pragma GCC unroll 4
      for (size_t k = 0; k < kVectors; ++k) {
        StoreN(accumulators + h * dim + k * kLanes, acc[h][k], count);
      }
    }
  }
  template <class Rows>
  static void AttendRows(const AttentionChunk& c, const Rows& keys, const Rows& values) noexcept {
    size_t head = 0;
    for (; head + V::kHeadBlock <= c.group; head += V::kHeadBlock) {
      AttendHeads<V::kHeadBlock>(c, keys, values, head);
    }
    for (; head < c.group; ++head) AttendHeads<1>(c, keys, values, head);
  }
  static void AttendChunk(const AttentionChunk& c) noexcept {
    const size_t dim = c.head_dim;
    switch (c.element) {
      case KvElement::kF32:
        return AttendRows(c, F32Rows{static_cast<const float*>(c.keys), dim},
                          F32Rows{static_cast<const float*>(c.values), dim});
      case KvElement::kF16:
        return AttendRows(c, F16Rows{static_cast<const uint16_t*>(c.keys), dim},
                          F16Rows{static_cast<const uint16_t*>(c.values), dim});
      case KvElement::kQ8:
        return AttendRows(c, Q8Rows{static_cast<const int8_t*>(c.keys), dim},
                          Q8Rows{static_cast<const int8_t*>(c.values), dim});
      case KvElement::kT2: {
        // KvCodeBytes(), which is an inline function and stays out of here.
        const size_t row_bytes = (dim + kLanes - 1) / kLanes * 4;
        return AttendRows(c, T2Rows{static_cast<const uint8_t*>(c.keys), row_bytes},
                          T2Rows{static_cast<const uint8_t*>(c.values), row_bytes});
      }
    }
  }

  static void MergeAttention(uint32_t group, uint32_t head_dim, const float* later_max,
                             const float* later_sum, const float* later_accumulator, float* max,
                             float* sum, float* accumulator) noexcept {
    for (size_t h = 0; h < group; ++h) {
      // An empty partition has nothing to add, and -infinity minus itself is NaN.
      if (later_max[h] == -__builtin_inff()) continue;
      const float largest = later_max[h] > max[h] ? later_max[h] : max[h];
      const float shrink = ExpOne(max[h] - largest);
      const float later_shrink = ExpOne(later_max[h] - largest);
      max[h] = largest;
      sum[h] = V::Fma1(later_sum[h], later_shrink, sum[h] * shrink);
      const float* from = later_accumulator + h * head_dim;
      float* to = accumulator + h * head_dim;
      ForVectors(head_dim, [&](size_t i, size_t count) {
        const V kept = V::Mul(LoadN(to + i, count), V::Set(shrink));
        StoreN(to + i, V::Fma(LoadN(from + i, count), V::Set(later_shrink), kept), count);
      });
    }
  }
  static void FinishAttention(uint32_t group, uint32_t head_dim, const float* sum,
                              const float* accumulator, float* out) noexcept {
    for (size_t h = 0; h < group; ++h) {
      const V divisor = V::Set(sum[h]);
      ForVectors(head_dim, [&](size_t i, size_t count) {
        const size_t at = h * head_dim + i;
        StoreN(out + at, V::Div(LoadN(accumulator + at, count), divisor), count);
      });
    }
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
  static FloatOps FloatTable() noexcept {
    return {.rms_norm = RmsNorm,
            .quantize_token = QuantizeToken,
            .quantize_blocks = QuantizeBlocks,
            .dot = Dot,
            .add_to = AddTo,
            .relu_squared_mul = ReluSquaredMul,
            .silu_mul = SiluMul,
            .arg_max = ArgMax,
            .max = MaxOf,
            .exp_shifted = ExpShifted,
            .rope = Rope,
            .hadamard = Hadamard,
            .delta_rule = DeltaRule,
            .floats_to_halves = FloatsToHalves,
            .halves_to_floats = HalvesToFloats,
            .quantize_kv_q8 = QuantizeKvQ8,
            .quantize_kv_t2 = QuantizeKvT2,
            .attend_chunk = AttendChunk,
            .merge_attention = MergeAttention,
            .finish_attention = FinishAttention,
            .apply_epilogue = ApplyEpilogue};
  }
};

}  // namespace fabric::kernels
