#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/quantized_tile.h"

namespace fabric::kernels {

// The loops of the vector versions. 16 rows at a time are turned into the form in which the
// activations of a token meet all of them at once:
//
//   codes[step]  | row 0: c0 c1 c2 c3 | row 1: c0 c1 c2 c3 | ... | row 15 |   four columns per step
//   x            | x0 x1 x2 x3        | x0 x1 x2 x3        | ... |        |   broadcast
//
// Chunk by chunk of 256 columns into the first-level cache, once for all tokens. Rows may be any,
// so that few rows cost few bytes.
//
// I is a type of the including file's anonymous namespace (see float_lanes.h for why). It has
//   Ints, Floats: 16 lanes; kTokenBlock;
//   Transpose(rows, offset, out): dword j of rows[r] + offset becomes lane r of out[j], j < 4;
//   Set, LoadInts, StoreInts, And, Or, AndOr = (a & b) | c, Add, MulLow, Shift<n> (left; negative:
//   right, logical), SignedByte<k> (byte k of each lane), HalfOf<k> (fp16 k of each lane),
//   LoadHalves, Levels (bytes 0..15 to kNonlinearLevels), Dot<wide>(sums, codes, x) with codes
//   above 127 only if wide, SumOf16(x), and float operations.
template <class I>
struct QuantizedDriver {
  using Ints = typename I::Ints;
  using Floats = typename I::Floats;

  static constexpr uint32_t kRows = 16;
  static constexpr uint32_t kChunkBlocks = 8;
  static constexpr uint32_t kChunkCols = kChunkBlocks * kQuantizedBlock;
  static constexpr uint32_t kBlockSteps = kQuantizedBlock / 4;
  // Sums of activations kept at a time: 32 KiB.
  static constexpr uint32_t kSums = 8192;
  static constexpr uint32_t kChunkSums = kChunkCols / 16;

  struct Chunk {
    alignas(64) uint8_t codes[kChunkBlocks * kBlockSteps][64];
    alignas(64) int32_t sub_scales[kChunkSums][kRows];
    alignas(64) int32_t sub_mins[kChunkSums][kRows];
    alignas(64) float scales[kChunkBlocks][kRows];
    alignas(64) float mins[kChunkBlocks][kRows];
  };
  // Where 16 rows lie, and those that come next, to be prefetched.
  struct Section {
    const uint8_t* rows[kRows];
    const uint8_t* next[kRows];

    void Set(const void* base, size_t stride, const uint32_t* row, const uint32_t* after) {
      for (uint32_t r = 0; r < kRows; ++r) {
        rows[r] = static_cast<const uint8_t*>(base) + row[r] * stride;
        next[r] = static_cast<const uint8_t*>(base) + after[r] * stride;
      }
    }
    void Prefetch(size_t offset) const {
      for (uint32_t r = 0; r < kRows; ++r) __builtin_prefetch(next[r] + offset, 0, 2);
    }
  };
  struct Group {
    Section planes[kMaxPlanes];
    Section sub_scales;
    Section sub_mins;
    Section scales;
    Section mins;
  };

  using ExpandCodesFn = void (*)(const Group&, uint32_t, uint32_t, Chunk&);
  using AddChunkFn = void (*)(const QuantizedTile&, const Chunk&, const int32_t*, uint32_t,
                              uint32_t, uint32_t, float*);

  // One plane's unit: eight vectors, read again for each field. kBits 0: no such plane.
  template <uint32_t kBits>
  struct Plane {
    static constexpr uint32_t kFields = kBits == 0 ? 1 : 8 / kBits;
    Ints unit[8];

    template <uint32_t kBlock>
    void Load(const uint8_t* const* rows, size_t chunk_offset) {
      if constexpr (kBits > 0 && kBlock % kFields == 0) {
        const size_t offset = chunk_offset + kBlock / kFields * kPlaneUnit;
        Ints part[4];
        I::Transpose(rows, offset, part);
        for (int j = 0; j < 4; ++j) unit[j] = part[j];
        I::Transpose(rows, offset + 16, part);
        for (int j = 0; j < 4; ++j) unit[4 + j] = part[j];
      }
    }
    template <uint32_t kBlock, uint32_t kTo>
    Ints Get(uint32_t j) const {
      return I::And(Moved<kBlock, kTo>(j), I::Set(Mask(kTo)));
    }
    // The same in the bits of `other` that are zero there.
    template <uint32_t kBlock, uint32_t kTo>
    Ints Merge(uint32_t j, Ints other) const {
      return I::AndOr(Moved<kBlock, kTo>(j), I::Set(Mask(kTo)), other);
    }

