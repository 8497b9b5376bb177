// Property: a shadow device changes no result and compares, at its rate, rows of plane products
// with what the exact weights give: none differ with all planes, and with fewer the live error is
// that of the rows compared.

#include "fabric/shadow_device.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <vector>

#include "fabric/kernels/kernel_table.h"
#include "fabric/sim/sim_device.h"
#include "tests/fabric/cases.h"
#include "tests/fabric/quantized_cases.h"

namespace fabric {
namespace {

using testing::Bits;
using testing::Codes;

struct Bench {
  Bench(uint32_t planes, uint32_t interval, uint32_t rows = 90) {
    const testing::QuantizedCase source(QuantizedType::kQ6_K, rows, 512, 1);
    const PlaneChoice choice = MeasurePlanes(source.matrix).at(planes - 1);
    matrix = std::make_shared<const PlaneMatrix>(source.matrix, choice);
    plain = std::make_unique<sim::SimDevice>("plain", FabricOptions{}, kernels::ActiveKernels(),
                                             nullptr);
    auto inner = std::make_unique<sim::SimDevice>("inner", FabricOptions{},
                                                  kernels::ActiveKernels(), nullptr);
    device = std::make_unique<ShadowDevice>(std::move(inner), kernels::ActiveKernels(), interval);
    EXPECT_EQ(plain->Upload(matrix, &plain_id), Status::kOk);
    EXPECT_EQ(device->Upload(matrix, &id), Status::kOk);
    x = Codes::Make(ActivationKind::kInt8Block, 3, 512, 2);
  }
  // Adds the product to a y that is not zero, on both.
  void Run(uint32_t seed) {
    x = Codes::Make(ActivationKind::kInt8Block, 3, 512, seed);
    testing::Random random(seed + 1000);
    for (int8_t& code : x.codes) code = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
    std::vector<float> y(size_t{3} * matrix->rows(), 0.5F);
    std::vector<float> expected = y;
    ProjectionOp op{.matrix = id, .x = &x.view, .y = y.data(), .y_stride = matrix->rows()};
    op.epilogue = Epilogue::kAdd;
    ASSERT_EQ(Execute(*device, {&op, 1}), Status::kOk);
    op.matrix = plain_id;
    op.y = expected.data();
    ASSERT_EQ(Execute(*plain, {&op, 1}), Status::kOk);
    ASSERT_EQ(Bits(y), Bits(expected));
  }

  std::shared_ptr<const PlaneMatrix> matrix;
  std::unique_ptr<sim::SimDevice> plain;
  std::unique_ptr<ShadowDevice> device;
  MatrixId plain_id;
  MatrixId id;
  Codes x;
};

TEST(ShadowDevice, FindsNoDifferenceWithAllPlanes) {
  Bench b(4, 1);
  for (uint32_t seed = 0; seed < 20; ++seed) b.Run(seed);
  EXPECT_EQ(b.device->Counters().shadow_rows, 20U * PlaneMatrix::kShadowRows);
  EXPECT_EQ(b.device->Counters().shadow_differing_rows, 0U);
  EXPECT_EQ(b.device->Counters().ShadowError(), 0);
  EXPECT_GT(b.device->Counters().shadow_squared_norm, 0);
}

TEST(ShadowDevice, ToldErrorIsNearTheEstimateForInputsWithoutAPattern) {
  Bench b(2, 1);
  for (uint32_t seed = 0; seed < 50; ++seed) b.Run(seed);
  const DeviceCounters counters = b.device->Counters();
  EXPECT_GT(counters.shadow_differing_rows, counters.shadow_rows / 2);
  EXPECT_GT(counters.ShadowError(), 0.3 * b.matrix->choice().error);
  EXPECT_LT(counters.ShadowError(), 3 * b.matrix->choice().error);
}

TEST(ShadowDevice, ComparesAtItsRateAndOnlyPlanes) {
  Bench b(3, 10, 5);
  for (uint32_t seed = 0; seed < 400; ++seed) b.Run(seed);
  // All five rows of a product; 40 comparisons are to be expected.
  const uint64_t comparisons = b.device->Counters().shadow_rows / 5;
  EXPECT_EQ(b.device->Counters().shadow_rows % 5, 0U);
  EXPECT_GT(comparisons, 20U);
  EXPECT_LT(comparisons, 60U);

  MatrixId ternary;
  auto c = testing::TernaryCase::Make(40, 512, ScaleKind::kRow, 0, TernaryLayout::kPanel2Bit, 3);
  ASSERT_EQ(b.device->Upload(std::move(c.matrix), &ternary), Status::kOk);
  std::vector<float> y(120);
  const ProjectionOp op{.matrix = ternary, .x = &b.x.view, .y = y.data(), .y_stride = 40};
  for (int repeat = 0; repeat < 100; ++repeat) {
    ASSERT_EQ(Execute(*b.device, {&op, 1}), Status::kOk);
  }
  EXPECT_EQ(b.device->Counters().shadow_rows, 5 * comparisons);
}

TEST(ShadowDevice, ForgetsWhatIsFreed) {
  Bench b(4, 1);
  EXPECT_EQ(b.device->Free(b.id), Status::kOk);
  const testing::QuantizedCase source(QuantizedType::kQ4_K, 20, 512, 9);
  MatrixId next;
  ASSERT_EQ(b.device->Upload(std::make_shared<const QuantizedMatrix>(
                                 source.matrix.CopyRows(std::vector<uint32_t>{0, 3, 19})),
                             &next),
            Status::kOk);
  ASSERT_EQ(next.index, b.id.index);
  std::vector<float> y(9);
  const ProjectionOp op{.matrix = next, .x = &b.x.view, .y = y.data(), .y_stride = 3};
  ASSERT_EQ(Execute(*b.device, {&op, 1}), Status::kOk);
  EXPECT_EQ(b.device->Counters().shadow_rows, 0U);
}

}  // namespace
}  // namespace fabric
