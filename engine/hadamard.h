#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "gguf/reader.h"

namespace engine {

// Weights that were rotated offline (prism.hadamard.* metadata): a listed matrix W' expects the
// input H(s * x) where the original W expected x, and a listed embedding row z stands for s * (H
// z).
//
//   H     on each block of `block` elements: H[r][c] = (-1)^popcount(r & c) / sqrt(block)
//   s     one vector of signs per input width, or none
struct HadamardRotation {
  uint32_t block = 0;                            // 0: nothing is rotated
  std::map<uint32_t, std::vector<float>> signs;  // by width; empty: all ones
  std::set<std::string, std::less<>> weights;    // tensors whose input is rotated
  bool inverse_embedding = false;                // token_embd.weight holds rotated rows
  // Value heads enter ssm_out grouped by key head, where the rest of the file has them tiled.
  bool grouped_values = false;

  bool active() const { return block != 0; }
  bool Rotates(std::string_view tensor) const { return weights.contains(tensor); }
  // x' = H(s * x), in place. x: [width].
  void Apply(float* x, uint32_t width) const noexcept;
  // x = s * (H x'), in place; the inverse of Apply().
  void Invert(float* x, uint32_t width) const noexcept;

  // Errors: ModelError where the metadata is not understood or contradicts the tensors.
  static HadamardRotation FromGguf(const gguf::File& file);

 private:
  const float* SignsOf(uint32_t width) const noexcept;
};

}  // namespace engine