   private:
    // This block's field at bit kTo, with other fields around it.
    template <uint32_t kBlock, uint32_t kTo>
    Ints Moved(uint32_t j) const {
      constexpr uint32_t kFrom = kBlock % kFields * kBits;
      return I::template Shift<static_cast<int>(kTo) - static_cast<int>(kFrom)>(unit[j]);
    }
    static constexpr int32_t Mask(uint32_t to) {
      return static_cast<int32_t>((((1U << kBits) - 1) << to) * 0x01010101U);
    }
  };

  // kDropped: bits of a sketch that are not read; the planes are those that are.
  template <uint32_t kA, uint32_t kB, uint32_t kDropped, bool kNonlinear>
  struct Expander {
    static constexpr bool kDoubled = kDropped > 0 && kA + kB + kDropped < 8;
    static constexpr uint32_t kBase = kDropped + (kDoubled ? 1 : 0);
    static constexpr uint32_t kFill =
        kDropped == 0 ? 0 : (kDoubled ? (1U << kDropped) - 1 : 1U << (kDropped - 1));

    template <uint32_t kBlock>
    static void Block(const Group& group, const size_t* offsets, uint32_t blocks, Plane<kA>& a,
                      Plane<kB>& b, Chunk& chunk) {
      if (kBlock >= blocks) return;
      a.template Load<kBlock>(group.planes[0].rows, offsets[0]);
      b.template Load<kBlock>(group.planes[1].rows, offsets[1]);
#pragma GCC unroll 8
      for (uint32_t j = 0; j < kBlockSteps; ++j) {
        Ints code = a.template Get<kBlock, kB + kBase>(j);
        if constexpr (kB > 0) code = b.template Merge<kBlock, kBase>(j, code);
        if constexpr (kFill > 0) {
          code = I::Or(code, I::Set(static_cast<int32_t>(kFill * 0x01010101U)));
        }
        if constexpr (kNonlinear) code = I::Levels(code);
        I::StoreInts(chunk.codes[kBlock * kBlockSteps + j], code);
      }
    }

    static void Run(const Group& group, uint32_t first_block, uint32_t blocks, Chunk& chunk) {
      // A chunk of 256 columns is 32 bytes for each bit of the plane.
      const size_t bytes_per_bit = size_t{first_block} / kChunkBlocks * kPlaneUnit;
      const size_t offsets[kMaxPlanes] = {bytes_per_bit * kA, bytes_per_bit * kB};
      group.planes[0].Prefetch(offsets[0]);
      if constexpr (kA == 4) group.planes[0].Prefetch(offsets[0] + 64);
      if constexpr (kB > 0) group.planes[1].Prefetch(offsets[1]);
      if constexpr (kB == 4) group.planes[1].Prefetch(offsets[1] + 64);
      Plane<kA> a;
      Plane<kB> b;
      Block<0>(group, offsets, blocks, a, b, chunk);
      Block<1>(group, offsets, blocks, a, b, chunk);
      Block<2>(group, offsets, blocks, a, b, chunk);
      Block<3>(group, offsets, blocks, a, b, chunk);
      Block<4>(group, offsets, blocks, a, b, chunk);
      Block<5>(group, offsets, blocks, a, b, chunk);
      Block<6>(group, offsets, blocks, a, b, chunk);
      Block<7>(group, offsets, blocks, a, b, chunk);
    }
  };

