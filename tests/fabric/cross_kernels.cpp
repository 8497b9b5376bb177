// Property: every ternary kernel that this CPU supports, those of planes included, gives the bits
// of the scalar one, over random shapes, layouts and activations. Needs nothing but the kernels, so
// that scripts/test_neon.sh can compile it for another CPU and run it under an emulator.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "fabric/kernels/kernel_table.h"
#include "fabric/panel_layout.h"

namespace {

using fabric::kernels::KernelTable;
using fabric::kernels::PlaneTile;
using fabric::kernels::TernarySum;
using fabric::kernels::TernaryTile;

using Random = std::independent_bits_engine<std::mt19937, 32, uint32_t>;

struct Case {
  TernaryTile tile;
  bool two_bit = true;
  std::vector<uint8_t> panels;
  std::vector<float> w_scales;
  std::vector<int8_t> codes;
  std::vector<float> x_scales;
  std::vector<int32_t> x_sums;
};

void FillPanels(Random& random, Case* c) {
  const uint32_t digits = c->two_bit ? fabric::k2BitDigits : fabric::kPt5Digits;
  c->tile.panel_stride = size_t{fabric::LinesOf(c->tile.cols, digits)} * fabric::kLineBytes;
  c->panels.assign(c->tile.panel_count * c->tile.panel_stride,
                   c->two_bit ? fabric::k2BitZeros : fabric::kPt5Zeros);
  // Two bits have a fourth code, which sketches use (fabric/coarse_screen.h).
  const bool four_codes = c->two_bit && random() % 2 == 0;
  const int largest = four_codes ? 2 : 1;
  for (uint32_t row = 0; row < c->tile.panel_count * fabric::kPanelRows; ++row) {
    uint8_t* panel = c->panels.data() + row / fabric::kPanelRows * c->tile.panel_stride;
    for (uint32_t col = 0; col < c->tile.cols; ++col) {
      const auto at = fabric::PositionInPanel(row % fabric::kPanelRows, col, digits);
      int weight = 1;
      for (uint32_t k = 0; k < at.digit; ++k) weight *= c->two_bit ? 4 : 3;
      const int trit =
          row % 7 == 0 ? largest : static_cast<int>(random() % (four_codes ? 4 : 3)) - 1;
      panel[at.byte] = static_cast<uint8_t>(panel[at.byte] + trit * weight);
    }
  }
}

Case RandomCase(Random& random) {
  Case c;
  TernaryTile& t = c.tile;
  c.two_bit = random() % 2 == 0;
  t.cols = 1 + random() % (random() % 4 == 0 ? 3000 : 400);
  t.panel_count = 1 + random() % 5;
  t.tokens = 1 + random() % 65;
  const uint32_t kind = random() % 3;
  t.sum = static_cast<TernarySum>(kind);
  t.segment = t.sum == TernarySum::kBlocks ? 32 : 32 * (1 + random() % 20);
  t.segments_per_scale = t.sum == TernarySum::kBlocks ? random() % 3 : 1;
  const uint32_t segments = t.sum == TernarySum::kToken ? 1 : (t.cols + t.segment - 1) / t.segment;
  const bool one_scale = t.segments_per_scale == 0 || random() % 2 == 0;
  t.w_panel_stride = one_scale && t.sum == TernarySum::kToken ? 0 : segments * fabric::kPanelRows;
  FillPanels(random, &c);
  c.w_scales.resize(t.panel_count * segments * fabric::kPanelRows);
  for (float& w : c.w_scales) w = static_cast<float>(random() % 2000) / 1000.0F - 1.0F;
  if (t.w_panel_stride == 0) std::fill(c.w_scales.begin(), c.w_scales.end(), 0.37F);
  t.code_stride = (t.cols + 63) / 64 * 64;
  c.codes.resize(t.tokens * t.code_stride);
  c.x_sums.resize(size_t{t.tokens} * segments);
  c.x_scales.resize(size_t{t.tokens} * segments);
  for (float& s : c.x_scales) s = 0.01F + static_cast<float>(random() % 1000) / 300.0F;
  for (uint32_t token = 0; token < t.tokens; ++token) {
    for (uint32_t col = 0; col < t.cols; ++col) {
      const int code = token % 5 == 0 ? -128 : static_cast<int>(random() % 256) - 128;
      c.codes[token * t.code_stride + col] = static_cast<int8_t>(code);
      const uint32_t segment = t.sum == TernarySum::kToken ? 0 : col / t.segment;
      c.x_sums[size_t{token} * segments + segment] += code;
    }
  }
  t.sum_stride = segments;
  t.scale_stride = t.sum == TernarySum::kBlocks ? segments : 1;
  return c;
}

std::vector<float> Run(const fabric::kernels::KernelTable& table, Case& c) {
  std::vector<float> out(size_t{c.tile.tokens} * c.tile.panel_count * fabric::kPanelRows, -7.0F);
  TernaryTile tile = c.tile;
  tile.panels = c.panels.data();
  tile.w_scales = c.w_scales.data();
  tile.codes = c.codes.data();
  tile.x_scales = c.x_scales.data();
  tile.x_sums = c.x_sums.data();
  tile.out = out.data();
  tile.out_stride = size_t{c.tile.panel_count} * fabric::kPanelRows;
  (c.two_bit ? table.ternary.two_bit : table.ternary.pt5)(tile);
  return out;
}

// A sum of planes and its scales.
struct PlaneCase {
  PlaneTile tile;
  std::vector<std::vector<uint8_t>> planes;
  std::vector<int8_t> sub_scales;
  std::vector<int8_t> sub_mins;
  std::vector<float> scales;
  std::vector<float> mins;
  std::vector<int8_t> codes;
  std::vector<float> x_scales;
};

PlaneCase RandomPlanes(Random& random) {
  PlaneCase c;
  PlaneTile& t = c.tile;
  t.cols = 256 * (1 + random() % 5);
  t.panel_count = 1 + random() % 4;
  t.tokens = 1 + random() % 4;
  t.sub_block = random() % 2 == 0 ? 16 : 32;
  t.super_block = random() % 2 == 0 ? 32 : 256;
  t.plane_count = 1 + random() % fabric::kernels::kMaxTernaryPlanes;
  t.offset = random() % 2 == 0 ? 0 : 8;
  t.panel_stride = size_t{fabric::LinesOf(t.cols, fabric::k2BitDigits)} * fabric::kLineBytes;
  int32_t weight = 1;
  for (uint32_t p = 0; p < t.plane_count; ++p, weight *= 3) {
    t.weights[p] = weight;
    std::vector<uint8_t> bytes(t.panel_count * t.panel_stride);
    for (uint8_t& byte : bytes) {
      for (int digit = 0; digit < 4; ++digit) {
        byte = static_cast<uint8_t>(byte << 2 | random() % 3);
      }
    }
    c.planes.push_back(std::move(bytes));
  }
  const auto fill = [&](size_t per_row, auto make, auto* values) {
    values->resize(per_row * t.panel_count * fabric::kPanelRows);
    for (auto& value : *values) value = make();
  };
  const auto small = [&] { return static_cast<int8_t>(static_cast<int>(random() % 256) - 128); };
  const auto real = [&] { return static_cast<float>(random() % 2000) / 1000.0F - 1.0F; };
  if (random() % 2 == 0) fill(t.cols / t.sub_block, small, &c.sub_scales);
  fill(t.cols / t.super_block, real, &c.scales);
  if (random() % 2 == 0) fill(t.cols / t.super_block, real, &c.mins);
  if (!c.mins.empty() && !c.sub_scales.empty()) fill(t.cols / t.sub_block, small, &c.sub_mins);
  t.code_stride = t.cols;
  c.codes.resize(t.tokens * t.code_stride);
  for (int8_t& code : c.codes) code = small();
  t.x_scale_stride = t.cols / 32;
  c.x_scales.resize(t.tokens * t.x_scale_stride);
  for (float& scale : c.x_scales) scale = real();
  return c;
}

std::vector<float> Run(const KernelTable& table, const PlaneCase& c) {
  std::vector<float> out(size_t{c.tile.tokens} * c.tile.panel_count * fabric::kPanelRows, -7.0F);
  PlaneTile tile = c.tile;
  for (size_t p = 0; p < c.planes.size(); ++p) tile.planes[p] = c.planes[p].data();
  tile.sub_scales = c.sub_scales.empty() ? nullptr : c.sub_scales.data();
  tile.sub_mins = c.sub_mins.empty() ? nullptr : c.sub_mins.data();
  tile.scales = c.scales.data();
  tile.mins = c.mins.empty() ? nullptr : c.mins.data();
  tile.codes = c.codes.data();
  tile.x_scales = c.x_scales.data();
  tile.out = out.data();
  tile.out_stride = size_t{c.tile.panel_count} * fabric::kPanelRows;
  table.ternary.planes(tile);
  return out;
}

bool PlanesAgree(Random& random, int index) {
  const auto tables = fabric::kernels::SupportedKernels();
  const PlaneCase c = RandomPlanes(random);
  const std::vector<float> expected = Run(tables.back(), c);
  for (const KernelTable& table : tables.first(tables.size() - 1)) {
    const std::vector<float> y = Run(table, c);
    if (std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)) == 0) continue;
    std::printf("case %d: %s differs from scalar: %u planes, %u columns, %u tokens\n", index,
                table.name.data(), c.tile.plane_count, c.tile.cols, c.tile.tokens);
    return false;
  }
  return true;
}

}  // namespace

int main() {
  constexpr int kCases = 400;
  const auto tables = fabric::kernels::SupportedKernels();
  Random random(1);
  for (int i = 0; i < kCases; ++i) {
    if (!PlanesAgree(random, i)) return 1;
    Case c = RandomCase(random);
    const std::vector<float> expected = Run(tables.back(), c);
    for (const auto& table : tables.first(tables.size() - 1)) {
      const std::vector<float> y = Run(table, c);
      if (std::memcmp(y.data(), expected.data(), y.size() * sizeof(float)) == 0) continue;
      std::printf("case %d: %s differs from scalar: %u columns, %u tokens, %s, sums %d\n", i,
                  table.name.data(), c.tile.cols, c.tile.tokens, c.two_bit ? "2bit" : "pt5",
                  static_cast<int>(c.tile.sum));
      return 1;
    }
  }
  std::printf("%d cases, kernels:", kCases);
  for (const auto& table : tables) std::printf(" %s", table.name.data());
  std::printf("\n");
  return 0;
}
