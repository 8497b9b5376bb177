// The checksum finds every single wrong row, whatever is wrong with it, and never doubts a right
// result.

#include "fabric/row_check.h"

#include <gtest/gtest.h>

#include <bit>

#include "fabric/device.h"
#include "fabric/matrix_store.h"
#include "tests/fabric/cases.h"

namespace fabric {
namespace {

using testing::Codes;
using testing::Random;
using testing::TernaryCase;

TernaryMatrix MatrixOf(uint32_t rows, uint32_t cols, ScaleKind kind, uint32_t seed) {
  return TernaryCase::Make(rows, cols, kind, 64, TernaryLayout::kPanel2Bit, seed).matrix;
}

std::vector<float> Project(const TernaryMatrix& matrix, const Codes& x) {
  WorkerTeam team(1);
  const auto device = CreateDevice({}, team);
  MatrixId id;
  EXPECT_EQ(device->Upload(CopyTernary(matrix, matrix.layout()), &id), Status::kOk);
  std::vector<float> y(size_t{x.view.tokens} * matrix.rows());
  const ProjectionOp op{.matrix = id, .x = &x.view, .y = y.data(), .y_stride = matrix.rows()};
  EXPECT_EQ(Execute(*device, {&op, 1}), Status::kOk);
  return y;
}

TEST(RowCheck, RightResultsPassAndAnyChangedBitOfOneRowIsFound) {
  Random random(1);
  for (const ScaleKind kind : {ScaleKind::kTensor, ScaleKind::kRow}) {
    for (int repeat = 0; repeat < 20; ++repeat) {
      const uint32_t rows = 1 + random() % 90;
      const uint32_t cols = 1 + random() % 700;
      const TernaryMatrix matrix = MatrixOf(rows, cols, kind, random());
      const RowCheck check(matrix);
      const Codes x = Codes::Make(ActivationKind::kInt8Token, 3, cols, random());
      const std::vector<float> y = Project(matrix, x);
      for (uint32_t token = 0; token < 3; ++token) {
        std::vector<float> one(y.begin() + token * rows, y.begin() + (token + 1) * rows);
        ASSERT_EQ(check.Check(matrix, x.view, token, one), RowCheck::Verdict::kRight);
        float& changed = one[random() % rows];
        const auto bits = std::bit_cast<uint32_t>(changed);
        for (uint32_t bit = 0; bit < 32; ++bit) {
          changed = std::bit_cast<float>(bits ^ 1U << bit);
          ASSERT_EQ(check.Check(matrix, x.view, token, one), RowCheck::Verdict::kWrong) << bit;
        }
      }
    }
  }
}

// A result may be wrong in a way that looks like a sum: another row's, or that of another trit.
TEST(RowCheck, FindsRowsThatAreExchangedOrOffByOneCode) {
  Random random(2);
  const TernaryMatrix matrix = MatrixOf(64, 320, ScaleKind::kTensor, 3);
  const RowCheck check(matrix);
  const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, 320, 6);
  const std::vector<float> y = Project(matrix, x);
  int exchanged = 0;
  for (uint32_t row = 0; row < 64; ++row) {
    std::vector<float> wrong = y;
    std::swap(wrong[row], wrong[(row + 7) % 64]);
    if (wrong == y) continue;
    ++exchanged;
    EXPECT_EQ(check.Check(matrix, x.view, 0, wrong), RowCheck::Verdict::kWrong) << row;
    wrong = y;
    wrong[row] += matrix.ScaleAt(0, 0) / x.scales[0];
    EXPECT_EQ(check.Check(matrix, x.view, 0, wrong), RowCheck::Verdict::kWrong) << row;
  }
  EXPECT_GT(exchanged, 30);
}

TEST(RowCheck, SaysWhenItCannotTell) {
  const Codes token = Codes::Make(ActivationKind::kInt8Token, 1, 128, 1);
  const Codes block = Codes::Make(ActivationKind::kInt8Block, 1, 128, 1);
  const TernaryMatrix grouped = MatrixOf(16, 128, ScaleKind::kGroup, 1);
  const TernaryMatrix tensor = MatrixOf(16, 128, ScaleKind::kTensor, 1);
  EXPECT_EQ(RowCheck(grouped).Check(grouped, token.view, 0, Project(grouped, token)),
            RowCheck::Verdict::kCannotTell);
  EXPECT_EQ(RowCheck(tensor).Check(tensor, block.view, 0, Project(tensor, block)),
            RowCheck::Verdict::kCannotTell);
  // A scale of zero leaves nothing of the sums.
  TernaryMatrix zero(1, 32, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit);
  const std::vector<int8_t> trits(32, 1);
  const float scale = 0;
  zero.SetRow(0, trits, {&scale, 1});
  const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, 32, 1);
  EXPECT_EQ(RowCheck(zero).Check(zero, x.view, 0, Project(zero, x)),
            RowCheck::Verdict::kCannotTell);
}

}  // namespace
}  // namespace fabric
