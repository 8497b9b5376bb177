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
// Brick by brick, 256 columns, into the first-level cache, once for all tokens. Rows may be any, so
// that few rows cost few bytes; the 16 rows of whole bricks are read where they lie. One token
// takes the codes of whole bricks from the registers in which they are made.
//
// I is a type of the including file's anonymous namespace (see float_lanes.h for why). It has
//   Ints, Floats: 16 lanes; kTokenBlock;
//   Transpose(rows, offset, out): dword j of rows[r] + offset becomes lane r of out[j], j < 4; rows
//   is any type that has rows[r], a const uint8_t*;
//   Set, LoadInts, StoreInts, And, Or, AndOr = (a & b) | c, Add, MulLow, Shift<n> (left; negative:
//   right, logical), SignedByte<k> (byte k of each lane), HalfOf<k> (fp16 k of each lane),
//   LoadHalves, Levels (bytes 0..15 to kNonlinearLevels), Dot<wide>(sums, codes, x) with codes
//   above 127 only if wide, SumOf16(x), and float operations.
template <class I>
struct QuantizedDriver {
  using Ints = typename I::Ints;
  using Floats = typename I::Floats;

  static constexpr uint32_t kRows = kBrickRows;
  static constexpr uint32_t kChunkBlocks = kBrickCols / kQuantizedBlock;
  // Fetched ahead of the brick in work: DRAM's latency, in a part of the first-level cache.
  static constexpr uint32_t kBricksAhead = 4;
  static constexpr uint32_t kChunkCols = kChunkBlocks * kQuantizedBlock;
  static constexpr uint32_t kBlockSteps = kQuantizedBlock / 4;
  // Sums of activations kept at a time: 32 KiB.
  static constexpr uint32_t kSums = 8192;
  static constexpr uint32_t kChunkSums = kChunkCols / 16;

  struct Chunk {
    alignas(64) uint8_t codes[kChunkBlocks * kBlockSteps][64];
    alignas(64) int32_t sub_scales[kChunkSums][kRows];
    alignas(64) int32_t sub_mins[kChunkSums][kRows];
    alignas(64) float scale_buffer[kChunkBlocks][kRows];
    alignas(64) float min_buffer[kChunkBlocks][kRows];
    const float (*scales)[kRows];  // in scale_buffer: of the first block
    const float (*mins)[kRows];
  };
  // Inlined by force: GCC takes a function of prefetches alone for one without effects and removes
  // its calls.
  [[gnu::always_inline]] static void Prefetch(const uint8_t* bytes, size_t count) {
    for (size_t at = 0; at < count; at += 64) __builtin_prefetch(bytes + at, 0, 3);
  }

  // Where 16 rows of a section lie that has them one after the other.
  struct Section {
    const uint8_t* rows[kRows];

    // Fetches the rows that come next.
    void Set(const void* base, size_t stride, const uint32_t* row, const uint32_t* next) {
      const auto* bytes = static_cast<const uint8_t*>(base);
      for (uint32_t r = 0; r < kRows; ++r) {
        rows[r] = bytes + row[r] * stride;
        Prefetch(bytes + next[r] * stride, stride);
      }
    }
  };
  struct Group {
    uint32_t rows[kRows];
    uint32_t next[kRows];  // that come after these
    bool brick;            // the rows of one, in order
    Section sub_scales;
    Section sub_mins;
    Section scales;
    Section mins;
  };
  // The pieces that the rows have of one brick of a plane: next to each other ...
  template <uint32_t kBytes>
  struct Neighbours {
    const uint8_t* base;
    const uint8_t* operator[](uint32_t r) const { return base + size_t{r} * kBytes; }
  };
  // ... or in bricks of their own.
  struct Scattered {
    const uint8_t* rows[kRows];
    const uint8_t* operator[](uint32_t r) const { return rows[r]; }
  };

