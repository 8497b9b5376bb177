#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/model_config.h"

namespace engine {

// Cosines and sines of rotary position embedding, with linear, YaRN (Peng et al. 2023) or
// per-frequency scaling (rope_freqs.weight of Llama 3).
//
// Bits:    computed in double from portable_math.h and rounded once, so equal on every machine.
// Threads: immutable; const calls from any thread.
class RopeTable {
 public:
  // factors: [rope_dim / 2], each divides one frequency; empty = all ones.
  RopeTable(const ModelConfig& config, std::span<const float> factors);

  uint32_t pairs() const { return static_cast<uint32_t>(frequencies_.size()); }
  // cosines, sines: [pairs()].
  void Fill(uint32_t position, float* cosines, float* sines) const;

 private:
  std::vector<double> frequencies_;  // radians per position
  double magnitude_ = 1.0;           // YaRN scales cosine and sine, so that softmax stays as sharp
};

}  // namespace engine
