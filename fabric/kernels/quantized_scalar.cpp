#include "fabric/half.h"
#include "fabric/kernels/quantized_tile.h"

// The definition of correct: one block of one row at a time.

namespace fabric::kernels {
namespace {

int32_t CodeAt(const QuantizedTile& t, uint32_t row, uint32_t col) {
  int32_t code = 0;
  for (uint32_t p = 0; p < kMaxPlanes && t.format.planes[p] != 0; ++p) {
    const uint32_t bits = t.format.planes[p];
    const bool read = t.sketch_planes == 0 || p < t.sketch_planes;
    code <<= bits;
    const uint8_t* unit = t.planes[p] + PlaneOffset(bits, t.cols, row, col);
    if (read) code |= static_cast<int32_t>(PlaneField(unit, bits, col));
  }
  if (t.format.nonlinear) return kNonlinearLevels[code];
  const uint32_t dropped = DroppedBits(t.format, t.sketch_planes);
  if (dropped == 0) return code;
  return IsDoubled(t.format, t.sketch_planes) ? 2 * code + (1 << dropped) - 1
                                              : code + (1 << (dropped - 1));
}

struct BlockSums {
  int32_t weights = 0;
  int32_t mins = 0;
};

BlockSums SumBlock(const QuantizedTile& t, const int32_t* weights, uint32_t row, uint32_t block,
                   const int8_t* x) {
  const uint32_t sub_block = t.format.sub_block;
  const size_t first = row * t.sub_stride + size_t{block} * kQuantizedBlock / sub_block;
  BlockSums sums;
  for (uint32_t sub = 0; sub * sub_block < kQuantizedBlock; ++sub) {
    int32_t dot = 0;
    int32_t sum = 0;
    for (uint32_t i = sub * sub_block; i < (sub + 1) * sub_block; ++i) {
      dot += weights[i] * x[i];
      sum += x[i];
    }
    sums.weights += t.format.sub_scales ? t.sub_scales[first + sub] * dot : dot;
    if (t.format.mins) sums.mins += t.format.sub_scales ? t.sub_mins[first + sub] * sum : sum;
  }
  return sums;
}

void AddBlock(const QuantizedTile& t, uint32_t index, uint32_t block) {
  const uint32_t row = t.rows[index];
  const int32_t zero = t.format.zero * (IsDoubled(t.format, t.sketch_planes) ? 2 : 1);
  int32_t weights[kQuantizedBlock];
  for (uint32_t i = 0; i < kQuantizedBlock; ++i) {
    weights[i] = CodeAt(t, row, block * kQuantizedBlock + i) - zero;
  }
  const size_t super = row * t.scale_stride + block * kQuantizedBlock / t.format.super_block;
  for (uint32_t token = 0; token < t.tokens; ++token) {
    const int8_t* x = t.codes + token * t.code_stride + block * kQuantizedBlock;
    const float d = t.x_scales[token * t.x_scale_stride + block];
    const BlockSums sums = SumBlock(t, weights, row, block, x);
    float* v = t.out + token * t.out_stride + index;
    const float scale = HalfToFloat(t.scales[super]) * d;
    *v = __builtin_fmaf(static_cast<float>(sums.weights), scale, block == 0 ? 0.0F : *v);
    if (!t.format.mins) continue;
    *v = __builtin_fmaf(static_cast<float>(sums.mins), HalfToFloat(t.mins[super]) * d, *v);
  }
}

void Run(const QuantizedTile& t) noexcept {
  for (uint32_t index = 0; index < t.row_count; ++index) {
    for (uint32_t block = 0; block < t.cols / kQuantizedBlock; ++block) AddBlock(t, index, block);
  }
}

}  // namespace

QuantizedTileFn QuantizedScalar() noexcept { return Run; }

}  // namespace fabric::kernels
