#pragma once

#include <cstdint>
#include <string>

#include "engine/packed_cache.h"
#include "fabric/device.h"
#include "fabric/quantized_matrix.h"
#include "fabric/row_screen.h"
#include "fabric/ternary_matrix.h"
#include "gguf/reader.h"
#include "gguf/tensor_info.h"

namespace engine {

// Rows of a tensor: all of them, or one matrix of a stack.
struct RowRange {
  uint64_t first = 0;
  uint32_t count = 0;
};

// A ternary tensor in the layout that the device runs best.
struct PackedTernary {
  fabric::TernaryMatrix matrix;
  uint64_t zeros = 0;  // trits that are 0
  std::string reason;  // of the layout
};

// Makes matrices of a file's tensors, or takes them from a packed cache, which is filled otherwise.
//
// Threads: one at a time; each matrix is made by all cores.
// Errors:  ModelError, gguf::FormatError; PackedCacheError when the cache is damaged.
class Packer {
 public:
  // All outlive the packer.
  Packer(const gguf::File& file, fabric::Device& device, PackedCache& cache)
      : file_(file), device_(device), cache_(cache) {}

  // Scales that agree collapse: all groups alike -> one per tensor, alike within rows -> one per
  // row. factor: of every scale. activation: of what the matrix will be multiplied with.
  // REQUIRES: gguf::TernaryDecoder::Accepts() the tensor.
  PackedTernary Ternary(const gguf::TensorInfo& info, const RowRange& rows, float factor,
                        fabric::ActivationKind activation);
  fabric::QuantizedMatrix Quantized(const gguf::TensorInfo& info, const RowRange& rows,
                                    fabric::QuantizedType type);
  // Of the LM head (fabric/strict_screen.h, fabric/coarse_screen.h).
  fabric::RowSketch StrictSketch(const fabric::QuantizedMatrix& matrix);
  fabric::RowSketch CoarseSketch(const fabric::Matrix& matrix);

 private:
  PackedTernary PackTernary(const gguf::TensorInfo& info, const RowRange& rows, float factor,
                            fabric::ActivationKind activation);
  template <typename Blank, typename Make>
  auto ReadOrMake(const std::string& name, const Blank& blank, const Make& make);

  const gguf::File& file_;
  fabric::Device& device_;
  PackedCache& cache_;
};

}  // namespace engine
