#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "fabric/activations.h"
#include "fabric/vector_ops.h"

namespace bench {

// Tokens of normally distributed values, and their codes as an engine would make them: the same in
// every run. The view is valid while the input stays where it is.
struct Input {
  // cols: a multiple of fabric::kCodePadding.
  Input(uint32_t tokens, uint32_t cols, fabric::ActivationKind kind)
      : values(size_t{tokens} * cols), codes(values.size()) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (float& v : values) v = normal(random);
    const bool blocks = kind == fabric::ActivationKind::kInt8Block;
    const size_t per_token = blocks ? cols / fabric::kActivationBlock : 1;
    scales.resize(tokens * per_token);
    sums.resize(tokens * per_token);
    for (size_t t = 0; t < tokens; ++t) {
      const auto quantize = blocks ? fabric::QuantizeBlocks : fabric::QuantizeToken;
      quantize(values.data() + t * cols, cols, cols, codes.data() + t * cols,
               scales.data() + t * per_token, sums.data() + t * per_token);
    }
    view = {.kind = kind,
            .tokens = tokens,
            .cols = cols,
            .values = values.data(),
            .value_stride = cols,
            .codes = codes.data(),
            .code_stride = cols,
            .scales = scales.data(),
            .scale_stride = per_token,
            .sums = sums.data()};
  }
  Input(const Input&) = delete;
  Input& operator=(const Input&) = delete;

  std::vector<float> values;    // [tokens, cols]
  std::vector<int8_t> codes;    // [tokens, cols]
  std::vector<float> scales;    // [tokens, scales per token]
  std::vector<int32_t> sums;    // as scales
  fabric::ActivationView view;  // kind may be changed to kFloat
};

}  // namespace bench
