#include "engine/rope.h"

#include <algorithm>
#include <cmath>

#include "engine/portable_math.h"

namespace engine {
namespace {

constexpr double kTwoPi = 6.283185307179586;

// The pair whose frequency turns `rotations` times within `context` positions, as a real number.
double PairOfRotations(const ModelConfig& config, double rotations) {
  return config.rope_dim * PortableLog(config.rope_original_context / (rotations * kTwoPi)) /
         (2.0 * PortableLog(config.rope_base));
}

// 1 for frequencies that are kept, 0 for those that are interpolated, linear between.
double YarnKeep(double pair, double low, double high) {
  const double ramp = (pair - low) / std::max(0.001, high - low);
  return 1.0 - std::clamp(ramp, 0.0, 1.0);
}

}  // namespace

RopeTable::RopeTable(const ModelConfig& config, std::span<const float> factors) {
  frequencies_.resize(config.rope_dim / 2);
  const double log_base = PortableLog(config.rope_base);
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    frequencies_[i] = PortableExp(-2.0 * static_cast<double>(i) / config.rope_dim * log_base);
    if (!factors.empty()) frequencies_[i] /= static_cast<double>(factors[i]);
  }
  if (config.rope_scaling == RopeScaling::kLinear) {
    for (double& frequency : frequencies_) frequency /= config.rope_scaling_factor;
  }
  if (config.rope_scaling != RopeScaling::kYarn) return;
  const double low = std::max(0.0, std::floor(PairOfRotations(config, config.rope_beta_fast)));
  const double high =
      std::min(config.rope_dim - 1.0, std::ceil(PairOfRotations(config, config.rope_beta_slow)));
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    const double keep = YarnKeep(static_cast<double>(i), low, high);
    const double interpolated = frequencies_[i] / config.rope_scaling_factor;
    frequencies_[i] = interpolated * (1.0 - keep) + frequencies_[i] * keep;
  }
  const double attention_factor =
      config.rope_attention_factor > 0.0 ? config.rope_attention_factor : 1.0;
  magnitude_ = attention_factor * (1.0 + 0.1 * PortableLog(config.rope_scaling_factor));
}

void RopeTable::Fill(uint32_t position, float* cosines, float* sines) const {
  for (size_t i = 0; i < frequencies_.size(); ++i) {
    double sine = 0.0;
    double cosine = 0.0;
    PortableSinCos(static_cast<double>(position) * frequencies_[i], &sine, &cosine);
    cosines[i] = static_cast<float>(cosine * magnitude_);
    sines[i] = static_cast<float>(sine * magnitude_);
  }
}

}  // namespace engine
