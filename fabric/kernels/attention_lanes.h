#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/float_lanes.h"

namespace fabric::kernels {

// How K and V are rounded to their storage types, and attention over them; as float_lanes.h, whose
// operations of V these are.
template <class V>
struct AttentionLanes : FloatLanes<V> {
  using Base = FloatLanes<V>;
  using Base::Copy;
  using Base::ExpOne;
  using Base::ExpShifted;
  using Base::FillZero;
  using Base::ForVectors;
  using Base::FromHalf;
  using Base::HalvesToFloats;
  using Base::kInfinityBits;
  using Base::kLanes;
  using Base::kLargestHalf;
  using Base::kNanHalf;
  using Base::kRounder;
  using Base::LoadFirst;
  using Base::LoadHalves;
  using Base::LoadN;
  using Base::MaxMagnitude;
  using Base::StoreN;
  using Base::ToHalf;
  using Base::ZeroCodes;

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
      const float largest = Base::Largest(*max, weights[h], c.count);
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
};

// The table of an instruction set.
template <class V>
FloatOps MakeFloatOps() noexcept {
  using Floats = FloatLanes<V>;
  using Attention = AttentionLanes<V>;
  return {.rms_norm = Floats::RmsNorm,
          .quantize_token = Floats::QuantizeToken,
          .quantize_blocks = Floats::QuantizeBlocks,
          .dot = Floats::Dot,
          .add_to = Floats::AddTo,
          .relu_squared_mul = Floats::ReluSquaredMul,
          .silu_mul = Floats::SiluMul,
          .gelu_mul = Floats::GeluMul,
          .arg_max = Floats::ArgMax,
          .max = Floats::MaxOf,
          .exp_shifted = Floats::ExpShifted,
          .rope = Floats::Rope,
          .hadamard = Floats::Hadamard,
          .delta_rule = Floats::DeltaRule,
          .floats_to_halves = Floats::FloatsToHalves,
          .halves_to_floats = Floats::HalvesToFloats,
          .quantize_kv_q8 = Attention::QuantizeKvQ8,
          .quantize_kv_t2 = Attention::QuantizeKvT2,
          .attend_chunk = Attention::AttendChunk,
          .merge_attention = Attention::MergeAttention,
          .finish_attention = Attention::FinishAttention,
          .apply_epilogue = Floats::ApplyEpilogue};
}

}  // namespace fabric::kernels
