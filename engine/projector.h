#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "engine/model_config.h"
#include "engine/projection_input.h"
#include "engine/step_rows.h"
#include "engine/weights.h"
#include "fabric/aligned_buffer.h"
#include "fabric/device.h"
#include "fabric/worker_team.h"

namespace engine {

// One projection of the tokens that were encoded last.
struct Projection {
  const Linear* linear = nullptr;
  float* y = nullptr;  // [tokens, linear->rows]
  bool add = false;    // y += instead of y =
};

// Runs a model's projections for the tokens of a step: norm and encoding of their input, the
// device, and what LoRA adapters add for the rows that have them.
//
// Bits:    a token's results depend on its input and its own adapters only. Adapters add in
//          ascending order, after the projection itself.
// Cost:    without adapters in the step, none but the projections themselves.
// Memory:  allocated by the constructor. Threads: one thread at a time; spreads over `team`.
class Projector {
 public:
  // References outlive the projector. widest: the most input columns of a projection.
  Projector(const ModelConfig& config, const Weights& weights, fabric::Device& device,
            fabric::WorkerTeam& team, uint32_t max_tokens, uint32_t widest);

  // Notes which tokens have which adapters. Once per run, before the rest.
  void BeginRun(const StepRows& rows);

  // buffer[t] = norm(source[t]) (an empty norm copies nothing: source is then buffer), encoded for
  // the linears that read it, and rotated once for those that want it so. buffer: [tokens, cols],
  // untouched until they are done. Marks tokens that are not finite.
  void Encode(const float* source, const Vector& norm, float* buffer, uint32_t cols,
              std::initializer_list<const Linear*> readers, StepRows* rows);

  // REQUIRES: every linear was among the readers of the last Encode(); at most kMaxGroup.
  fabric::Status Project(std::span<const Projection> projections, StepStats* stats) noexcept;
  // gate[t] = act(Wgate x) * (Wup x), gate: [tokens, ffn].
  fabric::Status ProjectGated(const Linear& gate_linear, const Linear& up_linear, float* gate,
                              StepStats* stats) noexcept;

  // gate[t] = act(gate[t]) * (Wup x), where the gate's projection had another input.
  // REQUIRES: ModelConfig::input_norms.
  fabric::Status ProjectOntoGate(const Linear& up_linear, float* gate, StepStats* stats) noexcept;

  // Runs ops of the caller's own on the device; their time counts as that of projections.
  fabric::Status Execute(std::span<const fabric::ProjectionOp> ops, StepStats* stats) noexcept;

  size_t workspace_bytes() const;

  static constexpr size_t kMaxGroup = 4;

 private:
  using Floats = fabric::AlignedBuffer<float>;
  struct AdaptedToken {
    uint32_t token = 0;
    float scale = 0;
  };

  fabric::ProjectionOp Op(const Linear& linear, float* y, fabric::Epilogue epilogue) const;
  bool Adapted(const Linear& linear) const;
  void Activate(uint32_t ffn, float* gate);
  fabric::Status AddAdapters(std::span<const Projection> projections, StepStats* stats) noexcept;
  fabric::Status AddAdapter(const LoraAdapter& adapter, std::span<const AdaptedToken> tokens,
                            std::span<const Projection> projections, StepStats* stats) noexcept;

  const ModelConfig& config_;
  const Weights& weights_;
  fabric::Device& device_;
  fabric::WorkerTeam& team_;
  ProjectionInput input_;
  ProjectionInput rotated_input_;  // of linears that take a rotated input
  Floats rotated_;                 // [tokens, widest] when there are some
  const float* values_ = nullptr;  // of the last Encode(): [tokens_, cols_]
  uint32_t tokens_ = 0;
  uint32_t cols_ = 0;

  // Of adapters; empty when the model has none.
  std::vector<std::vector<AdaptedToken>> adapted_;  // by adapter: tokens of this run
  bool any_adapted_ = false;
  Floats gathered_;  // [tokens, widest]: inputs of the adapted tokens
  Floats low_;       // [tokens, ranks]: A x of each projection of a group
  Floats delta_;     // [tokens, rows]: B A x of each projection of a group
  // [tokens, ffn]: where gate and up cannot be fused, for adapters or for norms between.
  Floats up_;
};

}  // namespace engine
