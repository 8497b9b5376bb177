#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/adapter_scale.h"
#include "engine/engine_options.h"
#include "fabric/device.h"

namespace engine {

struct ModelConfig;
struct Weights;

// The low-rank factors of one projection: W x becomes W x + factor * B (A x).
struct LoraPair {
  fabric::MatrixId a;  // [rank, cols]
  fabric::MatrixId b;  // [rows, rank]
  uint32_t rank = 0;
  uint32_t cols = 0;
  float factor = 1;  // alpha / rank
};

// A LoRA adapter (Hu et al. 2021) whose matrices live on the model's device.
//
// Both factors take float inputs, the projection's input before it is quantised or rotated.
struct LoraAdapter {
  std::string name;           // the file's name without ".gguf"
  std::string path;           // as it was given
  std::string task_name;      // adapter.lora.task_name, or empty
  std::string prompt_prefix;  // adapter.lora.prompt_prefix, or empty
  float scale = 1;            // for sequences that do not say
  uint64_t resident_bytes = 0;
  std::vector<int32_t> pair_of_linear;  // by Linear::index: into pairs, or -1
  std::vector<LoraPair> pairs;

  // nullptr when the adapter leaves the projection alone.
  const LoraPair* Find(uint32_t linear) const {
    const int32_t pair = linear < pair_of_linear.size() ? pair_of_linear[linear] : -1;
    return pair < 0 ? nullptr : &pairs[static_cast<size_t>(pair)];
  }
};

// Loads a GGUF adapter (general.type = adapter, adapter.type = lora, tensors <projection>.lora_a
// and .lora_b) and checks it against the model.
// Ownership: the matrices belong to the device, as the model's own.
// Errors:    ModelError, gguf::FormatError; what was uploaded by then is freed again.
LoraAdapter LoadLora(const LoraSource& source, const ModelConfig& config, const Weights& weights,
                     fabric::Device& device);

// What a sequence that does not say gets: every adapter at its own scale, but those at zero.
std::vector<AdapterScale> DefaultAdapters(const Weights& weights);

}  // namespace engine
