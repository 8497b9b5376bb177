#include <cmath>

#include "fabric/kernels/ternary_tile.h"
#include "fabric/panel_layout.h"

namespace fabric::kernels {
namespace {

constexpr int kPowersOf3[kPt5Digits] = {1, 3, 9, 27, 81};

template <uint32_t kDigits>
int Trit(int byte, uint32_t digit) {
  if constexpr (kDigits == k2BitDigits) return ((byte >> (2 * digit)) & 3) - 1;
  return byte / kPowersOf3[digit] % 3 - 1;
}

// Sum of trit * code of one row over columns [begin, end), four columns of one digit at a time.
template <uint32_t kDigits>
int32_t Sum(const uint8_t* panel, uint32_t row, const int8_t* codes, uint32_t begin, uint32_t end) {
  int32_t sum = 0;
  for (uint32_t first = begin; first < end; first += kStepCols) {
    const PanelPosition at = PositionInPanel(row, first, kDigits);
    for (uint32_t j = 0; j < kStepCols && first + j < end; ++j) {
      sum += Trit<kDigits>(panel[at.byte + j], at.digit) * codes[first + j];
    }
  }
  return sum;
}

template <uint32_t kDigits>
float Project(const TernaryTile& t, uint32_t panel, uint32_t row, uint32_t token) {
  const uint8_t* weights = t.panels + panel * t.panel_stride;
  const float* w_scales = t.w_scales + panel * t.w_panel_stride + row;
  const int8_t* codes = t.codes + token * t.code_stride;
  if (t.sum == TernarySum::kToken) {
    const int32_t isum = Sum<kDigits>(weights, row, codes, 0, t.cols);
    return static_cast<float>(isum) * (*w_scales / t.x_scales[token]);
  }
  float v = 0.0F;
  uint32_t index = 0;
  for (uint32_t begin = 0; begin < t.cols; begin += t.segment, ++index) {
    const uint32_t end = begin + t.segment < t.cols ? begin + t.segment : t.cols;
    const int32_t isum = Sum<kDigits>(weights, row, codes, begin, end);
    const uint32_t scale = t.segments_per_scale == 0 ? 0 : index / t.segments_per_scale;
    const float w = w_scales[size_t{scale} * kPanelRows];
    const float factor = t.sum == TernarySum::kGroups
                             ? w / t.x_scales[token]
                             : w * t.x_scales[token * t.scale_stride + index];
    v = std::fma(static_cast<float>(isum), factor, v);
  }
  return v;
}

template <uint32_t kDigits>
void RunTile(const TernaryTile& t) noexcept {
  for (uint32_t token = 0; token < t.tokens; ++token) {
    for (uint32_t panel = 0; panel < t.panel_count; ++panel) {
      for (uint32_t row = 0; row < kPanelRows; ++row) {
        t.out[token * t.out_stride + panel * kPanelRows + row] =
            Project<kDigits>(t, panel, row, token);
      }
    }
  }
}

// One sub-block of one row: sum of q * x.
int32_t PlaneSum(const PlaneTile& t, uint32_t panel, uint32_t row, const int8_t* codes,
                 uint32_t begin, uint32_t end) {
  int32_t sum = 0;
  for (uint32_t col = begin; col < end; ++col) {
    const PanelPosition at = PositionInPanel(row, col, k2BitDigits);
    int32_t q = t.offset;
    for (uint32_t p = 0; p < t.plane_count; ++p) {
      const uint8_t* bytes = t.planes[p] + panel * t.panel_stride;
      q += t.weights[p] * Trit<k2BitDigits>(bytes[at.byte], at.digit);
    }
    sum += q * codes[col];
  }
  return sum;
}

float ProjectPlanes(const PlaneTile& t, uint32_t panel, uint32_t row, uint32_t token) {
  const int8_t* codes = t.codes + token * t.code_stride;
  const uint32_t subs = t.cols / t.sub_block;
  const uint32_t supers = t.cols / t.super_block;
  float v = 0.0F;
  for (uint32_t block = 0; block * 32 < t.cols; ++block) {
    int32_t isum = 0;
    int32_t msum = 0;
    for (uint32_t begin = block * 32; begin < block * 32 + 32; begin += t.sub_block) {
      const size_t sub = (size_t{panel} * subs + begin / t.sub_block) * kPanelRows + row;
      const int32_t dot = PlaneSum(t, panel, row, codes, begin, begin + t.sub_block);
      isum += t.sub_scales == nullptr ? dot : t.sub_scales[sub] * dot;
      int32_t sum = 0;
      for (uint32_t col = begin; col < begin + t.sub_block; ++col) sum += codes[col];
      msum += t.sub_mins == nullptr ? sum : t.sub_mins[sub] * sum;
    }
    const size_t super = (size_t{panel} * supers + block * 32 / t.super_block) * kPanelRows + row;
    const float d = t.x_scales[token * t.x_scale_stride + block];
    v = std::fma(static_cast<float>(isum), t.scales[super] * d, v);
    if (t.mins != nullptr) v = std::fma(static_cast<float>(msum), t.mins[super] * d, v);
  }
  return v;
}

void RunPlanes(const PlaneTile& t) noexcept {
  for (uint32_t token = 0; token < t.tokens; ++token) {
    for (uint32_t panel = 0; panel < t.panel_count; ++panel) {
      for (uint32_t row = 0; row < kPanelRows; ++row) {
        t.out[token * t.out_stride + panel * kPanelRows + row] =
            ProjectPlanes(t, panel, row, token);
      }
    }
  }
}

ActivityCount CountActivity(const int8_t* codes, const uint32_t* nonzeros, uint32_t cols) noexcept {
  ActivityCount count;
  for (uint32_t col = 0; col < cols; ++col) {
    if (codes[col] == 0) continue;
    count.active_ops += nonzeros[col];
    ++count.active_columns;
  }
  return count;
}

}  // namespace

TernaryKernels TernaryScalar() noexcept {
  return {RunTile<k2BitDigits>, RunTile<kPt5Digits>, CountActivity, RunPlanes};
}

}  // namespace fabric::kernels
