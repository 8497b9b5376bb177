#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace engine {

// How the hidden states of a text's tokens become one vector.
enum class Pooling : uint8_t {
  kMean,  // of all tokens
  kCls,   // the first token
  kLast,  // the last token, which alone has seen the whole text in a causal model
};

std::string_view PoolingName(Pooling pooling);  // "mean", "cls", "last"

// Takes the hidden states of one sequence in the order of its positions, in pieces of any size.
//
// Bits: sums are double and in the order of positions, so they do not depend on the pieces.
class Pooler {
 public:
  Pooler(Pooling pooling, uint32_t tokens) : pooling_(pooling), tokens_(tokens) {}

  // Whether the state of a position is still needed. One that was taken is not asked for again,
  // though its sequence may compute it again after a preemption.
  bool Needs(uint32_t position) const;
  // REQUIRES: Needs(position); ascending positions; all of one size.
  void Add(uint32_t position, std::span<const float> hidden);

  // REQUIRES: every position that is needed was added.
  std::vector<float> Result() const;

 private:
  Pooling pooling_;
  uint32_t tokens_;
  uint32_t next_ = 0;  // the first position that was not seen
  std::vector<double> sum_;
};

// The first `dimensions` elements (0 = all), scaled to a length of one. A vector of zeros stays.
std::vector<float> Normalized(std::span<const float> vector, size_t dimensions);

}  // namespace engine