  static ExpandCodesFn FindExpander(const QuantizedTile& t) {
    const QuantizedFormat& f = t.format;
    const bool sketch = t.sketch_planes == 1;
    const uint32_t shape = f.planes[0] * 10U + f.planes[1];
    if (f.nonlinear) return Expander<4, 0, 0, true>::Run;
    if (shape == 40) return Expander<4, 0, 0, false>::Run;
    if (shape == 41) return sketch ? Expander<4, 0, 1, false>::Run : Expander<4, 1, 0, false>::Run;
    if (shape == 42) return sketch ? Expander<4, 0, 2, false>::Run : Expander<4, 2, 0, false>::Run;
    if (shape == 44) return sketch ? Expander<4, 0, 4, false>::Run : Expander<4, 4, 0, false>::Run;
    if (shape == 21) return sketch ? Expander<2, 0, 1, false>::Run : Expander<2, 1, 0, false>::Run;
    return Expander<2, 0, 0, false>::Run;
  }

  template <uint32_t kWord>
  static void StoreSignedBytes(Ints word, int32_t (*out)[kRows]) {
    I::StoreInts(out[4 * kWord], I::template SignedByte<0>(word));
    I::StoreInts(out[4 * kWord + 1], I::template SignedByte<1>(word));
    I::StoreInts(out[4 * kWord + 2], I::template SignedByte<2>(word));
    I::StoreInts(out[4 * kWord + 3], I::template SignedByte<3>(word));
  }
  static void ExpandSubValues(const Section& values, uint32_t per_chunk, size_t offset,
                              int32_t (*out)[kRows]) {
    values.Prefetch(offset);
    Ints words[4];
    I::Transpose(values.rows, offset, words);
    StoreSignedBytes<0>(words[0], out);
    StoreSignedBytes<1>(words[1], out);
    if (per_chunk <= 8) return;
    StoreSignedBytes<2>(words[2], out);
    StoreSignedBytes<3>(words[3], out);
  }
  static void ExpandHalves(const Section& values, bool per_block, uint32_t first_block,
                           float (*out)[kRows]) {
    if (!per_block) {
      const size_t offset = size_t{first_block} / kChunkBlocks * 2;
      alignas(32) uint16_t halves[kRows];
      for (uint32_t r = 0; r < kRows; ++r) {
        __builtin_memcpy(halves + r, values.rows[r] + offset, sizeof halves[r]);
      }
      I::Store(out[0], I::LoadHalves(halves));
      return;
    }
    const size_t offset = size_t{first_block} * 2;
    values.Prefetch(offset);
    Ints words[4];
    I::Transpose(values.rows, offset, words);
    for (uint32_t j = 0; j < 4; ++j) {
      I::Store(out[2 * j], I::template HalfOf<0>(words[j]));
      I::Store(out[2 * j + 1], I::template HalfOf<1>(words[j]));
    }
  }
  static void ExpandScales(const QuantizedTile& t, const Group& group, uint32_t first_block,
                           Chunk& chunk) {
    const bool per_block = t.format.super_block == kQuantizedBlock;
    ExpandHalves(group.scales, per_block, first_block, chunk.scales);
    if (t.format.mins) ExpandHalves(group.mins, per_block, first_block, chunk.mins);
    if (!t.format.sub_scales) return;
    const uint32_t per_chunk = kChunkCols / t.format.sub_block;
    const size_t offset = size_t{first_block} * kQuantizedBlock / t.format.sub_block;
    ExpandSubValues(group.sub_scales, per_chunk, offset, chunk.sub_scales);
    if (t.format.mins) ExpandSubValues(group.sub_mins, per_chunk, offset, chunk.sub_mins);
  }

