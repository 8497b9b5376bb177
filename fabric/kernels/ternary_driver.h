#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/plane_driver.h"
#include "fabric/kernels/ternary_tile.h"
#include "fabric/panel_layout.h"

namespace fabric::kernels {

// The loops around the integer dot products of one instruction set: which panels and tokens go
// together, which columns share a sum, and how sums become floats.
//
// A few tokens, as many as the registers have sums for, take codes out of packed lines as they
// stream by. More tokens share that work, unless it is free: a window of columns of a few panels is
// expanded to one byte per code, dword after dword, and stays in the first- or second-level cache
// for all tokens:
//
//   panels   | 2-bit or PT-5 lines ........ |   P panels, `window` dwords of columns
//   bytes    | d0: P lines | d1: P lines |..|   a line: 16 rows x 4 codes, one byte each
//   tokens   T at a time: sums[P][T] stay in registers over the whole window
//
// Sums that a window leaves unfinished are carried to the next one as integers. While the first
// tokens of a window are computed, the packed lines of the next one are prefetched.
//
// I is a type of the including file's anonymous namespace (see float_lanes.h for why). It has
//   Ints, Floats           16 int32 or floats, one per row of a panel
//   kExpandedBytes         size of a window, all panels together
//   kPanels, kTokens<kDigits, S, I>  P, and the largest T; S: sums are floats too, segment by
//       segment; I: in place
//   kWidePanels, kWideTokens<kDigits, S>   the same where there are at most kWideTokens tokens
//   kMostInPlace<kDigits, S>     the most tokens for which nothing is expanded
//   ExpandLine<kDigits>(const uint8_t* line, uint8_t* bytes, size_t stride)
//       the codes of digit k go to bytes + k * stride
//   AddBytes<P, T>(bytes, codes, code_stride, steps, ahead, Ints[P][T])
//       adds (trit + 1) * code over `steps` dwords; prefetches `ahead`
//   AddLines<kDigits, P, T>(line, panel_stride, codes, code_stride, steps, ahead, Ints[P][T])
//       the same from packed lines, where kMostInPlace<kDigits, S> > 0
//   DotVector<kDigits>(panel, codes, steps)          the sums of one token, from packed lines
//   SegmentVector<kDigits>(line, codes, steps)       the same for few columns from the start of a
//       line, where kSegmentVector<kDigits>
//   ZeroInts, LoadInts, StoreInts, AddInts, ToFloats(Ints, int32_t) = float(sum - int32_t)
//   Zero, Set, Load, Store, Mul, Div, Fma on Floats
//
// A kernel may read codes past the last column up to their padding, which is zeros.

// Packed lines that will be wanted soon: `count` times one per panel of a block.
struct LinesAhead {
  const uint8_t* first = nullptr;
  size_t panel_stride = 0;  // from one panel's line to the next panel's
  size_t stride = 0;        // from one time to the next
  uint32_t count = 0;

  void Advance(uint32_t times) noexcept {
    times = times < count ? times : count;
    first += times * stride;
    count -= times;
  }
};
// AddBytes() touches a line of every panel per so many dwords.
inline constexpr uint32_t kStepsPerTouch = 4;
// kMostInPlace of a layout that is never expanded.
inline constexpr uint32_t kAlways = ~0U;

template <class I, uint32_t kDigits>
struct TernaryDriver {
  using Floats = typename I::Floats;
  using Ints = typename I::Ints;

  static void Run(const TernaryTile& t) noexcept {
    const bool segmented = t.sum != TernarySum::kToken;
    if (t.tokens == 1 && !segmented) {
      Vectors(t);
    } else if (t.tokens == 1 && I::template kSegmentVector<kDigits>) {
      if constexpr (I::template kSegmentVector<kDigits>) SegmentVectors(t);
    } else {
      for (uint32_t token = 0; token < t.tokens; token += kGroupTokens) {
        const uint32_t left = t.tokens - token;
        const TokenGroup group{token, left < kGroupTokens ? left : kGroupTokens};
        segmented ? Group<true>(t, group) : Group<false>(t, group);
      }
    }
  }

