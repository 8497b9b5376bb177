#pragma once

#include <cstddef>
#include <cstdint>

namespace fabric::kernels {

// Columns of a block: they share one scale of the activations.
inline constexpr uint32_t kQuantizedBlock = 32;
// Bytes of a plane's unit: byte m holds, lowest first, the fields of columns m, 32 + m, 64 + m, ...
// of the unit's 256 / bits columns.
inline constexpr uint32_t kPlaneUnit = 32;
inline constexpr uint32_t kMaxPlanes = 2;
// A plane lies in bricks of 16 rows x 256 columns, in the order in which a pass over all rows reads
// them: one stream of addresses. 16 streams at a time come from DRAM at a third of the speed.
// Within a brick each row has consecutive bytes, so that single rows can be read, too. The last
// brick of 16 rows is narrower when 256 does not divide the columns.
inline constexpr uint32_t kBrickRows = 16;
inline constexpr uint32_t kBrickCols = 256;

// How the rows of a quantised matrix are written. A code's bits are split over planes, highest
// first, each in a place of its own, so that a reader who needs fewer bits reads fewer bytes.
//
//   weight = scale * sub_scale * (code - zero) + min * sub_min
//
// with what the type lacks left out. `scale` and `min` are fp16, one per super_block columns;
// `sub_scale` and `sub_min` are int8, one per sub_block.
struct QuantizedFormat {
  uint8_t planes[kMaxPlanes] = {};  // bits of each plane (4, 2 or 1); 0 = none
  int32_t zero = 0;
  uint32_t sub_block = 32;    // 16 or 32
  uint32_t super_block = 32;  // 32 or 256
  bool sub_scales = false;
  bool mins = false;       // implies zero == 0
  bool nonlinear = false;  // a code of four bits names one of the levels of kNonlinearLevels
};

// The levels of IQ4_NL plus 128, so that they are codes with zero = 128.
inline constexpr uint8_t kNonlinearLevels[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                 129, 141, 153, 166, 181, 197, 217, 241};

// v = W x for some rows and tokens.
//
// Per block of 32 columns, ascending, with integers that are exact in int32:
//   isum = sum over sub-blocks of sub_scale * sum of (code - zero) * x
//   v = fma(float(isum), scale * d, v)                              from +0
//   msum = sum over sub-blocks of sub_min * sum of x                only with mins
//   v = fma(float(msum), min * d, v)
// sub_scale and sub_min are 1 where the type has none; d is the block's activation scale.
//
// A sketch leaves the planes from `sketch_planes` on unread: `dropped_bits` in all. Its weights are
// twice those of the matrix with the dropped bits at the middle of their range,
// 2 (code with zeros) + 2^dropped_bits - 1, or, where that does not fit a byte, they are not
// doubled: code with zeros + 2^(dropped_bits - 1).
struct QuantizedTile {
  QuantizedFormat format;
  const uint8_t* planes[kMaxPlanes] = {};  // see PlaneOffset()
  const int8_t* sub_scales = nullptr;      // row r at + r * sub_stride
  const int8_t* sub_mins = nullptr;
  size_t sub_stride = 0;
  const uint16_t* scales = nullptr;  // row r at + r * scale_stride
  const uint16_t* mins = nullptr;
  size_t scale_stride = 0;
  uint32_t cols = 0;           // a multiple of 32
  uint32_t sketch_planes = 0;  // 0 = all

  const uint32_t* rows = nullptr;  // which, in any order
  uint32_t row_count = 0;

  uint32_t tokens = 0;
  const int8_t* codes = nullptr;  // [tokens, code_stride]
  size_t code_stride = 0;
  const float* x_scales = nullptr;  // [tokens, x_scale_stride]
  size_t x_scale_stride = 0;

  // [tokens, out_stride]; row i of `rows` goes to column i. Up to 15 more columns are overwritten.
  float* out = nullptr;
  size_t out_stride = 0;
};

// Bytes of a row of a plane.
constexpr size_t PlaneRowBytes(uint32_t bits, uint32_t cols) {
  const uint32_t unit_cols = 8 * kPlaneUnit / bits;
  return size_t{(cols + unit_cols - 1) / unit_cols} * kPlaneUnit;
}
// Where the unit is that holds a column of a row. `col` may be that of a brick for all its rows:
// the rows of one brick follow each other by the offset of row 1 less that of row 0.
constexpr size_t PlaneOffset(uint32_t bits, uint32_t cols, size_t row, uint32_t col) {
  const size_t row_bytes = PlaneRowBytes(bits, cols);
  const size_t full_piece = size_t{bits} * kBrickCols / 8;
  const size_t before = col / kBrickCols * full_piece;  // bytes of a row in the bricks before
  const size_t piece = row_bytes - before < full_piece ? row_bytes - before : full_piece;
  const uint32_t unit = col % kBrickCols / (8 * kPlaneUnit / bits);
  return row / kBrickRows * kBrickRows * row_bytes + before * kBrickRows +
         row % kBrickRows * piece + unit * kPlaneUnit;
}
// The value of a column in its unit.
constexpr uint32_t PlaneField(const uint8_t* unit, uint32_t bits, uint32_t col) {
  const uint32_t in_unit = col % (8 * kPlaneUnit / bits);
  return (uint32_t{unit[in_unit % kPlaneUnit]} >> (in_unit / kPlaneUnit * bits)) &
         ((1U << bits) - 1);
}

constexpr uint32_t CodeBits(const QuantizedFormat& format) {
  return uint32_t{format.planes[0]} + format.planes[1];
}
// Bits that a sketch of the first `planes` planes lacks.
constexpr uint32_t DroppedBits(const QuantizedFormat& format, uint32_t planes) {
  uint32_t bits = 0;
  for (uint32_t p = planes; p < kMaxPlanes; ++p) bits += format.planes[p];
  return planes == 0 ? 0 : bits;
}
constexpr bool IsDoubled(const QuantizedFormat& format, uint32_t planes) {
  return DroppedBits(format, planes) > 0 && CodeBits(format) < 8;
}

using QuantizedTileFn = void (*)(const QuantizedTile& tile) noexcept;

QuantizedTileFn QuantizedScalar() noexcept;
#if defined(__x86_64__)
QuantizedTileFn QuantizedAvx2() noexcept;
QuantizedTileFn QuantizedAvx512Vnni() noexcept;
#endif

}  // namespace fabric::kernels
