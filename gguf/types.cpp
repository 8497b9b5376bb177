#include "gguf/types.h"

#include <array>

#include "gguf/type_layout.h"

namespace gguf {
namespace {

// Sources: docs/ternary_format.md. The three I2_S layouts have the same size and stand in the order
// of I2SLayout, so that the first match of a look-up by type alone is the published one.
constexpr std::array kLayouts = {
    // type, name, ternary, block_cols, block_bytes, group_rows, header_bytes, tail_bytes
    TypeLayout{TensorType::kF32, "F32", false, 1, 4, 1, 0, 0},
    TypeLayout{TensorType::kF16, "F16", false, 1, 2, 1, 0, 0},
    TypeLayout{TensorType::kBF16, "BF16", false, 1, 2, 1, 0, 0},
    TypeLayout{TensorType::kQ4_0, "Q4_0", false, 32, 18, 1, 0, 0},
    TypeLayout{TensorType::kQ4_1, "Q4_1", false, 32, 20, 1, 0, 0},
    TypeLayout{TensorType::kQ5_0, "Q5_0", false, 32, 22, 1, 0, 0},
    TypeLayout{TensorType::kQ5_1, "Q5_1", false, 32, 24, 1, 0, 0},
    TypeLayout{TensorType::kQ8_0, "Q8_0", false, 32, 34, 1, 0, 0},
    TypeLayout{TensorType::kQ2_K, "Q2_K", false, 256, 84, 1, 0, 0},
    TypeLayout{TensorType::kQ3_K, "Q3_K", false, 256, 110, 1, 0, 0},
    TypeLayout{TensorType::kQ4_K, "Q4_K", false, 256, 144, 1, 0, 0},
    TypeLayout{TensorType::kQ5_K, "Q5_K", false, 256, 176, 1, 0, 0},
    TypeLayout{TensorType::kQ6_K, "Q6_K", false, 256, 210, 1, 0, 0},
    TypeLayout{TensorType::kIQ4_NL, "IQ4_NL", false, 32, 18, 1, 0, 0},
    TypeLayout{TensorType::kIQ4_XS, "IQ4_XS", false, 256, 136, 1, 0, 0},
    TypeLayout{TensorType::kTQ1_0, "TQ1_0", true, 256, 54, 1, 0, 0},
    TypeLayout{TensorType::kTQ2_0, "TQ2_0", true, 256, 66, 1, 0, 0},
    TypeLayout{TensorType::kI2_S, "I2_S", true, 128, 32, 1, 0, 32},
    TypeLayout{TensorType::kI2_S, "I2_S", true, 64, 16, 1, 0, 32},
    TypeLayout{TensorType::kI2_S, "I2_S", true, 1, 1, 4, 0, 32},
    TypeLayout{TensorType::kQ1_0, "Q1_0", true, 128, 18, 1, 0, 0},
    TypeLayout{TensorType::kQ2_0, "Q2_0", false, 64, 18, 1, 0, 0},
    TypeLayout{TensorType::kQ2_0_G128, "Q2_0_G128", false, 128, 34, 1, 0, 0},
    TypeLayout{TensorType::kPQ2_0, "PQ2_0", false, 128, 34, 1, 0, 0},
    TypeLayout{TensorType::kPTQ1_0, "PTQ1_0", true, 128, 28, 1, 0, 0},
    TypeLayout{TensorType::kIQ1_BN, "IQ1_BN", true, 64, 13, 1, 2, 0},
    TypeLayout{TensorType::kIQ2_BN, "IQ2_BN", true, 64, 16, 1, 4, 0},
    TypeLayout{TensorType::kIQ2_BN_R4, "IQ2_BN_R4", true, 64, 64, 4, 16, 0},
};

}  // namespace

const TypeLayout* FindTypeLayout(TensorType type, I2SLayout i2s_layout) {
  for (size_t i = 0; i < kLayouts.size(); ++i) {
    if (kLayouts[i].type != type) continue;
    return &kLayouts[i + (type == TensorType::kI2_S ? static_cast<size_t>(i2s_layout) : 0)];
  }
  return nullptr;
}

std::optional<uint64_t> LayoutByteSize(const TypeLayout& layout, uint64_t rows, uint64_t cols) {
  if (rows == 0 || cols == 0) return std::nullopt;
  if (cols % layout.block_cols != 0 || rows % layout.group_rows != 0) return std::nullopt;
  uint64_t size = 0;
  if (__builtin_mul_overflow(cols / layout.block_cols, layout.block_bytes, &size) ||
      __builtin_add_overflow(size, layout.header_bytes, &size) ||
      __builtin_mul_overflow(size, rows / layout.group_rows, &size) ||
      __builtin_add_overflow(size, layout.tail_bytes, &size)) {
    return std::nullopt;
  }
  return size;
}

std::string_view TypeName(TensorType type) {
  const TypeLayout* layout = FindTypeLayout(type);
  return layout == nullptr ? "?" : layout->name;
}

bool IsTernaryType(TensorType type) {
  const TypeLayout* layout = FindTypeLayout(type);
  return layout != nullptr && layout->ternary;
}

}  // namespace gguf
