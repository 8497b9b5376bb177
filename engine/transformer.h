#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/attention.h"
#include "engine/delta_net.h"
#include "engine/experts.h"
#include "engine/kv_cache.h"
#include "engine/model_config.h"
#include "engine/projector.h"
#include "engine/rope.h"
#include "engine/state_cache.h"
#include "engine/step_rows.h"
#include "engine/weights.h"
#include "fabric/aligned_buffer.h"
#include "fabric/device.h"
#include "fabric/worker_team.h"

namespace engine {

// The layers of a decoder-only transformer, from token ids to the residual stream after the last
// layer. For every layer, with N the RMS norm and the sub-norms where the model has them (recurrent
// layers and mixtures of experts: engine/delta_net.h, engine/experts.h):
//
//   h = N(x);      q, k, v = Wq h, Wk h, Wv h;      rotate q and k; store k and v
//   x = x + Wo N'(attention(q, K, V))
//   h = N(x);      x = x + Wdown N'(act(Wgate h) * Wup h)
//
// With norms before projections (BitNet embedding) W h is W N_W(h) for each W of its own, with
// norms after blocks (Gemma) the sums are x + N''(...).
//
// Memory:  all activations for max_tokens are allocated by the constructor; Run() allocates
// nothing. Threads: one thread at a time; work on many tokens is spread over `team`.
class Transformer {
 public:
  // References outlive the transformer.
  Transformer(const ModelConfig& config, const Weights& weights, fabric::Device& device,
              fabric::WorkerTeam& team, KvCache& cache, StateCache& states, uint32_t max_tokens,
              uint32_t max_context);

  // Runs the batch's layers over the rows' tokens and writes their keys and values to the cache.
  // Sets rows->non_finite of tokens that met a NaN or an infinity; adds to the seconds and bytes of
  // *stats. On another status than kOk nothing but the rows' own cache positions has changed, so
  // the call may be repeated. Recurrent states are written beside those that were read; the caller
  // commits them.
  // REQUIRES: rows->size() <= max_tokens; ids below the vocabulary.
  fabric::Status Run(StepRows* rows, StepStats* stats) noexcept;

  // The residual stream of a token after the last layer, [hidden]; valid until the next Run().
  const float* Hidden(uint32_t token) const {
    return residual_.data() + size_t{token} * config_.hidden;
  }

  // One per layer, since the start. The head is none.
  std::span<const LayerActivity> layer_activities() const { return layer_activities_; }

  size_t workspace_bytes() const;

 private:
  using Floats = fabric::AlignedBuffer<float>;

  void Embed(const StepRows& rows);
  fabric::Status AttentionBlock(uint32_t index, StepRows* rows, StepStats* stats);
  fabric::Status ProjectHeads(const LayerWeights& layer, StepRows* rows, StepStats* stats);
  fabric::Status ProjectFfn(const LayerWeights& layer, StepRows* rows, StepStats* stats);
  void Normalise(const Vector& norm, const StepRows& rows);
  fabric::Status AddToResidual(const Linear& linear, const Vector& post_norm, const StepRows& rows,
                               StepStats* stats);
  size_t AnglesOf(uint32_t token, bool windowed) const;
  void SplitGates(uint32_t token);
  void GateAttended(const StepRows& rows);
  fabric::Status FeedForwardBlock(uint32_t index, StepRows* rows, StepStats* stats);
  void RotateAndStore(uint32_t index, const StepRows& rows);
  // Adds to the layer what the device has counted since *counted, which becomes now.
  void NoteActivity(uint32_t layer, fabric::DeviceCounters* counted) noexcept;

  const ModelConfig& config_;
  const Weights& weights_;
  const fabric::Device& device_;
  fabric::WorkerTeam& team_;
  KvCache& cache_;
  RopeTable rope_;
  std::unique_ptr<RopeTable> windowed_rope_;  // of windowed layers, where it is another
  Attention attention_;
  std::unique_ptr<Attention> windowed_;  // of layers with a sliding window
  Projector projector_;
  std::unique_ptr<DeltaNet> delta_net_;
  std::unique_ptr<Experts> experts_;
  std::vector<uint32_t> place_;  // of each layer among those of its kind: in the KV or state cache
  std::vector<LayerActivity> layer_activities_;
  Floats residual_;   // [tokens, hidden]
  Floats normed_;     // [tokens, hidden]
  Floats input_;      // [tokens, hidden] of one projection, where each has a norm of its own
  Floats query_;      // [tokens, query_width]
  Floats gated_;      // [tokens, 2 * query_width] where queries come with gates, then the gates
  Floats key_;        // [tokens, kv_width]
  Floats value_;      // [tokens, kv_width]
  Floats attended_;   // [tokens, query_width]
  Floats activated_;  // [tokens, ffn]: the gate, then act(gate) * up
  // [tokens, rope_dim / 2], or twice that: of windowed_rope_ after those of rope_.
  Floats cosines_;
  Floats sines_;
};

}  // namespace engine
