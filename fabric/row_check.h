#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fabric/activations.h"
#include "fabric/ternary_matrix.h"

namespace fabric {

// A checksum over the rows of a ternary matrix that finds wrong products without computing them
// again (algorithm-based fault tolerance, Huang and Abraham 1984): with odd random words h,
//
//   sum over rows of h[r] * (W x)[r]  =  sum over columns of (sum over rows of h[r] W[r][c]) * x[c]
//
// in integers modulo 2^32. The left side comes from the results, whose integer sums are recovered
// exactly; the right side from one word per column. One wrong row is always found, because h is odd
// and the error smaller than 2^32; several are missed with a probability of 2^-32.
//
// Applies to one activation scale per token and one weight scale per tensor or row: then
// y = float(sum) * (w / s) can be inverted. Threads: const calls from any thread.
class RowCheck {
 public:
  // Errors: std::bad_alloc.
  explicit RowCheck(const TernaryMatrix& matrix);

  enum class Verdict : uint8_t {
    kRight,
    kWrong,
    kCannotTell,  // sums that y does not determine: another kind of scales, or one out of range
  };
  // y: [matrix.rows()] of one token of x. matrix: the one that this was made for.
  Verdict Check(const TernaryMatrix& matrix, const ActivationView& x, uint32_t token,
                std::span<const float> y) const noexcept;

 private:
  std::vector<uint32_t> columns_;  // empty when no result can be checked
};

}  // namespace fabric
