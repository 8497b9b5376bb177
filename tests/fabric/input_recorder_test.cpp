// Property: a recorder changes no result, and knows of each matrix the sums of the squares of what
// the device has read for it, column by column, in every precision.

#include "fabric/input_recorder.h"

#include <gtest/gtest.h>

#include <vector>

#include "fabric/kernels/kernel_table.h"
#include "fabric/sim/sim_device.h"
#include "tests/fabric/cases.h"

namespace fabric {
namespace {

using testing::Bits;
using testing::Codes;
using testing::Floats;
using testing::RandomDense;
using testing::TernaryCase;

constexpr uint32_t kRows = 16;
constexpr uint32_t kCols = 96;
constexpr uint32_t kTokens = 5;

std::unique_ptr<Device> Plain() {
  return std::make_unique<sim::SimDevice>("sim", FabricOptions{}, kernels::ActiveKernels(),
                                          nullptr);
}

Matrix MatrixFor(ActivationKind kind) {
  if (kind == ActivationKind::kFloat) return RandomDense(DenseType::kF32, kRows, kCols, 1);
  return TernaryCase::Make(kRows, kCols, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit, 1)
      .matrix;
}

double ValueOf(const ActivationView& x, uint32_t token, uint32_t col) {
  if (x.kind == ActivationKind::kFloat) return double{x.values[token * x.value_stride + col]};
  const double code = x.codes[token * x.code_stride + col];
  return x.kind == ActivationKind::kInt8Token
             ? code / double{x.scales[token]}
             : code * double{x.scales[token * x.scale_stride + col / kActivationBlock]};
}

void CheckSums(const ActivationView& x) {
  InputRecorder recorder(Plain());
  const auto plain = Plain();
  MatrixId id;
  MatrixId other;
  MatrixId expected_id;
  ASSERT_EQ(recorder.Upload(MatrixFor(x.kind), &id), Status::kOk);
  ASSERT_EQ(recorder.Upload(MatrixFor(x.kind), &other), Status::kOk);
  ASSERT_EQ(plain->Upload(MatrixFor(x.kind), &expected_id), Status::kOk);
  std::vector<float> y(kTokens * kRows);
  std::vector<float> expected(y.size());
  ProjectionOp op{.matrix = id, .x = &x, .y = y.data(), .y_stride = kRows};
  ASSERT_EQ(Execute(recorder, {&op, 1}), Status::kOk);
  ASSERT_EQ(Execute(recorder, {&op, 1}), Status::kOk);
  op.matrix = expected_id;
  op.y = expected.data();
  ASSERT_EQ(Execute(*plain, {&op, 1}), Status::kOk);
  EXPECT_EQ(Bits(y), Bits(expected));

  const InputRecorder::Squares& squares = recorder.Of(id);
  EXPECT_EQ(squares.tokens, 2U * kTokens);
  ASSERT_EQ(squares.sums.size(), kCols);
  double all = 0;
  for (uint32_t col = 0; col < kCols; ++col) {
    double sum = 0;
    for (uint32_t token = 0; token < kTokens; ++token) {
      const double value = ValueOf(x, token, col);
      sum += 2 * value * value;
    }
    EXPECT_NEAR(squares.sums[col], sum, 1e-5 * sum) << col;
    all += sum;
  }
  EXPECT_GT(all, 0);
  EXPECT_EQ(recorder.Of(other).tokens, 0U);
  EXPECT_EQ(recorder.Of({99, 1}).tokens, 0U);
  op.matrix = {99, 1};
  EXPECT_EQ(Execute(recorder, {&op, 1}), Status::kErrStale);
  EXPECT_EQ(recorder.Of({99, 1}).tokens, 0U) << "what was refused was not read";
}

TEST(InputRecorder, SumsTheSquaresOfWhatTheDeviceReads) {
  for (const ActivationKind kind : {ActivationKind::kInt8Token, ActivationKind::kInt8Block}) {
    const Codes codes = Codes::Make(kind, kTokens, kCols, 3);
    CheckSums(codes.view);
  }
  const Floats floats = Floats::Make(kTokens, kCols, 3);
  CheckSums(floats.view);
}

}  // namespace
}  // namespace fabric