  using ExpandCodesFn = void (*)(const QuantizedTile&, const Group&, uint32_t, uint32_t, Chunk&);
  using AddChunkFn = void (*)(const QuantizedTile&, const Chunk&, const int32_t*, uint32_t,
                              uint32_t, uint32_t, float*);
  using OneTokenFn = void (*)(const QuantizedTile&, const Group&, const Chunk&, const int32_t*,
                              uint32_t, float*);
  struct Kernel {
    ExpandCodesFn expand_codes;
    AddChunkFn add_chunk;
    OneTokenFn one_token;
  };

  // One plane's unit: eight vectors, read again for each field. kBits 0: no such plane.
  template <uint32_t kBits>
  struct Plane {
    static constexpr uint32_t kFields = kBits == 0 ? 1 : 8 / kBits;
    Ints unit[8];

    template <uint32_t kBlock, class Pieces>
    [[gnu::always_inline]] void Load(const Pieces& rows) {
      if constexpr (kBits > 0 && kBlock % kFields == 0) {
        constexpr size_t offset = kBlock / kFields * kPlaneUnit;
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
    using PlaneA = Plane<kA>;
    using PlaneB = Plane<kB>;
    using BrickA = Neighbours<kA * kPlaneUnit>;
    using BrickB = Neighbours<kB * kPlaneUnit>;
    static constexpr bool kDoubled = kDropped > 0 && kA + kB + kDropped < 8;
    static constexpr uint32_t kBase = kDropped + (kDoubled ? 1 : 0);
    static constexpr uint32_t kFill =
        kDropped == 0 ? 0 : (kDoubled ? (1U << kDropped) - 1 : 1U << (kDropped - 1));

    // Four columns of a block.
    template <uint32_t kBlock>
    static Ints Code(const Plane<kA>& a, const Plane<kB>& b, uint32_t j) {
      Ints code = a.template Get<kBlock, kB + kBase>(j);
      if constexpr (kB > 0) code = b.template Merge<kBlock, kBase>(j, code);
      if constexpr (kFill > 0) {
        code = I::Or(code, I::Set(static_cast<int32_t>(kFill * 0x01010101U)));
      }
      if constexpr (kNonlinear) code = I::Levels(code);
      return code;
    }
    template <uint32_t kBlock, class PiecesA, class PiecesB>
    static void Block(const PiecesA& in_a, const PiecesB& in_b, uint32_t blocks, Plane<kA>& a,
                      Plane<kB>& b, Chunk& chunk) {
      if (kBlock >= blocks) return;
      a.template Load<kBlock>(in_a);
      b.template Load<kBlock>(in_b);
#pragma GCC unroll 8
      for (uint32_t j = 0; j < kBlockSteps; ++j) {
        I::StoreInts(chunk.codes[kBlock * kBlockSteps + j], Code<kBlock>(a, b, j));
      }
    }

    template <class PiecesA, class PiecesB>
    static void Blocks(const PiecesA& in_a, const PiecesB& in_b, uint32_t blocks, Chunk& chunk) {
      Plane<kA> a;
      Plane<kB> b;
      Block<0>(in_a, in_b, blocks, a, b, chunk);
      Block<1>(in_a, in_b, blocks, a, b, chunk);
      Block<2>(in_a, in_b, blocks, a, b, chunk);
      Block<3>(in_a, in_b, blocks, a, b, chunk);
      Block<4>(in_a, in_b, blocks, a, b, chunk);
      Block<5>(in_a, in_b, blocks, a, b, chunk);
      Block<6>(in_a, in_b, blocks, a, b, chunk);
      Block<7>(in_a, in_b, blocks, a, b, chunk);
    }

    template <uint32_t kBits>
    static Neighbours<kBits * kPlaneUnit> Brick(const QuantizedTile& t, uint32_t plane,
                                                uint32_t row, uint32_t col) {
      if constexpr (kBits == 0) {
        return {nullptr};
      } else {
        constexpr size_t kBytes = size_t{kRows} * kBits * kPlaneUnit;
        const uint8_t* base = t.planes[plane] + PlaneOffset(kBits, t.cols, row, col);
        Prefetch(base + kBricksAhead * kBytes, kBytes);
        return {base};
      }
    }
    static BrickA BrickOfA(const QuantizedTile& t, uint32_t row, uint32_t col) {
      return Brick<kA>(t, 0, row, col);
    }
    static BrickB BrickOfB(const QuantizedTile& t, uint32_t row, uint32_t col) {
      return Brick<kB>(t, 1, row, col);
    }
    template <uint32_t kBits>
    static void FindPieces(const QuantizedTile& t, uint32_t plane, const Group& group, uint32_t col,
                           Scattered* pieces) {
      if constexpr (kBits > 0) {
        const uint8_t* bytes = t.planes[plane];
        for (uint32_t r = 0; r < kRows; ++r) {
          pieces->rows[r] = bytes + PlaneOffset(kBits, t.cols, group.rows[r], col);
          Prefetch(bytes + PlaneOffset(kBits, t.cols, group.next[r], col), kBits * kPlaneUnit);
        }
      }
    }

    static void Run(const QuantizedTile& t, const Group& group, uint32_t first_block,
                    uint32_t blocks, Chunk& chunk) {
      const uint32_t col = first_block * kQuantizedBlock;
      if (group.brick && blocks == kChunkBlocks) {
        Blocks(BrickOfA(t, group.rows[0], col), BrickOfB(t, group.rows[0], col), kChunkBlocks,
               chunk);
        return;
      }
      Scattered a;
      Scattered b;
      FindPieces<kA>(t, 0, group, col, &a);
      FindPieces<kB>(t, 1, group, col, &b);
      Blocks(a, b, blocks, chunk);
    }
  };

  template <uint32_t kWord>
  static void StoreSignedBytes(Ints word, int32_t (*out)[kRows]) {
    I::StoreInts(out[4 * kWord], I::template SignedByte<0>(word));
    I::StoreInts(out[4 * kWord + 1], I::template SignedByte<1>(word));
    I::StoreInts(out[4 * kWord + 2], I::template SignedByte<2>(word));
    I::StoreInts(out[4 * kWord + 3], I::template SignedByte<3>(word));
  }
  static void ExpandSubValues(const Section& values, uint32_t per_chunk, size_t offset,
                              int32_t (*out)[kRows]) {
    Ints words[4];
    I::Transpose(values.rows, offset, words);
    StoreSignedBytes<0>(words[0], out);
    StoreSignedBytes<1>(words[1], out);
    if (per_chunk <= 8) return;
    StoreSignedBytes<2>(words[2], out);
    StoreSignedBytes<3>(words[3], out);
  }
  // Eight consecutive ones from index `first` on: what a chunk has of one per block, or what eight
  // chunks have.
  static void ExpandHalves(const Section& values, uint32_t first, float (*out)[kRows]) {
    const size_t offset = size_t{first} * 2;
    Ints words[4];
    I::Transpose(values.rows, offset, words);
    for (uint32_t j = 0; j < 4; ++j) {
      I::Store(out[2 * j], I::template HalfOf<0>(words[j]));
      I::Store(out[2 * j + 1], I::template HalfOf<1>(words[j]));
    }
  }
  // Of 16 rows: those of the block's chunk, and of the seven after it where a chunk has but one.
  static void ExpandHalves(const QuantizedTile& t, const Group& group, uint32_t first_block,
                           bool first_chunk, Chunk& chunk) {
    const bool per_block = t.format.super_block == kQuantizedBlock;
    const uint32_t chunk_index = first_block / kChunkBlocks;
    const uint32_t in_buffer = per_block ? 0 : chunk_index % kChunkBlocks;
    chunk.scales = chunk.scale_buffer + in_buffer;
    chunk.mins = chunk.min_buffer + in_buffer;
    if (in_buffer != 0 && !first_chunk) return;
    const uint32_t first = per_block ? first_block : chunk_index - in_buffer;
    ExpandHalves(group.scales, first, chunk.scale_buffer);
    if (t.format.mins) ExpandHalves(group.mins, first, chunk.min_buffer);
  }
  static void ExpandSubScales(const QuantizedTile& t, const Group& group, uint32_t first_block,
                              Chunk& chunk) {
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

  // A chunk of a brick's rows and one token, as AddTokens() computes it.
  template <class E, bool kSub16, bool kSubScales, bool kMins, bool kWide>
  struct OneToken {
    static constexpr uint32_t kSubs = kSub16 ? 2 : 1;

    struct Inputs {
      Ints sub_scales[4];  // a byte per sub-block
      Ints sub_mins[4];
      const float (*scales)[kRows];
      const float (*mins)[kRows];
      const int8_t* x;
      const float* d;
      const int32_t* sums;
    };

    template <uint32_t kSub>
    static Ints Scaled(const Ints* sub_values, Ints value) {
      if constexpr (!kSubScales) return value;
      return I::MulLow(value, I::template SignedByte<kSub % 4>(sub_values[kSub / 4]));
    }
    template <uint32_t kBlock, uint32_t kSub>
    static Ints SubBlock(const Inputs& in, const typename E::PlaneA& a,
                         const typename E::PlaneB& b) {
      constexpr uint32_t kSteps = kBlockSteps / kSubs;
      Ints dot = I::Set(kMins ? 0 : in.sums[kBlock * kSubs + kSub]);
#pragma GCC unroll 8
      for (uint32_t k = 0; k < kSteps; ++k) {
        const uint32_t j = kSub * kSteps + k;
        dot = I::template Dot<kWide>(dot, E::template Code<kBlock>(a, b, j),
                                     in.x + kBlock * kQuantizedBlock + 4 * j);
      }
      return Scaled<kBlock * kSubs + kSub>(in.sub_scales, dot);
    }
    template <uint32_t kBlock>
    static Ints SumOfMins(const Inputs& in) {
      const Ints sum = Scaled<kBlock * kSubs>(in.sub_mins, I::Set(in.sums[kBlock * kSubs]));
      if constexpr (!kSub16) return sum;
      return I::Add(sum, Scaled<kBlock * kSubs + 1>(in.sub_mins, I::Set(in.sums[kBlock * 2 + 1])));
    }
    template <uint32_t kBlock>
    static Floats Block(const Inputs& in, const typename E::BrickA& in_a,
                        const typename E::BrickB& in_b, typename E::PlaneA& a,
                        typename E::PlaneB& b, Floats v) {
      a.template Load<kBlock>(in_a);
      b.template Load<kBlock>(in_b);
      Ints isum = SubBlock<kBlock, 0>(in, a, b);
      if constexpr (kSub16) isum = I::Add(isum, SubBlock<kBlock, 1>(in, a, b));
      const Floats d = I::SetFloat(in.d[kBlock]);
      // Types with sub-blocks have one scale for the whole chunk.
      constexpr size_t super = kSubScales ? 0 : kBlock;
      v = I::Fma(I::ToFloats(isum), I::Mul(I::Load(in.scales[super]), d), v);
      if constexpr (kMins) {
        const Floats min = I::Mul(I::Load(in.mins[super]), d);
        v = I::Fma(I::ToFloats(SumOfMins<kBlock>(in)), min, v);
      }
      return v;
    }
    static Floats AllBlocks(const Inputs& in, const typename E::BrickA& in_a,
                            const typename E::BrickB& in_b, Floats v) {
      typename E::PlaneA a;
      typename E::PlaneB b;
      v = Block<0>(in, in_a, in_b, a, b, v);
      v = Block<1>(in, in_a, in_b, a, b, v);
      v = Block<2>(in, in_a, in_b, a, b, v);
      v = Block<3>(in, in_a, in_b, a, b, v);
      v = Block<4>(in, in_a, in_b, a, b, v);
      v = Block<5>(in, in_a, in_b, a, b, v);
      v = Block<6>(in, in_a, in_b, a, b, v);
      return Block<7>(in, in_a, in_b, a, b, v);
    }
    static void Run(const QuantizedTile& t, const Group& group, const Chunk& chunk,
                    const int32_t* sums, uint32_t first_block, float* out) {
      const uint32_t col = first_block * kQuantizedBlock;
      Inputs in;
      in.scales = chunk.scales;
      in.mins = chunk.mins;
      in.x = t.codes + col;
      in.d = t.x_scales + first_block;
      in.sums = sums;
      const size_t first_sub = size_t{first_block} * kSubs;
      if constexpr (kSubScales) I::Transpose(group.sub_scales.rows, first_sub, in.sub_scales);
      if constexpr (kSubScales && kMins) {
        I::Transpose(group.sub_mins.rows, first_sub, in.sub_mins);
      }
      const Floats v = first_block == 0 ? I::Zero() : I::Load(out);
      I::Store(out, AllBlocks(in, E::BrickOfA(t, group.rows[0], col),
                              E::BrickOfB(t, group.rows[0], col), v));
    }
  };

  template <class E, bool kSub16, bool kSubScales, bool kMins, bool kWide>
  static Kernel Of() {
    return {E::Run, AddChunk<kSub16, kSubScales, kMins, kWide>,
            OneToken<E, kSub16, kSubScales, kMins, kWide>::Run};
  }
  static Kernel Find(const QuantizedTile& t) {
    const QuantizedFormat& f = t.format;
    const bool sketch = t.sketch_planes == 1;
    const uint32_t shape = f.planes[0] * 10U + f.planes[1];
    if (f.nonlinear) {
      return f.sub_scales ? Of<Expander<4, 0, 0, true>, false, true, false, true>()
                          : Of<Expander<4, 0, 0, true>, false, false, false, true>();
    }
    if (shape == 44) {
      return sketch ? Of<Expander<4, 0, 4, false>, false, false, false, true>()
                    : Of<Expander<4, 4, 0, false>, false, false, false, true>();
    }
    if (shape == 42) {
      return sketch ? Of<Expander<4, 0, 2, false>, true, true, false, false>()
                    : Of<Expander<4, 2, 0, false>, true, true, false, false>();
    }
    if (shape == 21) {
      return sketch ? Of<Expander<2, 0, 1, false>, true, true, false, false>()
                    : Of<Expander<2, 1, 0, false>, true, true, false, false>();
    }
    if (shape == 20) return Of<Expander<2, 0, 0, false>, true, true, true, false>();
    if (shape == 41) {
      return sketch ? WithOrWithoutMins<Expander<4, 0, 1, false>>(f)
                    : WithOrWithoutMins<Expander<4, 1, 0, false>>(f);
    }
    return WithOrWithoutMins<Expander<4, 0, 0, false>>(f);
  }
  template <class E>
  static Kernel WithOrWithoutMins(const QuantizedFormat& f) {
    if (f.sub_scales) return Of<E, false, true, true, false>();
    return f.mins ? Of<E, false, false, true, false>() : Of<E, false, false, false, false>();
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

  // Rows past the end repeat the last one. After a tile's bricks the one that follows comes next.
  static void SetGroup(const QuantizedTile& t, uint32_t first, Group* group) {
    uint32_t* rows = group->rows;
    uint32_t* next = group->next;
    for (uint32_t r = 0; r < kRows; ++r) {
      rows[r] = t.rows[first + r < t.row_count ? first + r : t.row_count - 1];
      next[r] = first + kRows + r < t.row_count ? t.rows[first + kRows + r] : rows[r] + kRows;
    }
    group->brick = rows[0] % kRows == 0;
    for (uint32_t r = 1; r < kRows; ++r) group->brick &= rows[r] == rows[0] + r;
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
    const Kernel kernel = Find(t);
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
          const int32_t* chunk_sums = sums + (block - begin) * sums_per_block;
          ExpandHalves(t, group, block, block == begin, chunk);
          if (t.tokens == 1 && group.brick && blocks == kChunkBlocks) {
            kernel.one_token(t, group, chunk, chunk_sums, block, t.out + row);
            continue;
          }
          kernel.expand_codes(t, group, block, blocks, chunk);
          ExpandSubScales(t, group, block, chunk);
          kernel.add_chunk(t, chunk, chunk_sums, sum_stride, block, blocks, t.out + row);
        }
      }
    }
  }
};

}  // namespace fabric::kernels
