// Property: a coarse sketch's errors have the size that its bound says, its guard sees a matrix
// that breaks it, and refined rows have the bits of a full projection, dense and quantised.

#include "fabric/coarse_screen.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "fabric/device.h"
#include "fabric/half.h"
#include "fabric/matrix_store.h"
#include "fabric/vector_ops.h"

namespace fabric {
namespace {

using Random = std::independent_bits_engine<std::mt19937, 32, uint32_t>;

constexpr uint32_t kTokens = 4;
constexpr uint32_t kRows = 2003;

// One token after the other, as floats and as blocks of int8.
struct Input {
  std::vector<float> values;
  std::vector<int8_t> codes;
  std::vector<float> scales;
  std::vector<int32_t> sums;
  ActivationView floats;
  ActivationView blocks;

  // outlier: the first column is so many times larger than the others.
  Input(uint32_t cols, float outlier, uint32_t seed)
      : values(size_t{kTokens} * cols),
        codes(kTokens * PaddedCols(cols)),
        scales(size_t{kTokens} * ((cols + 31) / 32)),
        sums(scales.size()) {
    Random random(seed);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = normal(random) * (i % cols == 0 ? outlier : 1.0F);
    }
    const size_t blocks_per_token = scales.size() / kTokens;
    for (uint32_t t = 0; t < kTokens; ++t) {
      QuantizeBlocks(values.data() + size_t{t} * cols, cols, PaddedCols(cols),
                     codes.data() + t * PaddedCols(cols), scales.data() + t * blocks_per_token,
                     sums.data() + t * blocks_per_token);
    }
    floats = {.kind = ActivationKind::kFloat,
              .tokens = kTokens,
              .cols = cols,
              .values = values.data(),
              .value_stride = cols};
    blocks = {.kind = ActivationKind::kInt8Block,
              .tokens = kTokens,
              .cols = cols,
              .codes = codes.data(),
              .code_stride = PaddedCols(cols),
              .scales = scales.data(),
              .scale_stride = blocks_per_token,
              .sums = sums.data()};
  }
  const ActivationView& For(const Matrix& matrix) const {
    return AsDense(matrix) != nullptr ? floats : blocks;
  }
};

std::shared_ptr<DenseMatrix> DenseOf(uint32_t cols, const std::vector<float>& values) {
  auto matrix = std::make_shared<DenseMatrix>(DenseType::kF32,
                                              static_cast<uint32_t>(values.size() / cols), cols);
  for (uint32_t row = 0; row < matrix->rows(); ++row) {
    std::memcpy(matrix->Row(row).data(), values.data() + size_t{row} * cols, cols * sizeof(float));
  }
  return matrix;
}

enum class Weights { kGaussian, kHeavyTails, kTernary };

std::vector<float> RandomWeights(uint32_t cols, Weights kind, uint32_t seed) {
  Random random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(size_t{kRows} * cols);
  for (float& v : values) {
    v = normal(random);
    if (kind == Weights::kHeavyTails) v = v * v * v;
    if (kind == Weights::kTernary) v = std::round(v);
  }
  return values;
}

Matrix QuantizedOf(QuantizedType type, uint32_t cols, uint32_t seed) {
  Random random(seed);
  auto matrix = std::make_shared<QuantizedMatrix>(type, kRows, cols);
  const auto& f = matrix->format();
  std::vector<uint8_t> codes(cols);
  std::vector<int8_t> sub(f.sub_scales ? cols / f.sub_block : 0);
  const std::vector<uint16_t> scales(cols / f.super_block, FloatToHalf(0.01F));
  for (uint32_t row = 0; row < kRows; ++row) {
    for (uint8_t& code : codes) {
      code = static_cast<uint8_t>(random() & ((1U << CodeBits(f)) - 1));
    }
    for (int8_t& s : sub) s = static_cast<int8_t>(random() % 40 + 5);
    matrix->SetRow(
        row, {.codes = codes, .sub_scales = sub, .sub_mins = {}, .scales = scales, .mins = {}});
  }
  return std::shared_ptr<const QuantizedMatrix>(matrix);
}

// A second handle of the same matrix.
Matrix Share(const Matrix& matrix) {
  if (const auto* dense = std::get_if<std::shared_ptr<const DenseMatrix>>(&matrix)) return *dense;
  return std::get<std::shared_ptr<const QuantizedMatrix>>(matrix);
}

CoarseScreen ScreenOf(Matrix matrix, WorkerTeam& team) {
  auto sketch = std::make_shared<const RowSketch>(CoarseScreen::Measure(matrix));
  return {std::move(matrix), std::move(sketch), team, kTokens};
}

std::vector<float> Full(WorkerTeam& team, const Matrix& matrix, const ActivationView& x) {
  const auto device = CreateDevice({}, team);
  MatrixId id;
  EXPECT_EQ(device->Upload(Share(matrix), &id), Status::kOk);
  std::vector<float> y(size_t{x.tokens} * RowsOf(matrix));
  const ProjectionOp op{.matrix = id, .x = &x, .y = y.data(), .y_stride = RowsOf(matrix)};
  EXPECT_EQ(Execute(*device, {&op, 1}), Status::kOk);
  return y;
}

struct Errors {
  double largest = 0;      // in sigmas
  double mean_square = 0;  // of sigmas
};

Errors Measure(WorkerTeam& team, const Matrix& matrix, const Input& x) {
  const std::vector<float> full = Full(team, matrix, x.For(matrix));
  CoarseScreen screen = ScreenOf(Share(matrix), team);
  screen.Sketch(x.For(matrix));
  Errors errors;
  for (uint32_t token = 0; token < kTokens; ++token) {
    for (uint32_t row = 0; row < RowsOf(matrix); ++row) {
      const double exact = full[size_t{token} * RowsOf(matrix) + row];
      const double bound = double{screen.Reach()[row]} * double{screen.Norm(token)};
      const double error = std::fabs(exact - double{screen.Sketched(token)[row]}) / bound *
                           double{CoarseScreen::kMargin};
      errors.largest = std::max(errors.largest, error);
      errors.mean_square += error * error / (double{kTokens} * RowsOf(matrix));
      EXPECT_LE(std::fabs(exact), double{screen.LargestRow()} * double{screen.Norm(token)});
    }
  }
  return errors;
}

TEST(CoarseScreen, ErrorsHaveTheSizeThatTheBoundSays) {
  WorkerTeam team(2);
  for (const uint32_t cols : {256U, 640U, 2560U}) {
    for (const Weights kind : {Weights::kGaussian, Weights::kHeavyTails, Weights::kTernary}) {
      for (const float outlier : {1.0F, 30.0F}) {
        const Input x(cols, outlier, cols);
        const Matrix matrix =
            std::shared_ptr<const DenseMatrix>(DenseOf(cols, RandomWeights(cols, kind, cols + 1)));
        const Errors errors = Measure(team, matrix, x);
        const int style = static_cast<int>(kind);
        EXPECT_LT(errors.largest, double{CoarseScreen::kGuard}) << cols << " style " << style;
        // Neither wrong nor loose: the standard deviation is what it is said to be.
        EXPECT_LT(errors.mean_square, kind == Weights::kTernary ? 1.5 : 1.1)
            << cols << " style " << style;
        EXPECT_GT(errors.mean_square, kind == Weights::kTernary ? 0.05 : 0.4)
            << cols << " style " << style;
      }
    }
  }
  for (const QuantizedType type :
       {QuantizedType::kQ6_K, QuantizedType::kQ8_0, QuantizedType::kQ5_0, QuantizedType::kQ3_K}) {
    const Errors errors = Measure(team, QuantizedOf(type, 512, 3), Input(512, 1.0F, 4));
    EXPECT_LT(errors.largest, double{CoarseScreen::kGuard}) << QuantizedTypeName(type);
    EXPECT_GT(errors.mean_square, 0.4) << QuantizedTypeName(type);
  }
}

// A row that the activations point along is no less certain than others.
TEST(CoarseScreen, WinnersAreNotUnderestimated) {
  WorkerTeam team(2);
  constexpr uint32_t kCols = 2560;
  Input x(kCols, 1.0F, 15);
  const std::vector<float> weights = RandomWeights(kCols, Weights::kGaussian, 16);
  for (uint32_t token = 0; token < kTokens; ++token) {
    std::copy_n(weights.begin() + token * kCols, kCols, x.values.begin() + token * kCols);
  }
  const Matrix matrix = std::shared_ptr<const DenseMatrix>(DenseOf(kCols, weights));
  const std::vector<float> full = Full(team, matrix, x.floats);
  CoarseScreen screen = ScreenOf(Share(matrix), team);
  screen.Sketch(x.floats);
  for (uint32_t token = 0; token < kTokens; ++token) {
    const float error = full[size_t{token} * kRows + token] - screen.Sketched(token)[token];
    const float sigma = screen.Reach()[token] * screen.Norm(token) / CoarseScreen::kMargin;
    EXPECT_LT(std::fabs(error), 3 * sigma) << token;
  }
}

// The residuals of some rows point along the first token's activations. Columns that no power of
// two divides are not mixed, or this could not be arranged.
TEST(CoarseScreen, ResidualsAlignedWithTheActivationsAreBeyondTheGuard) {
  WorkerTeam team(2);
  constexpr uint32_t kCols = 511;
  const Input x(kCols, 1.0F, 5);
  std::vector<float> weights = RandomWeights(kCols, Weights::kGaussian, 6);
  for (uint32_t row = 0; row < 16; ++row) {
    for (uint32_t col = 0; col < kCols; ++col) {
      float& w = weights[size_t{row} * kCols + col];
      // The upper or lower end of the level's interval.
      const float level = std::clamp(std::floor(w) + 0.5F, -1.5F, 1.5F);
      w = level + (x.values[col] > 0 ? 0.45F : -0.45F);
    }
  }
  const Matrix matrix = std::shared_ptr<const DenseMatrix>(DenseOf(kCols, weights));
  const std::vector<float> full = Full(team, matrix, x.floats);
  CoarseScreen screen = ScreenOf(Share(matrix), team);
  screen.Sketch(x.floats);
  for (uint32_t row = 0; row < 16; ++row) {
    const float error = std::fabs(full[row] - screen.Sketched(0)[row]);
    EXPECT_GT(error, screen.guard() * screen.Reach()[row] * screen.Norm(0)) << row;
  }
}

TEST(CoarseScreen, RefinedRowsHaveTheBitsOfAFullProjection) {
  WorkerTeam team(2);
  Random random(9);
  std::vector<Matrix> matrices;
  matrices.push_back(QuantizedOf(QuantizedType::kQ6_K, 512, 10));
  matrices.push_back(
      std::shared_ptr<const DenseMatrix>(DenseOf(512, RandomWeights(512, Weights::kGaussian, 11))));
  const Input x(512, 1.0F, 12);
  for (const Matrix& matrix : matrices) {
    const std::vector<float> full = Full(team, matrix, x.For(matrix));
    CoarseScreen screen = ScreenOf(Share(matrix), team);
    screen.Sketch(x.For(matrix));
    for (const size_t count : {1U, 15U, 17U, 200U, 600U}) {
      std::vector<uint32_t> rows(count);
      for (uint32_t& row : rows) row = random() % kRows;
      for (uint32_t token = 0; token < kTokens; ++token) {
        std::vector<float> refined(count);
        screen.Refine(token, rows, refined.data());
        for (size_t i = 0; i < count; ++i) {
          ASSERT_EQ(std::memcmp(&refined[i], &full[size_t{token} * kRows + rows[i]], sizeof(float)),
                    0);
        }
      }
    }
  }
}

TEST(CoarseScreen, RowsThatAreNotFiniteAreNeverRuledOutAndZerosAreExact) {
  WorkerTeam team(2);
  constexpr uint32_t kCols = 256;
  std::vector<float> weights = RandomWeights(kCols, Weights::kGaussian, 13);
  weights[5 * kCols + 7] = std::numeric_limits<float>::quiet_NaN();
  weights[6 * kCols + 8] = std::numeric_limits<float>::infinity();
  std::fill_n(weights.begin() + 7 * kCols, kCols, 0.0F);
  CoarseScreen screen = ScreenOf(std::shared_ptr<const DenseMatrix>(DenseOf(kCols, weights)), team);
  const Input x(kCols, 1.0F, 14);
  screen.Sketch(x.floats);
  EXPECT_TRUE(std::isinf(screen.Reach()[5]));
  EXPECT_TRUE(std::isinf(screen.Reach()[6]));
  EXPECT_TRUE(std::isinf(screen.LargestRow()));
  EXPECT_EQ(screen.Sketched(0)[7], 0.0F);
  EXPECT_LT(screen.Reach()[7], 1e-15F);
}

}  // namespace
}  // namespace fabric
