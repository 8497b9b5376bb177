#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model_config.h"
#include "engine/projection_input.h"
#include "engine/projector.h"
#include "engine/step_rows.h"
#include "engine/weights.h"
#include "fabric/aligned_buffer.h"
#include "fabric/device.h"
#include "fabric/worker_team.h"

namespace engine {

// The mixture-of-experts feed-forward of a layer. For each token, with h its normed input:
//
//   p = softmax(Wr h);   E = the `used` most probable experts (of equals the lowest id)
//   x = x + sum over e in E of p_e / sum(p_E) * Wdown_e (silu(min(Wgate_e h, c)) * clip(Wup_e h,
//   c))
//
// Tokens are brought together by expert, so that a step reads each expert that it uses once.
//
// Bits:    a token adds up its experts in ascending order of id, whoever else uses them.
// Threads: one thread at a time; tokens are spread over `team`.
class Experts {
 public:
  // References outlive the object.
  Experts(const ModelConfig& config, const Weights& weights, fabric::WorkerTeam& team,
          Projector& projector, uint32_t max_tokens);

  // Adds the layer's output to residual, [tokens, hidden]. `normed` is scratch of that size.
  fabric::Status Run(uint32_t layer_index, float* residual, float* normed, StepRows* rows,
                     StepStats* stats) noexcept;

  size_t workspace_bytes() const;

 private:
  using Floats = fabric::AlignedBuffer<float>;
  // A token at one of its experts.
  struct Visit {
    uint32_t token = 0;
    uint32_t expert = 0;
    float weight = 0;
  };
  // Consecutive visits of one expert.
  struct Group {
    uint32_t expert = 0;
    uint32_t first = 0;
    uint32_t count = 0;
  };

  void Route(uint32_t token, StepRows* rows);
  void GroupVisits(uint32_t tokens);
  // values: [visits, cols]; encoded, and one view per group for the linears of that kind.
  void Encode(const float* values, uint32_t cols, fabric::ActivationKind kind, StepRows* rows);

  const ModelConfig& config_;
  const Weights& weights_;
  fabric::WorkerTeam& team_;
  Projector& projector_;
  ProjectionInput input_;
  Floats router_;                      // [tokens, experts]: logits, then exp of them
  Floats gathered_;                    // [visits, hidden]
  Floats gate_;                        // [visits, expert ffn]
  Floats up_;                          // [visits, expert ffn]
  Floats down_;                        // [visits, hidden]
  Floats sum_;                         // [tokens, hidden]
  std::vector<Visit> chosen_;          // [tokens, used], ascending experts of each token
  std::vector<Visit> visits_;          // ordered by expert, then token
  std::vector<uint32_t> visit_of_;     // [tokens, used]: into visits_
  std::vector<uint8_t> not_finite_;    // by visit; a byte each, so that threads never share one
  std::vector<uint32_t> group_begin_;  // [experts + 1]
  std::vector<Group> groups_;
  std::vector<fabric::ActivationView> views_;  // by group
  std::vector<fabric::ProjectionOp> ops_;
};

}  // namespace engine
