#pragma once

#include <cstddef>
#include <cstdint>

namespace fabric {

// Where a trit lies in the panels that kernels stream.
//
// A panel holds 16 rows, line after line. A line is 64 bytes: byte 4 * r + j belongs to row r of
// the panel (r = 0..15, j = 0..3), so that a 64-byte register holds one dword per row. Digit k of
// that byte is the code (trit + 1) of
//
//   2-bit  column 16 * line + 4 * k + j, k = 0..3, at bits 2k
//   PT-5   column 20 * line + 4 * k + j, k = 0..4, with weight 3^k: a canonical PT-5 byte
//
// For one k, the four bytes of a row meet four consecutive activations: a dword of them, broadcast
// to all rows, feeds a byte dot-product instruction with no shuffle. Columns past the matrix and
// rows past it hold code 1, a zero trit.

inline constexpr uint32_t kPanelRows = 16;
inline constexpr uint32_t kLineBytes = 64;
inline constexpr uint32_t kStepCols = 4;  // columns of one dword of activations
inline constexpr uint32_t k2BitDigits = 4;
inline constexpr uint32_t kPt5Digits = 5;

constexpr uint32_t LinesOf(uint32_t cols, uint32_t digits) {
  const uint32_t line_cols = digits * kStepCols;
  return (cols + line_cols - 1) / line_cols;
}

struct PanelPosition {
  size_t byte = 0;     // within the panel
  uint32_t digit = 0;  // within the byte
};

constexpr PanelPosition PositionInPanel(uint32_t row_in_panel, uint32_t col, uint32_t digits) {
  const uint32_t line_cols = digits * kStepCols;
  const uint32_t in_line = col % line_cols;
  return {size_t{col / line_cols} * kLineBytes + row_in_panel * kStepCols + in_line % kStepCols,
          in_line / kStepCols};
}

inline constexpr uint8_t k2BitZeros = 0x55;  // four codes 1
inline constexpr uint8_t kPt5Zeros = 121;    // five digits 1

}  // namespace fabric
