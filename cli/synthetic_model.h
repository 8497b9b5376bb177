#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/types.h"

namespace cli {

// The dimensions of a synthetic model (docs/cli.md lists the named ones).
struct SyntheticShape {
  std::string_view name;
  uint32_t layers = 0;
  uint32_t hidden = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t ffn = 0;
  uint32_t vocabulary = 0;
  uint32_t context_length = 0;
  double rope_base = 10000.0;

  uint32_t head_dim() const { return hidden / heads; }
};

// Errors: UsageError listing the known names.
const SyntheticShape& FindShape(const std::string& name);
// "2b, 700m, ..." for help.
std::string ShapeNames();

struct SyntheticOptions {
  SyntheticShape shape;
  gguf::TensorType type = gguf::TensorType::kI2_S;
  gguf::TensorType embedding_type = gguf::TensorType::kF16;
  std::string vocabulary_file;  // GGUF to copy the tokenizer from; empty = a synthetic one
  double zero_rate = 0.42;      // that of BitNet-b1.58-2B-4T
  uint64_t seed = 1;
};

// Writes a bitnet-b1.58 model with random ternary weights and a tied head. The bytes depend on the
// options only. One tensor at a time is in memory.
// Errors: gguf::FormatError.
void WriteSyntheticModel(const SyntheticOptions& options, const std::string& path);

}  // namespace cli
