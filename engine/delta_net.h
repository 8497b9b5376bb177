#pragma once

#include <cstdint>

#include "engine/model_config.h"
#include "engine/projector.h"
#include "engine/state_cache.h"
#include "engine/step_rows.h"
#include "engine/weights.h"
#include "fabric/aligned_buffer.h"
#include "fabric/worker_team.h"

namespace engine {

// A Gated DeltaNet layer (Yang, Kautz, Hatamizadeh 2024) as Qwen3.5 has it. For each token, with
// h its normed input and all of it per value head but the convolution:
//
//   q, k, v = silu(conv(Wqkv h));   q = q / |q| / sqrt(dk);   k = k / |k|
//   g = exp(a * softplus(Walpha h + dt));   b = sigmoid(Wbeta h)
//   S = g S;   S = S + k (b (v - S' k))';   o = S' q
//   x = x + Wout (N(o) * silu(Wz h))
//
// Bits:    tokens of a row go one after another in a fixed order, so rows may be cut anywhere.
// Threads: one thread at a time; heads and tokens are spread over `team`.
class DeltaNet {
 public:
  // References outlive the object.
  DeltaNet(const ModelConfig& config, fabric::WorkerTeam& team, StateCache& states,
           Projector& projector, uint32_t max_tokens);

  // Adds the layer's output to residual, [tokens, hidden]. `normed` is scratch of that size.
  // recurrent_index: of the layer among the recurrent ones. Reads the rows' states and writes the
  // halves that StateCache::Commit() makes theirs; may be repeated before that.
  fabric::Status Run(const LayerWeights& layer, uint32_t recurrent_index, float* residual,
                     float* normed, StepRows* rows, StepStats* stats) noexcept;

  size_t workspace_bytes() const;

 private:
  using Floats = fabric::AlignedBuffer<float>;

  void Gates(const DeltaNetWeights& weights, uint32_t token);
  void Convolve(const DeltaNetWeights& weights, uint32_t recurrent_index, const StepRows& rows,
                uint32_t token);
  void KeepHistory(uint32_t recurrent_index, const StepRows& rows, size_t row);
  void Recur(const DeltaNetWeights& weights, uint32_t recurrent_index, const StepRows& rows,
             size_t row, uint32_t head);

  const ModelConfig& config_;
  const DeltaNetShape& shape_;
  fabric::WorkerTeam& team_;
  StateCache& states_;
  Projector& projector_;
  Floats mixed_;      // [tokens, channels]: Wqkv h
  Floats convolved_;  // [tokens, channels]: q, k and v
  Floats gate_;       // [tokens, value_width]: Wz h, then N(o) * silu of it
  Floats decay_;      // [tokens, value_heads]: Walpha h, then g
  Floats beta_;       // [tokens, value_heads]: Wbeta h, then b
  Floats out_;        // [tokens, value_width]: o, then what Wout reads
};

}  // namespace engine
