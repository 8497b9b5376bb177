#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "gguf/types.h"

namespace gguf {

// One row of the tensor table, already checked against the file.
//
// Shape: extents[0] is the innermost (the input features of a projection); absent ones are 1.
struct TensorInfo {
  std::string name;
  TensorType type = TensorType::kF32;
  std::array<uint64_t, 4> extents = {1, 1, 1, 1};
  uint32_t rank = 1;
  uint64_t offset = 0;     // of the first byte, from the start of its file part
  uint64_t byte_size = 0;  // what type and extents need; always inside the file
  uint32_t part = 0;       // index of the split file that holds it; 0 when not split

  uint64_t cols() const { return extents[0]; }
  uint64_t rows() const { return extents[1] * extents[2] * extents[3]; }
  uint64_t elements() const { return cols() * rows(); }
};

}  // namespace gguf
