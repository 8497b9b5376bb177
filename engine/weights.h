#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/engine_options.h"
#include "engine/lora.h"
#include "engine/model_config.h"
#include "engine/packed_cache.h"
#include "fabric/aligned_buffer.h"
#include "fabric/device.h"
#include "fabric/row_screen.h"
#include "gguf/reader.h"

namespace engine {

// A projection that lives on the device, and the precision in which it takes its input.
struct Linear {
  fabric::MatrixId matrix;
  fabric::ActivationKind activation = fabric::ActivationKind::kFloat;
  uint32_t rows = 0;
  uint32_t cols = 0;
  uint32_t index = kNoIndex;          // into Weights::linears
  bool rotated = false;               // takes HadamardRotation::Apply() of its input
  fabric::AlignedBuffer<float> bias;  // [rows] or empty

  static constexpr uint32_t kNoIndex = UINT32_MAX;
  bool present() const { return matrix.generation != 0; }
};

using Vector = fabric::AlignedBuffer<float>;

// Of a Gated DeltaNet layer (engine/delta_net.h).
struct DeltaNetWeights {
  Linear qkv;          // [channels, hidden]
  Linear gate;         // [value_width, hidden]
  Linear alpha, beta;  // [value_heads, hidden]
  Vector convolution;  // [kernel, channels]: the file's, transposed
  Vector ones;         // [channels]
  Vector a;            // [value_heads], not positive
  Vector dt_bias;      // [value_heads]
  Vector state_norm;   // [value_dim]
  Linear output;       // [hidden, value_width]
};

// Of a mixture of experts (engine/experts.h); by expert.
struct ExpertWeights {
  Linear router;                 // [experts, hidden]
  std::vector<Linear> gate, up;  // [expert ffn, hidden]
  std::vector<Linear> down;      // [hidden, expert ffn]
};

struct LayerWeights {
  Vector attention_norm;                       // [hidden]
  std::unique_ptr<DeltaNetWeights> delta_net;  // instead of query ... attention_output
  // Of ModelConfig::input_norms, else empty: between attention_norm or ffn_norm and one projection.
  Vector query_input_norm, key_input_norm, value_input_norm;  // [hidden]
  Vector gate_input_norm, up_input_norm;                      // [hidden]
  Linear query, key, value;                // [query_width (twice when gated) | kv_width, hidden]
  Vector query_norm, key_norm;             // [head_dim], empty when the model has none
  Vector attention_sub_norm;               // [query_width] or empty
  Linear attention_output;                 // [hidden, query_width]
  Vector attention_post_norm;              // [hidden] or empty
  Vector ffn_norm;                         // [hidden]
  std::unique_ptr<ExpertWeights> experts;  // instead of gate ... down
  Linear gate, up;                         // [ffn, hidden]
  Vector ffn_sub_norm;                     // [ffn] or empty
  Linear down;                             // [hidden, ffn]
  Vector ffn_post_norm;                    // [hidden] or empty
};

// The projections by name, for what is laid over them.
struct LinearInfo {
  std::string name;  // of the tensor
  uint32_t rows = 0;
  uint32_t cols = 0;
};

// What a tensor became, for `tern inspect` and the load log.
struct TensorPlacement {
  std::string name;
  std::string file_type;   // "I2_S"
  std::string layout;      // "panel-2bit", "sparse", "f16", ...
  std::string activation;  // "int8 per token", "float", ...
  uint64_t rows = 0;
  uint64_t cols = 0;
  uint64_t file_bytes = 0;
  uint64_t resident_bytes = 0;
  double zero_rate = 0;  // of trits, over all planes; 0 for dense tensors
  bool on_fabric = false;
  uint32_t planes = 0;     // of trits: 1 of ternary tensors; 0 when it has none
  double plane_error = 0;  // estimated (fabric::PlaneChoice::error); the largest of a stack
  std::string reason;      // why it runs where it does; empty for vectors
  std::vector<fabric::MatrixId> matrices;  // several of a stack; none of an embedding or vector
};

// A matrix of floats or of small integers that the host and the device may share.
struct SharedMatrix {
  std::shared_ptr<const fabric::DenseMatrix> dense;          // either this
  std::shared_ptr<const fabric::QuantizedMatrix> quantized;  // or this

  fabric::ActivationKind activation() const {
    return dense != nullptr ? fabric::ActivationKind::kFloat : fabric::ActivationKind::kInt8Block;
  }
  fabric::Matrix AsMatrix() const {
    return dense != nullptr ? fabric::Matrix(dense) : fabric::Matrix(quantized);
  }
  size_t bytes() const { return dense != nullptr ? dense->bytes() : quantized->bytes(); }
  void GetRow(uint32_t row, std::span<float> out) const {
    dense != nullptr ? dense->GetRow(row, out) : quantized->GetRow(row, out);
  }
};

// The one place where a GGUF tensor becomes a fabric matrix.
struct Weights {
  SharedMatrix embedding;  // [vocabulary, hidden]; the head's own when tied
  std::vector<LayerWeights> layers;
  Vector output_norm;        // [hidden]
  Linear head;               // [vocabulary, hidden]
  SharedMatrix head_matrix;  // what `head` is on the device; neither part when it is ternary
  // Of head_matrix, for the mode that was asked for if it can be used; else null.
  std::shared_ptr<const fabric::RowSketch> head_sketch;
  HeadMode head_sketch_mode = HeadMode::kFull;
  double head_sketch_seconds = 0;     // that it took
  Vector rope_factors;                // [rope_dim / 2] from rope_freqs.weight, or empty
  std::vector<LinearInfo> linears;    // by Linear::index
  std::vector<LoraAdapter> adapters;  // see engine/lora.h
  std::vector<TensorPlacement> placements;
  std::string layout_reason;    // why ternary matrices have their layouts; empty without any
  uint64_t resident_bytes = 0;  // in memory, with what a bounded pool takes beside the rest
};

// Checks every tensor's shape against `config`, repacks and uploads them, in parallel within each
// tensor. Nothing keeps a view of the file.
//
// Scales that agree collapse (engine/packer.h), so the same trits and scales give the same matrix
// from every file format. `.scale` tensors are folded in. A tensor that this engine does not know
// is refused, for without it the model's output would be fluent nonsense.
//
// options: of placement, which matrices go to the Fabric, and as how many planes (see
// TensorPlacement::reason); head. cache: where packed weights are, or are kept.
//
// Ownership: the matrices belong to the device and go with it: a runtime has a device of its own.
// progress: called with the fraction done, 0..1, on the calling thread.
// Errors:   ModelError, gguf::FormatError, PackedCacheError; what was uploaded by then is freed
// again.
Weights LoadWeights(const gguf::File& file, const ModelConfig& config, fabric::Device& device,
                    const EngineOptions& options, PackedCache& cache,
                    const std::function<void(double)>& progress = {});

}  // namespace engine
