#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/quantize/calibration.h"
#include "gguf/codec.h"
#include "gguf/reader.h"

namespace engine::quantize {

// How many weights share a scale when floats become trits.
enum class Granularity : uint8_t {
  kAuto,  // the finest that the target type holds
  kTensor,
  kRow,
  kGroup,
};

// Tensors whose name matches `glob` (* any characters, ? one) become `type`; std::nullopt leaves
// them as they are.
struct TensorRule {
  std::string glob;
  std::optional<gguf::TensorType> type;
};

struct QuantizeOptions {
  gguf::TensorType type = gguf::TensorType::kI2_S;  // of the projections
  std::optional<gguf::TensorType> embeddings = {};  // token_embd.weight; std::nullopt keeps it
  std::optional<gguf::TensorType> head = {};        // output.weight; std::nullopt keeps it
  std::vector<TensorRule> rules = {};               // over all of the above; the last match counts
  // For a tensor whose shape the wanted type does not fit; std::nullopt refuses the file.
  std::optional<gguf::TensorType> fallback = {};
  CalibrationOptions calibration = {};
  Granularity granularity = Granularity::kAuto;
  uint32_t group = 0;                 // columns per scale for Granularity::kGroup
  bool recalibrate = false;           // also floats that are exactly ternary already
  bool allow_scale_rounding = false;  // repack into a type that cannot hold the scales exactly
};

// Which weights share a scale.
struct ScaleRanges {
  gguf::ScaleLayout layout = gguf::ScaleLayout::kTensor;
  uint64_t group = 0;  // columns per scale for kGroup

  uint64_t PerRow(uint64_t cols) const {
    return layout == gguf::ScaleLayout::kGroup ? (cols + group - 1) / group : 1;
  }
};

struct PlannedTensor {
  const gguf::TensorInfo* source = nullptr;  // of the file
  gguf::TensorType target = gguf::TensorType::kF32;
  bool copy = false;        // the bytes stay as they are
  bool repack = false;      // trits to trits
  ScaleRanges ranges = {};  // for floats that become trits
  bool fallback = false;    // the wanted type did not fit
};

// What becomes of each tensor of `file`, in the order of the file.
//
// Projections are the matrices blk.N.*.weight but for those that stay in high precision in every
// model (norms, expert routers, the small state-space matrices). Everything that no option names is
// kept.
// Lifetime: views `file`.
// Errors: QuantizeError for a type that does not fit a tensor or cannot hold the granularity, for a
// rule that matches nothing, and when there is no projection.
std::vector<PlannedTensor> PlanTensors(const gguf::File& file, const QuantizeOptions& options);

// general.file_type of a model whose projections are of `type`, as the field's runtimes number
// them; std::nullopt when they have no number for it.
std::optional<uint32_t> FileTypeOf(gguf::TensorType type);

}  // namespace engine::quantize
