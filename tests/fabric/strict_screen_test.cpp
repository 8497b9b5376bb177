// Property: a sketch is never farther from the exact projection than the bound says, on matrices
// made to break it too; and refined rows have the bits of a full projection.

#include "fabric/strict_screen.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "fabric/device.h"
#include "fabric/half.h"
#include "fabric/vector_ops.h"

namespace fabric {
namespace {

using Random = std::independent_bits_engine<std::mt19937, 32, uint32_t>;

constexpr uint32_t kCols = 512;

struct Input {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  ActivationView view;

  // outliers: some columns are a thousand times larger than the rest.
  Input(uint32_t tokens, bool outliers, uint32_t seed)
      : codes(tokens * kCols), scales(tokens * kCols / 32), sums(scales.size()) {
    Random random(seed);
    std::normal_distribution<float> normal;
    std::vector<float> values(kCols);
    for (uint32_t t = 0; t < tokens; ++t) {
      for (float& v : values) {
        v = normal(random) * (outliers && random() % 100 == 0 ? 1000.0F : 1.0F);
      }
      QuantizeBlocks(values.data(), kCols, kCols, codes.data() + t * kCols,
                     scales.data() + t * kCols / 32, sums.data() + t * kCols / 32);
    }
    view = {.kind = ActivationKind::kInt8Block,
            .tokens = tokens,
            .cols = kCols,
            .codes = codes.data(),
            .code_stride = kCols,
            .scales = scales.data(),
            .scale_stride = kCols / 32,
            .sums = sums.data()};
  }
};

enum class Style { kRandom, kAligned, kOpposed, kExtreme };

// Rows whose lower bits are random, all push along the first token's activations, all push against
// them, or have the widest scales that the type holds.
std::shared_ptr<const QuantizedMatrix> MakeMatrix(QuantizedType type, uint32_t rows, Style style,
                                                  const Input& x, uint32_t seed) {
  Random random(seed);
  auto matrix = std::make_shared<QuantizedMatrix>(type, rows, kCols);
  const auto& f = matrix->format();
  const unsigned low_mask = (1U << kernels::DroppedBits(f, 1)) - 1;
  const unsigned top = (1U << CodeBits(f)) - 1;
  std::vector<uint8_t> codes(kCols);
  std::vector<int8_t> sub(f.sub_scales ? kCols / f.sub_block : 0);
  std::vector<uint16_t> scales(kCols / f.super_block);
  for (uint32_t row = 0; row < rows; ++row) {
    for (uint32_t c = 0; c < kCols; ++c) {
      unsigned code = random() & top;
      const bool up = (x.codes[c] > 0) == (style == Style::kAligned);
      if (style == Style::kAligned || style == Style::kOpposed) {
        code = (code & ~low_mask) | (up ? low_mask : 0U);
      }
      codes[c] = static_cast<uint8_t>(code);
    }
    // Aligned residuals are longest when all have one scale and sign.
    for (int8_t& s : sub) {
      s = static_cast<int8_t>(style == Style::kRandom ? static_cast<int>(random() % 40) - 20 : 17);
      if (style == Style::kExtreme) s = static_cast<int8_t>(random() % 2 == 0 ? -128 : 127);
    }
    for (uint16_t& s : scales) {
      s = FloatToHalf(style == Style::kExtreme ? (random() % 2 == 0 ? 6e-8F : 60000.0F) : 0.01F);
    }
    matrix->SetRow(
        row, {.codes = codes, .sub_scales = sub, .sub_mins = {}, .scales = scales, .mins = {}});
  }
  return matrix;
}

std::vector<float> Full(WorkerTeam& team, const std::shared_ptr<const QuantizedMatrix>& matrix,
                        const Input& x) {
  const auto device = CreateDevice({}, team);
  MatrixId id;
  EXPECT_EQ(device->Upload(matrix, &id), Status::kOk);
  std::vector<float> y(size_t{x.view.tokens} * matrix->rows());
  const ProjectionOp op{.matrix = id, .x = &x.view, .y = y.data(), .y_stride = matrix->rows()};
  EXPECT_EQ(Execute(*device, {&op, 1}), Status::kOk);
  return y;
}

constexpr QuantizedType kScreened[] = {QuantizedType::kQ6_K, QuantizedType::kQ8_0,
                                       QuantizedType::kQ5_0, QuantizedType::kQ3_K};

TEST(StrictScreen, SupportsTypesWithALowerPlaneAndNoMinimums) {
  for (const QuantizedType type : kScreened) {
    EXPECT_TRUE(StrictScreen::Supports(QuantizedMatrix(type, 1, 256)));
  }
  for (const QuantizedType type :
       {QuantizedType::kQ4_0, QuantizedType::kQ5_K, QuantizedType::kQ4_K, QuantizedType::kIQ4_NL}) {
    EXPECT_FALSE(StrictScreen::Supports(QuantizedMatrix(type, 1, 256)));
  }
}

StrictScreen ScreenOf(std::shared_ptr<const QuantizedMatrix> matrix, WorkerTeam& team,
                      uint32_t max_tokens) {
  auto sketch = std::make_shared<const RowSketch>(StrictScreen::Measure(*matrix));
  return {std::move(matrix), std::move(sketch), team, max_tokens};
}

TEST(StrictScreen, BoundHoldsOnEveryRow) {
  WorkerTeam team(2);
  for (const QuantizedType type : kScreened) {
    for (const Style style : {Style::kRandom, Style::kAligned, Style::kOpposed, Style::kExtreme}) {
      for (const bool outliers : {false, true}) {
        const Input x(3, outliers, 7);
        const auto matrix = MakeMatrix(type, 1001, style, x, 8);
        const std::vector<float> full = Full(team, matrix, x);
        StrictScreen screen = ScreenOf(matrix, team, 3);
        screen.Sketch(x.view);
        double closest = 0;  // error over bound
        for (uint32_t token = 0; token < 3; ++token) {
          for (uint32_t row = 0; row < matrix->rows(); ++row) {
            const double error = std::fabs(double{full[token * matrix->rows() + row]} -
                                           double{screen.Sketched(token)[row]});
            const double bound = double{screen.Reach()[row]} * double{screen.Norm(token)};
            ASSERT_LE(error, bound) << QuantizedTypeName(type) << " row " << row;
            ASSERT_LE(std::fabs(full[token * matrix->rows() + row]),
                      screen.LargestRow() * screen.Norm(token));
            closest = std::max(closest, error / bound);
          }
        }
        // The bound is not loose: rows made to reach it nearly do.
        if (style == Style::kAligned && !outliers) {
          EXPECT_GE(closest, 0.7) << QuantizedTypeName(type);
        }
      }
    }
  }
}

TEST(StrictScreen, RefinedRowsHaveTheBitsOfAFullProjection) {
  WorkerTeam team(2);
  Random random(9);
  for (const QuantizedType type : kScreened) {
    const Input x(4, false, 10);
    const auto matrix = MakeMatrix(type, 777, Style::kRandom, x, 11);
    const std::vector<float> full = Full(team, matrix, x);
    StrictScreen screen = ScreenOf(matrix, team, 4);
    screen.Sketch(x.view);
    for (const size_t count : {1U, 15U, 16U, 17U, 200U, 600U}) {
      std::vector<uint32_t> rows(count);
      for (uint32_t& row : rows) row = random() % matrix->rows();
      for (uint32_t token = 0; token < 4; ++token) {
        std::vector<float> refined(count);
        screen.Refine(token, rows, refined.data());
        for (size_t i = 0; i < count; ++i) {
          ASSERT_EQ(
              std::memcmp(&refined[i], &full[token * matrix->rows() + rows[i]], sizeof(float)), 0);
        }
      }
    }
  }
}

}  // namespace
}  // namespace fabric
