#include "fabric/row_check.h"

#include <atomic>
#include <bit>
#include <cassert>
#include <cmath>

#include "fabric/parallel.h"
#include "fabric/sparse/mix.h"

namespace fabric {
namespace {

// |sum| < 2^22, so that a relative error of 2^-24 cannot reach the next integer.
constexpr uint32_t kMaxCheckedCols = 1U << 15;
constexpr float kLargestSum = float{kMaxCheckedCols} * 128;
constexpr size_t kCheckedRowsPerTask = 256;

uint32_t WordOf(uint32_t row) { return static_cast<uint32_t>(sparse::Mix(row + 1)) | 1; }

// The integer of which y is float(sum) * factor, if there is one.
bool RecoverSum(float y, float factor, int32_t* sum) {
  const double quotient = double{y} / double{factor};
  if (!(std::fabs(quotient) <= kLargestSum)) return false;
  *sum = static_cast<int32_t>(quotient + (quotient < 0 ? -0.5 : 0.5));
  return std::bit_cast<uint32_t>(static_cast<float>(*sum) * factor) == std::bit_cast<uint32_t>(y);
}

// Whether products with integers up to the largest sum are normal numbers.
bool Invertible(float factor) {
  return std::isnormal(factor) && std::isfinite(factor * kLargestSum);
}

}  // namespace

RowCheck::RowCheck(const TernaryMatrix& matrix) {
  if (matrix.scale_kind() == ScaleKind::kGroup || matrix.cols() > kMaxCheckedCols) return;
  columns_.resize(matrix.cols());
  ParallelFor(matrix.rows(), kCheckedRowsPerTask, [&](size_t begin, size_t end) {
    std::vector<int8_t> trits(matrix.cols());
    std::vector<uint32_t> sums(matrix.cols());
    for (size_t row = begin; row < end; ++row) {
      matrix.GetRow(static_cast<uint32_t>(row), trits);
      const uint32_t word = WordOf(static_cast<uint32_t>(row));
      for (size_t c = 0; c < sums.size(); ++c) {
        sums[c] += word * static_cast<uint32_t>(int32_t{trits[c]});
      }
    }
    for (size_t c = 0; c < sums.size(); ++c) {
      std::atomic_ref(columns_[c]).fetch_add(sums[c], std::memory_order_relaxed);
    }
  });
}

RowCheck::Verdict RowCheck::Check(const TernaryMatrix& matrix, const ActivationView& x,
                                  uint32_t token, std::span<const float> y) const noexcept {
  assert(y.size() == matrix.rows() && x.cols == matrix.cols());
  if (columns_.empty() || x.kind != ActivationKind::kInt8Token) return Verdict::kCannotTell;
  const bool one_scale = matrix.scale_kind() == ScaleKind::kTensor;
  uint32_t from_rows = 0;
  float factor = matrix.ScaleAt(0, 0) / x.scales[token];
  for (uint32_t row = 0; row < matrix.rows(); ++row) {
    if (!one_scale) factor = matrix.ScaleAt(row, 0) / x.scales[token];
    if (!Invertible(factor)) return Verdict::kCannotTell;
    int32_t sum = 0;
    if (!RecoverSum(y[row], factor, &sum)) return Verdict::kWrong;
    from_rows += WordOf(row) * static_cast<uint32_t>(sum);
  }
  const int8_t* codes = x.codes + token * x.code_stride;
  uint32_t from_columns = 0;
  for (uint32_t c = 0; c < x.cols; ++c) {
    from_columns += columns_[c] * static_cast<uint32_t>(int32_t{codes[c]});
  }
  return from_rows == from_columns ? Verdict::kRight : Verdict::kWrong;
}

}  // namespace fabric