 private:
  static constexpr uint32_t kGroupTokens = 64;

  struct TokenGroup {
    uint32_t first;
    uint32_t count;
  };
  // Dwords [begin, end) of the columns: expanded, or the panels as they are.
  struct Window {
    const uint8_t* bytes;
    uint32_t begin;
    uint32_t end;
    LinesAhead ahead;
  };
  // What outlives a window: unfinished sums, [token][panel][16]; and the scale of each token where
  // all weights have one.
  struct State {
    alignas(64) int32_t carry[kGroupTokens * I::kPanels * kPanelRows];
    float token_scale[kGroupTokens];
  };
  static_assert(I::kPanels * kGroupTokens >=
                I::kWidePanels * I::template kWideTokens<kDigits, false>);
  static_assert(I::kPanels * kGroupTokens >=
                I::kWidePanels * I::template kWideTokens<kDigits, true>);

  static uint32_t Steps(uint32_t cols) noexcept { return (cols + kStepCols - 1) / kStepCols; }
  static bool HasOneScale(const TernaryTile& t) noexcept {
    return t.sum == TernarySum::kToken && t.w_panel_stride == 0;
  }
  static float* Out(const TernaryTile& t, uint32_t panel, size_t token) noexcept {
    return t.out + token * t.out_stride + panel * kPanelRows;
  }

  template <bool kSegmented>
  static void Group(const TernaryTile& t, TokenGroup group) noexcept {
    State state;
    if (HasOneScale(t)) {
      for (uint32_t j = 0; j < group.count; ++j) {
        state.token_scale[j] = t.w_scales[0] / t.x_scales[group.first + j];
      }
    }
    constexpr uint32_t kMostInPlace = I::template kMostInPlace<kDigits, kSegmented>;
    if constexpr (kMostInPlace == kAlways) {
      AllPanels<kSegmented, true>(t, group, &state);
    } else if constexpr (kMostInPlace == 0) {
      AllPanels<kSegmented, false>(t, group, &state);
    } else {
      t.tokens <= kMostInPlace ? AllPanels<kSegmented, true>(t, group, &state)
                               : AllPanels<kSegmented, false>(t, group, &state);
    }
  }

  template <bool kSegmented, bool kInPlace>
  static void AllPanels(const TernaryTile& t, TokenGroup group, State* state) noexcept {
    constexpr uint32_t kWideTokens = I::template kWideTokens<kDigits, kSegmented>;
    if constexpr (kWideTokens > 0) {
      if (group.count <= kWideTokens) {
        Panels<I::kWidePanels, kWideTokens, kSegmented, kInPlace>(t, group, 0, state);
        return;
      }
    }
    Panels<I::kPanels, I::template kTokens<kDigits, kSegmented, kInPlace>, kSegmented, kInPlace>(
        t, group, 0, state);
  }

  // Panels from `panel` on, P together as long as there are so many.
  template <uint32_t P, uint32_t kMostTokens, bool kSegmented, bool kInPlace>
  static void Panels(const TernaryTile& t, TokenGroup group, uint32_t panel,
                     State* state) noexcept {
    for (; panel + P <= t.panel_count; panel += P) {
      if constexpr (kInPlace) {
        // Panels lie side by side, so the next block is read in the order of its addresses.
        const uint8_t* panels = t.panels + panel * t.panel_stride;
        const LinesAhead ahead{panels + P * t.panel_stride, kLineBytes, P * kLineBytes,
                               LinesOf(t.cols, kDigits)};
        const Window window{panels, 0, Steps(t.cols), ahead};
        Blocks<P, kMostTokens, kSegmented, true>(t, group, panel, window, state);
      } else {
        Windows<P, kMostTokens, kSegmented>(t, group, panel, state);
      }
    }
    if constexpr (P > 1) {
      if (panel < t.panel_count) {
        Panels<P / 2, kMostTokens, kSegmented, kInPlace>(t, group, panel, state);
      }
    }
  }

