#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/kv_geometry.h"

namespace engine {

// Precision of activations that enter ternary projections. Follows the model, never the storage
// format, unless the user says otherwise (docs/decisions.md).
enum class ActivationMode : uint8_t { kAuto, kToken, kBlock, kFloat };

// How the LM head is computed.
enum class HeadMode : uint8_t { kFull };

// A LoRA adapter to load with the model.
struct LoraSource {
  std::string path;
  float scale = 1;  // for sequences that do not say
};

struct EngineOptions {
  ActivationMode activation = ActivationMode::kAuto;
  HeadMode head = HeadMode::kFull;
  KvType kv_type = KvType::kF16;
  uint32_t kv_block_size = 16;      // tokens per block, multiple of 16
  uint64_t kv_bytes = 0;            // size of the KV pool; 0 = from the machine's free memory
  uint32_t context_length = 0;      // longest sequence; 0 = the model's own
  uint32_t max_batch_tokens = 512;  // rows of the activation workspace
  uint32_t max_sequences = 64;      // slots for recurrent states, if the model has them
  std::string i2s_layout = "x86";   // x86 | arm64 | interleaved4
  std::vector<LoraSource> lora;     // in the order of their ids
};

}  // namespace engine
