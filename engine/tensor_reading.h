#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "fabric/dense_matrix.h"
#include "fabric/quantized_matrix.h"
#include "gguf/reader.h"

namespace engine {

// Rows that one task decodes: enough to repay the task, few enough to spread a small matrix.
inline constexpr size_t kDecodedRowsPerTask = 64;

// The dense type that holds a tensor's bytes as they are, if there is one.
std::optional<fabric::DenseType> NativeDenseType(gguf::TensorType type);
// The quantised type that holds a tensor's weights at their bits, if there is one.
std::optional<fabric::QuantizedType> NativeQuantizedType(gguf::TensorType type);
std::string_view DenseTypeName(fabric::DenseType type);

// "rows x columns", for messages.
std::string ShapeName(uint64_t rows, uint64_t cols);

// Rows [first_row, first_row + rows) of a tensor as `type`, each weight times factor. Bytes are
// copied as they are when the file's type is `type` and the factor is 1.
// REQUIRES: type is kF32, kF16, or the tensor's native type with factor 1.
// Threads:  decodes in parallel; not from the token path.
fabric::DenseMatrix ReadDense(const gguf::File& file, const gguf::TensorInfo& info,
                              uint64_t first_row, uint32_t rows, fabric::DenseType type,
                              float factor);

// The same of a tensor of a type that NativeQuantizedType() knows. Threads: as ReadDense().
fabric::QuantizedMatrix ReadQuantized(const gguf::File& file, const gguf::TensorInfo& info,
                                      uint64_t first_row, uint32_t rows,
                                      fabric::QuantizedType type);

}  // namespace engine
