#include "engine/tensor_reading.h"

#include <cstring>
#include <vector>

#include "fabric/parallel.h"
#include "gguf/codec.h"

namespace engine {
namespace {}  // namespace

std::optional<fabric::DenseType> NativeDenseType(gguf::TensorType type) {
  switch (type) {
    case gguf::TensorType::kF32:
      return fabric::DenseType::kF32;
    case gguf::TensorType::kF16:
      return fabric::DenseType::kF16;
    case gguf::TensorType::kBF16:
      return fabric::DenseType::kBF16;
    default:
      return std::nullopt;
  }
}

std::optional<fabric::QuantizedType> NativeQuantizedType(gguf::TensorType type) {
  switch (type) {
    case gguf::TensorType::kQ4_0:
      return fabric::QuantizedType::kQ4_0;
    case gguf::TensorType::kQ4_1:
      return fabric::QuantizedType::kQ4_1;
    case gguf::TensorType::kQ5_0:
      return fabric::QuantizedType::kQ5_0;
    case gguf::TensorType::kQ5_1:
      return fabric::QuantizedType::kQ5_1;
    case gguf::TensorType::kQ8_0:
      return fabric::QuantizedType::kQ8_0;
    case gguf::TensorType::kIQ4_NL:
      return fabric::QuantizedType::kIQ4_NL;
    case gguf::TensorType::kQ2_K:
      return fabric::QuantizedType::kQ2_K;
    case gguf::TensorType::kQ3_K:
      return fabric::QuantizedType::kQ3_K;
    case gguf::TensorType::kQ4_K:
      return fabric::QuantizedType::kQ4_K;
    case gguf::TensorType::kQ5_K:
      return fabric::QuantizedType::kQ5_K;
    case gguf::TensorType::kQ6_K:
      return fabric::QuantizedType::kQ6_K;
    case gguf::TensorType::kIQ4_XS:
      return fabric::QuantizedType::kIQ4_XS;
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
  }
  return "?";
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
  fabric::ParallelFor(rows, kDecodedRowsPerTask, [&](size_t begin, size_t end) {
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

fabric::QuantizedMatrix ReadQuantized(const gguf::File& file, const gguf::TensorInfo& info,
                                      uint64_t first_row, uint32_t rows,
                                      fabric::QuantizedType type) {
  const auto bytes = file.TensorBytes(info);
  fabric::QuantizedMatrix matrix(type, rows, static_cast<uint32_t>(info.cols()));
  fabric::ParallelFor(rows, kDecodedRowsPerTask, [&](size_t begin, size_t end) {
    gguf::BlockCodes blocks;
    for (size_t row = begin; row < end; ++row) {
      gguf::ReadBlockCodes(info, bytes, first_row + row, &blocks);
      matrix.SetRow(static_cast<uint32_t>(row), {.codes = blocks.codes,
                                                 .sub_scales = blocks.sub_scales,
                                                 .sub_mins = blocks.sub_mins,
                                                 .scales = blocks.scales,
                                                 .mins = blocks.mins});
    }
  });
  return matrix;
}

}  // namespace engine
