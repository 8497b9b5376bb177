#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/kv_geometry.h"
#include "engine/placement_options.h"
#include "engine/pooling.h"

namespace engine {

// Precision of activations that enter ternary projections. Follows the model, never the storage
// format, unless the user says otherwise (docs/decisions.md).
enum class ActivationMode : uint8_t { kAuto, kToken, kBlock, kFloat };

// How the LM head is computed for rows that need only the best few logits.
enum class HeadMode : uint8_t {
  kFull,      // all logits
  kStrict,    // a sketch of all, then those that its proven error bound cannot rule out: same bits
  kScreened,  // the same with a smaller sketch and a statistical bound (fabric/coarse_screen.h)
};
std::string_view HeadModeName(HeadMode mode);  // "full", "strict", "screened"

// A LoRA adapter to load with the model.
struct LoraSource {
  std::string path;
  float scale = 1;  // for sequences that do not say
};

struct EngineOptions {
  ActivationMode activation = ActivationMode::kAuto;
  HeadMode head = HeadMode::kStrict;
  // A head of fewer bytes is always computed in full: the caches hold it.
  uint64_t screened_head_bytes = uint64_t{32} << 20;
  KvType kv_type = KvType::kF16;
  uint32_t kv_block_size = 16;  // tokens per block, multiple of 16
  uint64_t kv_bytes = 0;        // size of the KV pool; 0 = from the machine's free memory
  uint64_t memory_share = 0;    // bytes: with kv_bytes 0 the pool takes no more than this leaves
                                // beside the weights; 0 = no bound
  uint32_t context_length = 0;  // longest sequence; 0 = the model's own
  // Sliding-window attention (engine/kv_geometry.h) where the model has no window of its own.
  uint32_t sliding_window = 0;       // 0 = a token sees all before it
  uint32_t attention_sinks = 4;      // first positions that stay in sight
  uint32_t max_batch_tokens = 512;   // rows of the activation workspace
  uint32_t max_sequences = 64;       // slots for recurrent states, if the model has them
  std::string i2s_layout = "x86";    // x86 | arm64 | interleaved4
  std::vector<LoraSource> lora;      // in the order of their ids
  std::optional<Pooling> pooling;    // of embeddings; nullopt = as the model says
  std::string packed_cache = "off";  // engine/packed_cache.h: off | beside | a folder
  PlacementOptions placement;        // of weights, on the Fabric or the host
};

}  // namespace engine
