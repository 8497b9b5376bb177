#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "gguf/reader.h"
#include "gguf/types.h"

namespace gguf {

// How a type's bytes follow one another.
//
//   tensor   := row_group[rows / group_rows] tail
//   row_group := header block[cols / block_cols]
//
// A block covers block_cols columns of all group_rows rows of its group.
struct TypeLayout {
  TensorType type;
  std::string_view name;
  bool ternary;         // by the type alone
  uint32_t block_cols;  // cols must be a multiple
  uint32_t block_bytes;
  uint32_t group_rows;    // 1, or 4 where rows are interleaved; rows must be a multiple
  uint32_t header_bytes;  // row scales that precede a group's blocks
  uint32_t tail_bytes;    // I2_S: the scale of the tensor and padding
};

// nullptr when `type` is not an enumerator.
const TypeLayout* FindTypeLayout(TensorType type, I2SLayout i2s_layout = I2SLayout::kX86);

// Bytes of [rows, cols]; std::nullopt when the extents do not fit the blocks or the result wraps.
std::optional<uint64_t> LayoutByteSize(const TypeLayout& layout, uint64_t rows, uint64_t cols);

}  // namespace gguf