  // Adds `blocks` blocks of a chunk to 16 rows of T tokens. sums: of the activations' sub-blocks,
  // [tokens, sum_stride]; times zero, negative, unless the format has minimums.
  template <bool kSub16, bool kSubScales, bool kMins, bool kWide, int T>
  static void AddTokens(const QuantizedTile& t, const Chunk& chunk, const int32_t* sums,
                        uint32_t sum_stride, uint32_t first_block, uint32_t blocks, uint32_t token,
                        float* out) {
    constexpr uint32_t kSubs = kSub16 ? 2 : 1;
    const size_t scale_step = t.format.super_block == kQuantizedBlock ? 1 : 0;
    const int8_t* x = t.codes + token * t.code_stride + size_t{first_block} * kQuantizedBlock;
    const float* d = t.x_scales + token * t.x_scale_stride + first_block;
    Floats v[T];
#pragma GCC unroll 8
    for (int j = 0; j < T; ++j) {
      v[j] = first_block == 0 ? I::Zero() : I::Load(out + (token + j) * t.out_stride);
    }
    for (uint32_t b = 0; b < blocks; ++b) {
      Ints isum[T];
#pragma GCC unroll 2
      for (uint32_t s = 0; s < kSubs; ++s) {
        const uint32_t sub = b * kSubs + s;
        Ints dot[T];
#pragma GCC unroll 8
        for (int j = 0; j < T; ++j) {
          dot[j] = I::Set(kMins ? 0 : sums[(token + j) * sum_stride + sub]);
        }
#pragma GCC unroll 8
        for (uint32_t k = 0; k < kBlockSteps / kSubs; ++k) {
          const Ints w = I::LoadInts(chunk.codes[b * kBlockSteps + s * kBlockSteps / kSubs + k]);
          const size_t at = b * kQuantizedBlock + s * 16 + k * 4;
#pragma GCC unroll 8
          for (int j = 0; j < T; ++j) {
            dot[j] = I::template Dot<kWide>(dot[j], w, x + j * t.code_stride + at);
          }
        }
        if constexpr (kSubScales) {
          const Ints scale = I::LoadInts(chunk.sub_scales[sub]);
#pragma GCC unroll 8
          for (int j = 0; j < T; ++j) dot[j] = I::MulLow(dot[j], scale);
        }
#pragma GCC unroll 8
        for (int j = 0; j < T; ++j) isum[j] = s == 0 ? dot[j] : I::Add(isum[j], dot[j]);
      }
      const Floats scale = I::Load(chunk.scales[b * scale_step]);
#pragma GCC unroll 8
      for (int j = 0; j < T; ++j) {
        const Floats factor = I::Mul(scale, I::SetFloat(d[j * t.x_scale_stride + b]));
        v[j] = I::Fma(I::ToFloats(isum[j]), factor, v[j]);
      }
      if constexpr (kMins) {
        const Floats min = I::Load(chunk.mins[b * scale_step]);
#pragma GCC unroll 8
        for (int j = 0; j < T; ++j) {
          Ints msum;
#pragma GCC unroll 2
          for (uint32_t s = 0; s < kSubs; ++s) {
            const uint32_t sub = b * kSubs + s;
            Ints part = I::Set(sums[(token + j) * sum_stride + sub]);
            if constexpr (kSubScales) part = I::MulLow(part, I::LoadInts(chunk.sub_mins[sub]));
            msum = s == 0 ? part : I::Add(msum, part);
          }
          const Floats factor = I::Mul(min, I::SetFloat(d[j * t.x_scale_stride + b]));
          v[j] = I::Fma(I::ToFloats(msum), factor, v[j]);
        }
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < T; ++j) I::Store(out + (token + j) * t.out_stride, v[j]);
  }

  template <bool kSub16, bool kSubScales, bool kMins, bool kWide>
  static void AddChunk(const QuantizedTile& t, const Chunk& chunk, const int32_t* sums,
                       uint32_t sum_stride, uint32_t first_block, uint32_t blocks, float* out) {
    uint32_t token = 0;
    for (; token + I::kTokenBlock <= t.tokens; token += I::kTokenBlock) {
      AddTokens<kSub16, kSubScales, kMins, kWide, I::kTokenBlock>(t, chunk, sums, sum_stride,
                                                                  first_block, blocks, token, out);
    }
    if constexpr (I::kTokenBlock > 4) {
      for (; token + 4 <= t.tokens; token += 4) {
        AddTokens<kSub16, kSubScales, kMins, kWide, 4>(t, chunk, sums, sum_stride, first_block,
                                                       blocks, token, out);
      }
    }
    for (; token + 2 <= t.tokens; token += 2) {
      AddTokens<kSub16, kSubScales, kMins, kWide, 2>(t, chunk, sums, sum_stride, first_block,
                                                     blocks, token, out);
    }
    if (token < t.tokens) {
      AddTokens<kSub16, kSubScales, kMins, kWide, 1>(t, chunk, sums, sum_stride, first_block,
                                                     blocks, token, out);
    }
  }

  static AddChunkFn FindAdder(const QuantizedTile& t) {
    const QuantizedFormat& f = t.format;
    const bool wide = f.zero == 128;
    if (f.sub_block == 16) {
      return f.mins ? AddChunk<true, true, true, false> : AddChunk<true, true, false, false>;
    }
    if (f.mins) {
      return f.sub_scales ? AddChunk<false, true, true, false>
                          : AddChunk<false, false, true, false>;
    }
    if (f.sub_scales) return AddChunk<false, true, false, true>;
    return wide ? AddChunk<false, false, false, true> : AddChunk<false, false, false, false>;
  }

  static void SumActivations(const QuantizedTile& t, uint32_t first_block, uint32_t blocks,
                             int32_t* sums) {
    const int32_t factor =
        t.format.mins ? 1 : -t.format.zero * (IsDoubled(t.format, t.sketch_planes) ? 2 : 1);
    for (uint32_t token = 0; token < t.tokens; ++token) {
      const int8_t* x = t.codes + token * t.code_stride + size_t{first_block} * kQuantizedBlock;
      for (uint32_t b = 0; b < blocks; ++b, x += kQuantizedBlock) {
        const int32_t low = I::SumOf16(x) * factor;
        const int32_t high = I::SumOf16(x + 16) * factor;
        if (t.format.sub_block == 16) {
          *sums++ = low;
          *sums++ = high;
        } else {
          *sums++ = low + high;
        }
      }
    }
  }

  // Rows past the end repeat the last one. After the tile's rows the 16 that follow come next.
  static void SetGroup(const QuantizedTile& t, uint32_t first, Group* group) {
    uint32_t rows[kRows];
    uint32_t next[kRows];
    for (uint32_t r = 0; r < kRows; ++r) {
      const uint32_t index = first + r < t.row_count ? first + r : t.row_count - 1;
      rows[r] = t.rows[index];
      next[r] = first + kRows + r < t.row_count ? t.rows[first + kRows + r] : rows[r] + kRows;
    }
    for (uint32_t p = 0; p < kMaxPlanes; ++p) {
      group->planes[p].Set(t.planes[p], t.plane_strides[p], rows, next);
    }
    group->sub_scales.Set(t.sub_scales, t.sub_stride, rows, next);
    group->sub_mins.Set(t.sub_mins, t.sub_stride, rows, next);
    group->scales.Set(t.scales, t.scale_stride * sizeof(uint16_t), rows, next);
    group->mins.Set(t.mins, t.scale_stride * sizeof(uint16_t), rows, next);
  }

  static void Run(const QuantizedTile& t) noexcept {
    const uint32_t all_blocks = t.cols / kQuantizedBlock;
    const uint32_t sums_per_block = kQuantizedBlock / t.format.sub_block;
    const uint32_t fitting = kSums / (t.tokens * sums_per_block) / kChunkBlocks * kChunkBlocks;
    const uint32_t part = fitting > kChunkBlocks ? fitting : kChunkBlocks;
    const ExpandCodesFn expand_codes = FindExpander(t);
    const AddChunkFn add_chunk = FindAdder(t);
    alignas(64) int32_t sums[kSums];
    Chunk chunk;
    Group group;
    for (uint32_t begin = 0; begin < all_blocks; begin += part) {
      const uint32_t end = begin + part < all_blocks ? begin + part : all_blocks;
      const uint32_t sum_stride = (end - begin) * sums_per_block;
      SumActivations(t, begin, end - begin, sums);
      for (uint32_t row = 0; row < t.row_count; row += kRows) {
        SetGroup(t, row, &group);
        for (uint32_t block = begin; block < end; block += kChunkBlocks) {
          const uint32_t blocks = end - block < kChunkBlocks ? end - block : kChunkBlocks;
          expand_codes(group, block, blocks, chunk);
          ExpandScales(t, group, block, chunk);
          add_chunk(t, chunk, sums + (block - begin) * sums_per_block, sum_stride, block, blocks,
                    t.out + row);
        }
      }
    }
  }
};

}  // namespace fabric::kernels