  template <uint32_t P, uint32_t kMostTokens, bool kSegmented>
  static void Windows(const TernaryTile& t, TokenGroup group, uint32_t panel,
                      State* state) noexcept {
    // Whole lines of both layouts.
    constexpr uint32_t kLine = k2BitDigits * kPt5Digits;
    constexpr uint32_t kWindowSteps = I::kExpandedBytes / (P * kLineBytes) / kLine * kLine;
    alignas(64) uint8_t bytes[(kWindowSteps + kDigits) * P * kLineBytes];
    const uint32_t steps = Steps(t.cols);
    const uint8_t* panels = t.panels + panel * t.panel_stride;
    for (uint32_t begin = 0; begin < steps; begin += kWindowSteps) {
      const uint32_t end = steps - begin < kWindowSteps ? steps : begin + kWindowSteps;
      Expand<P>(panels + size_t{begin / kDigits} * kLineBytes, t.panel_stride,
                (end - begin + kDigits - 1) / kDigits, bytes);
      const Window window{bytes, begin, end, Ahead<P>(t, panels, panel, end, kWindowSteps)};
      Blocks<P, kMostTokens, kSegmented, false>(t, group, panel, window, state);
    }
  }

  template <uint32_t P, uint32_t kMostTokens, bool kSegmented, bool kInPlace>
  static void Blocks(const TernaryTile& t, TokenGroup group, uint32_t panel, Window window,
                     State* state) noexcept {
    const uint32_t blocks = (group.count + kMostTokens - 1) / kMostTokens;
    uint32_t token = 0;
    for (uint32_t block = 0; block < blocks; ++block) {
      // As even as can be: a short last block would leave registers empty.
      const uint32_t count = (group.count - token + blocks - block - 1) / (blocks - block);
      Block<P, kMostTokens, kSegmented, kInPlace>(t, panel, {group.first, token}, count, window,
                                                  state);
      window.ahead.count = 0;
      token += count;
    }
  }

  // Adds dwords [begin, end) of the columns, which lie in the window.
  template <bool kInPlace, uint32_t P, uint32_t T>
  static void AddColumns(const TernaryTile& t, const Window& window, uint32_t token, uint32_t begin,
                         uint32_t end, LinesAhead ahead, Ints (&sums)[P][T]) noexcept {
    const int8_t* codes = t.codes + size_t{token} * t.code_stride + size_t{begin} * kStepCols;
    if constexpr (kInPlace) {
      I::template AddLines<kDigits, P, T>(window.bytes + size_t{begin / kDigits} * kLineBytes,
                                          t.panel_stride, codes, t.code_stride, end - begin, ahead,
                                          sums);
    } else {
      I::template AddBytes<P, T>(window.bytes + size_t{begin - window.begin} * P * kLineBytes,
                                 codes, t.code_stride, end - begin, ahead, sums);
    }
  }

  template <uint32_t P>
  static void Expand(const uint8_t* line, size_t panel_stride, uint32_t lines,
                     uint8_t* bytes) noexcept {
    for (; lines > 0; --lines) {
#pragma GCC unroll 4
      for (uint32_t p = 0; p < P; ++p) {
        I::template ExpandLine<kDigits>(line + p * panel_stride, bytes + p * kLineBytes,
                                        P * kLineBytes);
      }
      line += kLineBytes;
      bytes += kDigits * P * kLineBytes;
    }
  }

  // The packed lines that come after a window: the same panels further on, or the next panels. One
  // block of lines per panel.
  template <uint32_t P>
  static LinesAhead Ahead(const TernaryTile& t, const uint8_t* panels, uint32_t panel, uint32_t end,
                          uint32_t window_steps) noexcept {
    const uint32_t steps = Steps(t.cols);
    LinesAhead ahead{panels + size_t{end / kDigits} * kLineBytes, t.panel_stride, kLineBytes, 0};
    uint32_t left = steps - end;
    if (left == 0) {
      // Past the last panel of the tile lies, most often, what this thread computes next or what
      // another thread is about to; a prefetch never faults.
      ahead.first = t.panels + (panel + P) * t.panel_stride;
      left = steps;
    }
    ahead.count = ((left < window_steps ? left : window_steps) + kDigits - 1) / kDigits;
    return ahead;
  }

