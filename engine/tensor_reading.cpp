#include "engine/tensor_reading.h"

#include <cstring>
#include <vector>

#include "fabric/parallel.h"
#include "gguf/codec.h"

namespace engine {
namespace {

// Rows that one task decodes: enough to repay the task, few enough to spread a small matrix.
constexpr size_t kRowsPerTask = 64;

}  // namespace

std::optional<fabric::DenseType> NativeDenseType(gguf::TensorType type) {
  switch (type) {
    case gguf::TensorType::kF32:
      return fabric::DenseType::kF32;
    case gguf::TensorType::kF16:
      return fabric::DenseType::kF16;
    case gguf::TensorType::kBF16:
      return fabric::DenseType::kBF16;
    case gguf::TensorType::kQ8_0:
      return fabric::DenseType::kQ8_0;
    default:
      return std::nullopt;
  }
}

std::string_view DenseTypeName(fabric::DenseType type) {
  switch (type) {
    case fabric::DenseType::kF32:
      return "f32";
    case fabric::DenseType::kF16:
      return "f16";
    case fabric::DenseType::kBF16:
      return "bf16";
    case fabric::DenseType::kQ8_0:
      return "q8_0";
  }
  return "?";
}

fabric::ActivationKind ActivationOf(fabric::DenseType type) {
  return type == fabric::DenseType::kQ8_0 ? fabric::ActivationKind::kInt8Block
                                          : fabric::ActivationKind::kFloat;
}

std::string ShapeName(uint64_t rows, uint64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}

fabric::DenseMatrix ReadDense(const gguf::File& file, const gguf::TensorInfo& info,
                              uint64_t first_row, uint32_t rows, fabric::DenseType type,
                              float factor) {
  const auto bytes = file.TensorBytes(info);
  fabric::DenseMatrix matrix(type, rows, static_cast<uint32_t>(info.cols()));
  const bool copy = NativeDenseType(info.type) == type && factor == 1.0F;
  fabric::ParallelFor(rows, kRowsPerTask, [&](size_t begin, size_t end) {
    std::vector<float> values(copy ? 0 : info.cols());
    for (size_t row = begin; row < end; ++row) {
      const std::span<uint8_t> out = matrix.Row(static_cast<uint32_t>(row));
      const uint64_t source = first_row + row;
      if (copy) {
        std::memcpy(out.data(), bytes.data() + source * out.size(), out.size());
        continue;
      }
      gguf::DequantizeRow(info, bytes, file.options(), source, values);
      for (float& value : values) value *= factor;
      if (type == fabric::DenseType::kF32) {
        std::memcpy(out.data(), values.data(), out.size());
        continue;
      }
      for (size_t i = 0; i < values.size(); ++i) {
        const uint16_t half = gguf::FloatToHalf(values[i]);
        std::memcpy(out.data() + i * sizeof(half), &half, sizeof(half));
      }
    }
  });
  return matrix;
}

}  // namespace engine
