#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/batch.h"
#include "engine/engine_options.h"
#include "engine/model_config.h"
#include "engine/projection_input.h"
#include "engine/weights.h"
#include "fabric/aligned_buffer.h"
#include "fabric/device.h"
#include "fabric/row_screen.h"
#include "fabric/worker_team.h"

namespace engine {

// How rows that need only the best few logits can be computed: as asked, but kFull where the matrix
// has a bias, is ternary, too small to be worth it or, for kStrict, not of two planes.
HeadMode UsableHeadMode(const Weights& weights, const EngineOptions& options);

// Final norm and LM head for a bounded number of positions at a time, so that positions x
// vocabulary never exist at once.
//
// Rows that need only the best few logits can be screened (fabric/row_screen.h): a sketch of the
// head rules out most of the vocabulary, and the rest is computed exactly. With HeadMode::kStrict
// the candidates are those of the full logits, bit for bit, ties included; with kScreened they are
// but for a chance whose size docs/kernels.md has. What is computed in full then depends on the
// position alone, so a token's bits do not depend on its batch in either mode.
//
// Threads: one thread at a time.
class Head {
 public:
  // References outlive the head.
  Head(const ModelConfig& config, const Weights& weights, const EngineOptions& options,
       fabric::Device& device, fabric::WorkerTeam& team);

  // Positions that one Compute() takes.
  uint32_t capacity() const { return capacity_; }

  // hidden: [hidden] of the residual stream; out: [hidden]; may be the same.
  void FinalNorm(const float* hidden, float* out) const noexcept;

  // Logits of the positions whose residual streams are given. May be repeated when it fails.
  // REQUIRES: hidden.size() <= capacity(); all values finite.
  fabric::Status Compute(std::span<const float* const> hidden) noexcept;
  // [vocabulary] of the i-th position; valid until the next Compute().
  std::span<float> Logits(size_t i) {
    return {logits_.data() + i * config_.vocabulary, config_.vocabulary};
  }

  // UsableHeadMode().
  HeadMode mode() const { return mode_; }
  // Whether it is now worth a sketch of so many positions, all of which need only candidates. With
  // kScreened always, up to capacity(); with kStrict too many rows left over make it pause for a
  // while.
  bool WantsScreen(size_t positions);
  // Sketches the logits of the positions; FindBest() may then be called for each.
  // REQUIRES: WantsScreen(hidden.size()).
  void Screen(std::span<const float* const> hidden) noexcept;
  // The best candidates of the i-th position as SelectBest() finds them in the full logits. False
  // when they must be computed after all: the sketch leaves too many rows, its guard trips, some
  // value is not finite, the mask allows too few tokens, or the query has a bias.
  bool FindBest(size_t i, const HeadQuery& query, std::span<Candidate> out, StepStats* stats);

  // Of one Screen().
  size_t sketch_bytes() const { return screen_->sketch_bytes(); }

  size_t workspace_bytes() const;

 private:
  void Encode(std::span<const float* const> hidden) noexcept;
  bool CollectRows(size_t i, const HeadQuery& query, float least);
  bool RefineRows(size_t i, StepStats* stats);

  const ModelConfig& config_;
  const Weights& weights_;
  fabric::Device& device_;
  uint32_t capacity_;
  ActivationKinds kinds_;
  ProjectionInput input_;
  fabric::AlignedBuffer<float> normed_;  // [capacity, hidden]
  fabric::AlignedBuffer<float> logits_;  // [capacity, vocabulary]

  std::unique_ptr<fabric::RowScreen> screen_;
  HeadMode mode_;
  uint32_t pause_ = 0;         // positions to compute in full before the next sketch
  uint32_t pause_length_ = 0;  // of the last pause; 0 after a success
  std::vector<Candidate> seeds_;
  std::vector<Candidate> found_;  // exact logits
  std::vector<uint32_t> rows_;    // to be refined
  std::vector<float> refined_;
};

}  // namespace engine