  struct TokenAt {
    uint32_t group_first;
    uint32_t in_group;
    uint32_t index() const noexcept { return group_first + in_group; }
  };

  // Turns the run-time number of tokens into a template's.
  template <uint32_t P, uint32_t T, bool kSegmented, bool kInPlace>
  static void Block(const TernaryTile& t, uint32_t panel, TokenAt token, uint32_t count,
                    const Window& window, State* state) noexcept {
    if (count == T) {
      if constexpr (kSegmented) {
        SegmentBlock<P, T, kInPlace>(t, panel, token, window, state);
      } else {
        WholeBlock<P, T, kInPlace>(t, panel, token, window, state);
      }
    } else if constexpr (T > 1) {
      Block<P, T - 1, kSegmented, kInPlace>(t, panel, token, count, window, state);
    }
  }

  static int32_t* Carry(State* state, uint32_t panels, uint32_t p, uint32_t token) noexcept {
    return state->carry + (token * panels + p) * kPanelRows;
  }

  template <uint32_t P, uint32_t T, bool kInPlace>
  static void WholeBlock(const TernaryTile& t, uint32_t panel, TokenAt token, const Window& window,
                         State* state) noexcept {
    Ints sums[P][T];
    Clear(sums);
    AddColumns<kInPlace>(t, window, token.index(), window.begin, window.end, window.ahead, sums);
    if (window.begin > 0) AddCarry(state, token.in_group, sums);
    if (window.end < Steps(t.cols)) {
      StoreCarry(state, token.in_group, sums);
      return;
    }
    if (t.w_panel_stride == 0) {
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) {
        const Floats scale = I::Set(state->token_scale[token.in_group + j]);
        const int32_t x_sum = t.x_sums[(token.index() + j) * t.sum_stride];
#pragma GCC unroll 4
        for (uint32_t p = 0; p < P; ++p) {
          I::Store(Out(t, panel + p, token.index() + j),
                   I::Mul(I::ToFloats(sums[p][j], x_sum), scale));
        }
      }
      return;
    }
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) {
      const Floats w = I::Load(t.w_scales + (panel + p) * t.w_panel_stride);
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) {
        StoreWhole(t, panel + p, token.index() + j, w, sums[p][j]);
      }
    }
  }

  static void StoreWhole(const TernaryTile& t, uint32_t panel, uint32_t token, Floats w,
                         Ints sum) noexcept {
    const Floats isum = I::ToFloats(sum, t.x_sums[token * t.sum_stride]);
    I::Store(Out(t, panel, token), I::Mul(isum, I::Div(w, I::Set(t.x_scales[token]))));
  }

  template <uint32_t P, uint32_t T, bool kInPlace>
  static void SegmentBlock(const TernaryTile& t, uint32_t panel, TokenAt token,
                           const Window& window, State* state) noexcept {
    Floats v[P][T];
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) {
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) {
        v[p][j] = window.begin == 0 ? I::Zero() : I::Load(Out(t, panel + p, token.index() + j));
      }
    }
    const uint32_t segment = t.segment / kStepCols;
    uint32_t index = window.begin / segment;
    LinesAhead ahead = window.ahead;
    for (uint32_t step = window.begin; step < window.end; ++index) {
      const uint32_t segment_end = (index + 1) * segment;
      const uint32_t end = segment_end < window.end ? segment_end : window.end;
      Ints sums[P][T];
      Clear(sums);
      AddColumns<kInPlace>(t, window, token.index(), step, end, ahead, sums);
      constexpr uint32_t kPerTouch = kInPlace ? kDigits : kStepsPerTouch;
      ahead.Advance((end - step + kPerTouch - 1) / kPerTouch);
      if (step > index * segment) AddCarry(state, token.in_group, sums);
      step = end;
      if (end < segment_end && end < Steps(t.cols)) {
        StoreCarry(state, token.in_group, sums);
        break;
      }
      const size_t scale = t.segments_per_scale == 0 ? 0 : index / t.segments_per_scale;
#pragma GCC unroll 4
      for (uint32_t p = 0; p < P; ++p) {
        const Floats w = I::Load(t.w_scales + (panel + p) * t.w_panel_stride + scale * kPanelRows);
#pragma GCC unroll 12
        for (uint32_t j = 0; j < T; ++j) {
          v[p][j] = AddSegment(t, token.index() + j, index, w, sums[p][j], v[p][j]);
        }
      }
    }
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) {
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) I::Store(Out(t, panel + p, token.index() + j), v[p][j]);
    }
  }

  static Floats AddSegment(const TernaryTile& t, size_t token, uint32_t index, Floats w, Ints sum,
                           Floats v) noexcept {
    const Floats isum = I::ToFloats(sum, t.x_sums[token * t.sum_stride + index]);
    const Floats factor = t.sum == TernarySum::kGroups
                              ? I::Div(w, I::Set(t.x_scales[token]))
                              : I::Mul(w, I::Set(t.x_scales[token * t.scale_stride + index]));
    return I::Fma(isum, factor, v);
  }

  template <uint32_t P, uint32_t T>
  static void Clear(Ints (&sums)[P][T]) noexcept {
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) {
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) sums[p][j] = I::ZeroInts();
    }
  }
  template <uint32_t P, uint32_t T>
  static void AddCarry(State* state, uint32_t token, Ints (&sums)[P][T]) noexcept {
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) {
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) {
        sums[p][j] = I::AddInts(sums[p][j], I::LoadInts(Carry(state, P, p, token + j)));
      }
    }
  }
  template <uint32_t P, uint32_t T>
  static void StoreCarry(State* state, uint32_t token, const Ints (&sums)[P][T]) noexcept {
#pragma GCC unroll 4
    for (uint32_t p = 0; p < P; ++p) {
#pragma GCC unroll 12
      for (uint32_t j = 0; j < T; ++j) I::StoreInts(Carry(state, P, p, token + j), sums[p][j]);
    }
  }

  // One panel after the other: a single stream that runs through memory in order.
  static void Vectors(const TernaryTile& t) noexcept {
    for (uint32_t panel = 0; panel < t.panel_count; ++panel) {
      const Ints sum =
          I::template DotVector<kDigits>(t.panels + panel * t.panel_stride, t.codes, Steps(t.cols));
      StoreWhole(t, panel, 0, I::Load(t.w_scales + panel * t.w_panel_stride), sum);
    }
  }

  static void SegmentVectors(const TernaryTile& t) noexcept {
    const uint32_t steps = Steps(t.cols);
    const uint32_t segment = t.segment / kStepCols;
    for (uint32_t panel = 0; panel < t.panel_count; ++panel) {
      const uint8_t* lines = t.panels + panel * t.panel_stride;
      const float* w_scales = t.w_scales + panel * t.w_panel_stride;
      Floats v = I::Zero();
      uint32_t index = 0;
      for (uint32_t begin = 0; begin < steps; begin += segment, ++index) {
        const Ints sum = I::template SegmentVector<kDigits>(
            lines + size_t{begin / kDigits} * kLineBytes, t.codes + size_t{begin} * kStepCols,
            steps - begin < segment ? steps - begin : segment);
        const size_t scale = t.segments_per_scale == 0 ? 0 : index / t.segments_per_scale;
        v = AddSegment(t, 0, index, I::Load(w_scales + scale * kPanelRows), sum, v);
      }
      I::Store(Out(t, panel, 0), v);
    }
  }
};

}  // namespace fabric::kernels
