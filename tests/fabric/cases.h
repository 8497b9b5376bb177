#pragma once

#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "fabric/activations.h"
#include "fabric/dense_matrix.h"
#include "fabric/half.h"
#include "fabric/matrix_store.h"
#include "fabric/ternary_matrix.h"

// Random matrices and inputs for tests of devices.
namespace fabric::testing {

inline constexpr TernaryLayout kEveryLayout[] = {TernaryLayout::kPanel2Bit,
                                                 TernaryLayout::kPanelPt5, TernaryLayout::kSparse};

using Random = std::independent_bits_engine<std::mt19937, 32, uint32_t>;

// Trits and scales beside the matrix that packs them.
struct TernaryCase {
  TernaryMatrix matrix;
  std::vector<int8_t> trits;  // [rows, cols]

  static TernaryCase Make(uint32_t rows, uint32_t cols, ScaleKind kind, uint32_t group,
                          TernaryLayout layout, uint32_t seed) {
    Random random(seed);
    const bool sparse = layout == TernaryLayout::kSparse;
    TernaryCase result{
        TernaryMatrix(rows, cols, kind, group, sparse ? TernaryLayout::kPanel2Bit : layout), {}};
    std::uniform_real_distribution<float> scale(-2.0F, 2.0F);
    std::vector<float> scales(result.matrix.scales_per_row());
    for (float& s : scales) s = scale(random);
    result.trits.resize(size_t{rows} * cols);
    for (uint32_t row = 0; row < rows; ++row) {
      int8_t* trits = result.trits.data() + size_t{row} * cols;
      // Some rows are all zeros, all ones or all minus ones.
      const unsigned style = random() % 8;
      for (uint32_t col = 0; col < cols; ++col) {
        trits[col] = style < 3 ? static_cast<int8_t>(static_cast<int>(style) - 1)
                               : static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
      }
      if (kind != ScaleKind::kTensor) {
        for (float& s : scales) s = scale(random);
      }
      result.matrix.SetRow(row, {trits, cols}, scales);
    }
    if (sparse) result.matrix = CopyTernary(result.matrix, layout);
    return result;
  }
};

// Codes with both extremes and many zeros, as a quantiser pads and sums them.
struct Codes {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  ActivationView view;

  static Codes Make(ActivationKind kind, uint32_t tokens, uint32_t cols, uint32_t seed) {
    Random random(seed);
    Codes c;
    const size_t stride = PaddedCols(cols);
    const uint32_t segment = kind == ActivationKind::kInt8Token ? cols : kActivationBlock;
    const uint32_t segments = (cols + segment - 1) / segment;
    c.codes.resize(tokens * stride);
    c.scales.resize(size_t{tokens} * segments);
    c.sums.resize(size_t{tokens} * segments);
    std::uniform_real_distribution<float> scale(0.01F, 3.0F);
    for (uint32_t token = 0; token < tokens; ++token) {
      const unsigned style = random() % 6;
      for (uint32_t col = 0; col < cols; ++col) {
        int code = static_cast<int>(random() % 256) - 128;
        if (style == 0) code = -128;
        if (style == 1) code = 127;
        if (style == 2 && random() % 2 == 0) code = 0;
        c.codes[token * stride + col] = static_cast<int8_t>(code);
        c.sums[size_t{token} * segments + col / segment] += code;
      }
      for (uint32_t s = 0; s < segments; ++s)
        c.scales[size_t{token} * segments + s] = scale(random);
    }
    c.view = {.kind = kind,
              .tokens = tokens,
              .cols = cols,
              .codes = c.codes.data(),
              .code_stride = stride,
              .scales = c.scales.data(),
              .scale_stride = segments,
              .sums = c.sums.data()};
    return c;
  }
};

inline std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
  return bits;
}

inline std::shared_ptr<DenseMatrix> RandomDense(DenseType type, uint32_t rows, uint32_t cols,
                                                uint32_t seed) {
  Random random(seed);
  std::normal_distribution<float> normal;
  auto matrix = std::make_shared<DenseMatrix>(type, rows, cols);
  for (uint32_t row = 0; row < rows; ++row) {
    uint8_t* bytes = matrix->Row(row).data();
    for (uint32_t col = 0; col < cols; ++col) {
      const float value = normal(random);
      const auto bits = std::bit_cast<uint32_t>(value);
      const auto half =
          type == DenseType::kBF16 ? static_cast<uint16_t>(bits >> 16) : FloatToHalf(value);
      if (type == DenseType::kF32) std::memcpy(bytes + 4 * size_t{col}, &value, 4);
      if (type == DenseType::kF16 || type == DenseType::kBF16) {
        std::memcpy(bytes + 2 * size_t{col}, &half, 2);
      }
    }
  }
  return matrix;
}

struct Floats {
  std::vector<float> values;
  ActivationView view;
  static Floats Make(uint32_t tokens, uint32_t cols, uint32_t seed) {
    Random random(seed);
    std::normal_distribution<float> normal;
    Floats x;
    x.values.resize(size_t{tokens} * cols);
    for (float& v : x.values) v = normal(random);
    x.view = {.kind = ActivationKind::kFloat,
              .tokens = tokens,
              .cols = cols,
              .values = x.values.data(),
              .value_stride = cols};
    return x;
  }
};

}  // namespace fabric::testing
