#pragma once

#include <cstdint>
#include <span>

#include "engine/batch.h"
#include "engine/model_config.h"
#include "engine/projection_input.h"
#include "engine/weights.h"
#include "fabric/aligned_buffer.h"
#include "fabric/device.h"

namespace engine {

// Final norm and LM head for a bounded number of positions at a time, so that positions x
// vocabulary never exist at once.
//
// Threads: one thread at a time.
class Head {
 public:
  // References outlive the head. max_tokens: of the engine's steps.
  Head(const ModelConfig& config, const Weights& weights, fabric::Device& device,
       uint32_t max_tokens);

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

  size_t workspace_bytes() const;

 private:
  const ModelConfig& config_;
  const Weights& weights_;
  fabric::Device& device_;
  uint32_t capacity_;
  ActivationKinds kinds_;
  ProjectionInput input_;
  fabric::AlignedBuffer<float> normed_;  // [capacity, hidden]
  fabric::AlignedBuffer<float> logits_;  // [capacity, vocabulary]
};

}  // namespace engine
