#include "fabric/row_screen.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>

#include "fabric/kernels/kernel_table.h"
#include "fabric/matrix_store.h"
#include "fabric/panel_layout.h"
#include "fabric/projection.h"

namespace fabric {
namespace {

// Rows from which on the team's help repays its wake-up.
constexpr size_t kRowsForTeam = 256;

}  // namespace

std::array<std::span<std::byte>, 4> RowSketch::Memory() {
  return {AsBytes(reach), AsBytes(largest_row), AsBytes(panels), AsBytes(scales)};
}

RowScreen::RowScreen(Matrix matrix, std::shared_ptr<const RowSketch> sketch, WorkerTeam& team,
                     uint32_t max_tokens, float guard)
    : matrix_(std::move(matrix)),
      row_sketch_(std::move(sketch)),
      team_(team),
      padded_rows_((size_t{RowsOf(matrix_)} + kPanelRows - 1) / kPanelRows * kPanelRows),
      row_bytes_(BytesOf(matrix_) / RowsOf(matrix_)),
      guard_(guard),
      sketched_(max_tokens * padded_rows_),
      norms_(max_tokens) {
  assert(row_sketch_->reach.size() == RowsOf(matrix_));
}

float RowScreen::Largest(std::span<const float> lengths) {
  float largest = 0;
  // A NaN would be lost by std::max: it makes the bound infinite.
  for (const float length : lengths) {
    largest = length <= largest    ? largest
              : std::isnan(length) ? std::numeric_limits<float>::infinity()
                                   : length;
  }
  return largest;
}

void RowScreen::Refine(uint32_t token, std::span<const uint32_t> rows, float* out) noexcept {
  const kernels::KernelTable& kernels = kernels::ActiveKernels();
  const auto task = [&](int, size_t begin, size_t end) {
    for (size_t first = begin; first < end; first += kTileRows) {
      const size_t count = std::min<size_t>(kTileRows, end - first);
      float values[kTileRows];
      ProjectRows(kernels, matrix_, x_, token, rows.subspan(first, count), values);
      std::copy(values, values + count, out + first);
    }
  };
  if (rows.size() < kRowsForTeam) {
    task(0, 0, rows.size());
  } else {
    team_.ParallelFor(rows.size(), kTileRows, std::ref(task));
  }
}

}  // namespace fabric
