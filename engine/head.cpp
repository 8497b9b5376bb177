#include "engine/head.h"

#include <algorithm>
#include <array>

#include "fabric/vector_ops.h"

namespace engine {
namespace {

// Logits that one pass over the head's matrix makes. More positions per pass save passes, but the
// buffer should not outgrow what a batch of decodes needs.
constexpr size_t kLogitBytes = size_t{16} << 20;
constexpr uint32_t kMinPositions = 8;
constexpr uint32_t kMaxPositions = 64;

uint32_t PositionsPerPass(uint32_t vocabulary, uint32_t max_tokens) {
  const auto fitting = static_cast<uint32_t>(kLogitBytes / (size_t{vocabulary} * sizeof(float)));
  return std::min(std::clamp(fitting, kMinPositions, kMaxPositions), max_tokens);
}

ActivationKinds KindOf(const Linear& linear) {
  ActivationKinds kinds;
  kinds.Add(linear.activation);
  return kinds;
}

}  // namespace

Head::Head(const ModelConfig& config, const Weights& weights, fabric::Device& device,
           uint32_t max_tokens)
    : config_(config),
      weights_(weights),
      device_(device),
      capacity_(PositionsPerPass(config.vocabulary, max_tokens)),
      kinds_(KindOf(weights.head)),
      input_(capacity_, config.hidden, kinds_),
      normed_(size_t{capacity_} * config.hidden),
      logits_(size_t{capacity_} * config.vocabulary) {}

void Head::FinalNorm(const float* hidden, float* out) const noexcept {
  fabric::RmsNorm(hidden, weights_.output_norm.data(), config_.norm_eps, config_.hidden, out);
}

fabric::Status Head::Compute(std::span<const float* const> hidden) noexcept {
  const auto positions = static_cast<uint32_t>(hidden.size());
  input_.Begin(normed_.data(), positions, config_.hidden, kinds_);
  for (uint32_t i = 0; i < positions; ++i) {
    float* normed = normed_.data() + size_t{i} * config_.hidden;
    FinalNorm(hidden[i], normed);
    if (weights_.head.rotated) config_.hadamard.Apply(normed, config_.hidden);
    input_.Encode(i);
  }
  const Linear& head = weights_.head;
  const std::array op = {
      fabric::ProjectionOp{.matrix = head.matrix,
                           .x = input_.View(head.activation),
                           .y = logits_.data(),
                           .y_stride = config_.vocabulary,
                           .bias = head.bias.empty() ? nullptr : head.bias.data(),
                           .epilogue = fabric::Epilogue::kStore}};
  return fabric::Execute(device_, op);
}

size_t Head::workspace_bytes() const {
  return (normed_.size() + logits_.size()) * sizeof(float) + input_.bytes();
}

}  // namespace engine
