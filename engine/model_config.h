#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/engine_options.h"
#include "engine/hadamard.h"
#include "gguf/reader.h"

namespace engine {

enum class FfnActivation : uint8_t { kSilu, kReluSquared, kGelu };
enum class RopeKind : uint8_t { kNorm, kNeox };
enum class RopeScaling : uint8_t { kNone, kLinear, kYarn };

// What a layer does between its two norms, and how.
struct LayerKind {
  bool recurrent = false;  // Gated DeltaNet; otherwise softmax attention
  bool rope = true;        // attention: queries and keys are rotated
  bool windowed = false;   // attention: sees sliding_window positions, its own included
};

// Gated DeltaNet (engine/delta_net.h).
struct DeltaNetShape {
  uint32_t key_heads = 0;
  uint32_t value_heads = 0;  // a multiple of key_heads
  uint32_t key_dim = 0;
  uint32_t value_dim = 0;
  uint32_t kernel = 0;  // taps of the convolution

  uint32_t key_width() const { return key_heads * key_dim; }
  uint32_t value_width() const { return value_heads * value_dim; }
  uint32_t channels() const { return 2 * key_width() + value_width(); }
};

// Mixture of experts (engine/experts.h).
struct ExpertShape {
  uint32_t count = 0;  // 0: the model is dense
  uint32_t used = 0;   // per token
  uint32_t ffn = 0;
  std::vector<float> clamp;  // by layer, of gate and up
};

// Hyperparameters of a decoder-only transformer, read from metadata and validated.
struct ModelConfig {
  std::string architecture;  // "bitnet-b1.58", "bitnet-25", "bitnet", "llama", ...
  std::string name;          // general.name, or the architecture
  uint32_t layers = 0;
  uint32_t hidden = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  uint32_t score_dim = 0;  // attention scores are divided by its square root; 0 = head_dim
  uint32_t ffn = 0;
  uint32_t vocabulary = 0;
  uint32_t context_length = 0;  // that the model was trained for
  float norm_eps = 1e-5F;
  FfnActivation activation = FfnActivation::kSilu;
  RopeKind rope = RopeKind::kNorm;
  uint32_t rope_dim = 0;
  double rope_base = 10000.0;
  double window_rope_base = 0.0;  // of windowed layers, unscaled; 0 = as the others
  RopeScaling rope_scaling = RopeScaling::kNone;
  double rope_scaling_factor = 1.0;
  uint32_t rope_original_context = 0;  // YaRN
  double rope_attention_factor = 0.0;  // YaRN; 0 = from the factor
  double rope_beta_fast = 32.0;        // YaRN: rotations over the original context above which a
  double rope_beta_slow = 1.0;         // frequency is kept, and below which it is interpolated
  bool attention_sub_norm = false;
  bool ffn_sub_norm = false;
  bool qk_norm = false;
  bool input_norms = false;  // every projection has a norm of its own before it
  bool post_norms = false;   // what a block adds to the residual stream is normalised
  float embedding_scale = 1.0F;
  bool qkv_bias = false;
  bool gated_attention = false;        // each query head is followed by a gate of its output
  uint32_t sliding_window = 0;         // of windowed layers
  std::vector<LayerKind> layer_kinds;  // [layers]
  DeltaNetShape delta_net;             // of recurrent layers
  ExpertShape experts;
  HadamardRotation hadamard;
  uint32_t ignored_layers = 0;  // blocks after `layers` that only draft (multi-token prediction)
  bool tied_head = false;
  Pooling pooling = Pooling::kLast;  // of embeddings
  // Resolved from the model when the user left it to auto: bitnet*, and files whose ternary tensors
  // have one scale per tensor, were trained with int8 per token.
  ActivationMode ternary_activation = ActivationMode::kToken;

  uint32_t query_width() const { return heads * head_dim; }
  uint32_t kv_width() const { return kv_heads * head_dim; }
  // Layers with keys and values; the others keep a recurrent state.
  uint32_t attention_layers() const;
  bool recurrent() const { return attention_layers() < layers; }

  // Errors: ModelError naming the key, what was expected and found.
  static ModelConfig FromGguf(const gguf::File& file, const EngineOptions& options);
};

}  // namespace engine
