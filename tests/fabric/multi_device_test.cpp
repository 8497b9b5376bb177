// Property: any number of devices that share the matrices by rows or by columns give the bits of
// one device, for all scales, activations, epilogues and shapes, and each has its share of the
// work.

#include "fabric/multi_device.h"

#include <gtest/gtest.h>

#include "tests/fabric/cases.h"

namespace fabric {
namespace {

using testing::Bits;
using testing::Codes;
using testing::Floats;
using testing::Random;
using testing::RandomDense;
using testing::TernaryCase;

FabricOptions OptionsOf(uint32_t devices, FabricSplit split, const std::string& name = "sim") {
  FabricOptions options;
  options.device = name;
  options.layout = TernaryLayout::kPanel2Bit;  // nothing is measured
  options.devices = devices;
  options.split = split;
  return options;
}

struct Shape {
  uint32_t rows;
  uint32_t cols;
  uint32_t tokens;
  ScaleKind scales;
  ActivationKind activation;
  TernaryLayout layout;
};

// Two ternary matrices, a dense one between them, stores, adds, gates and a bias.
std::vector<uint32_t> Results(Device& device, const Shape& shape, uint32_t seed) {
  Random random(seed);
  std::vector<MatrixId> ids(3);
  for (MatrixId& id : ids) {
    EXPECT_EQ(device.Upload(TernaryCase::Make(shape.rows, shape.cols, shape.scales, 64,
                                              shape.layout, random())
                                .matrix,
                            &id),
              Status::kOk);
  }
  MatrixId dense;
  EXPECT_EQ(device.Upload(std::shared_ptr<const DenseMatrix>(
                              RandomDense(DenseType::kF32, shape.rows, shape.rows, random())),
                          &dense),
            Status::kOk);
  const Codes x = Codes::Make(shape.activation, shape.tokens, shape.cols, random());
  std::vector<float> bias(shape.rows, 0.5F);
  const size_t size = size_t{shape.tokens} * shape.rows;
  std::vector<float> y(3 * size, 0.25F);
  // The dense one reads what the first ternary one wrote.
  const ActivationView middle{
      .tokens = shape.tokens, .cols = shape.rows, .values = y.data(), .value_stride = shape.rows};
  const auto op = [&](MatrixId id, const ActivationView* view, size_t place, Epilogue epilogue) {
    return ProjectionOp{.matrix = id,
                        .x = view,
                        .y = y.data() + place * size,
                        .y_stride = shape.rows,
                        .bias = place == 0 ? bias.data() : nullptr,
                        .epilogue = epilogue};
  };
  const ProjectionOp ops[] = {
      op(ids[0], &x.view, 0, Epilogue::kStore), op(dense, &middle, 1, Epilogue::kStore),
      op(ids[1], &x.view, 1, Epilogue::kAdd), op(ids[1], &x.view, 2, Epilogue::kStore),
      op(ids[2], &x.view, 2, Epilogue::kReluSquaredMul),
      // A chain over two kinds of matrices.
      op(dense, &middle, 1, Epilogue::kStore), op(ids[2], &x.view, 1, Epilogue::kSiluMul)};
  EXPECT_EQ(Execute(device, ops), Status::kOk);
  for (const MatrixId id : ids) EXPECT_EQ(device.Free(id), Status::kOk);
  EXPECT_EQ(device.Free(dense), Status::kOk);
  EXPECT_EQ(device.resident_bytes(), 0U);
  return Bits(y);
}

TEST(SeveralDevices, GiveTheBitsOfOne) {
  WorkerTeam team(2);
  Random random(3);
  for (int repeat = 0; repeat < 60; ++repeat) {
    const Shape shape{
        .rows = 1 + random() % 150,
        .cols = 1 + random() % 700,
        .tokens = 1 + random() % 5,
        .scales = static_cast<ScaleKind>(random() % 3),
        .activation = random() % 3 == 0 ? ActivationKind::kInt8Block : ActivationKind::kInt8Token,
        .layout = testing::kEveryLayout[random() % 3]};
    const uint32_t seed = random();
    const auto one = CreateDevice(OptionsOf(1, FabricSplit::kRows), team);
    const std::vector<uint32_t> expected = Results(*one, shape, seed);
    for (const FabricSplit split : {FabricSplit::kRows, FabricSplit::kColumns}) {
      for (const uint32_t devices : {2U, 3U, 4U, 16U}) {
        const auto several = CreateDevice(OptionsOf(devices, split), team);
        ASSERT_EQ(Results(*several, shape, seed), expected)
            << shape.rows << " x " << shape.cols << ", " << devices << " devices, split "
            << static_cast<int>(split);
      }
    }
  }
}

TEST(SeveralDevices, MayBeOfAnyKind) {
  WorkerTeam team(2);
  const Shape shape{.rows = 100,
                    .cols = 300,
                    .tokens = 3,
                    .scales = ScaleKind::kRow,
                    .activation = ActivationKind::kInt8Token,
                    .layout = TernaryLayout::kPanel2Bit};
  const auto one = CreateDevice(OptionsOf(1, FabricSplit::kRows), team);
  const std::vector<uint32_t> expected = Results(*one, shape, 5);
  for (const char* name : {"reference", "stub", "ioctl"}) {
    for (const FabricSplit split : {FabricSplit::kRows, FabricSplit::kColumns}) {
      const auto several = CreateDevice(OptionsOf(2, split, name), team);
      EXPECT_EQ(Results(*several, shape, 5), expected) << name;
      EXPECT_EQ(several->Counters().TotalFaults(), 0U);
    }
  }
  // Each makes its own faults, and none is seen.
  FabricOptions options = OptionsOf(2, FabricSplit::kColumns, "ioctl");
  options.faults = ParseFaultPlan("corrupt=1");
  const auto faulty = CreateDevice(options, team);
  EXPECT_EQ(Results(*faulty, shape, 5), expected);
  EXPECT_EQ(Results(*faulty, shape, 5), expected);
  EXPECT_GT(faulty->Counters().host_fallbacks, 0U);
  EXPECT_FALSE(faulty->in_service());
}

// The account says what each split saves: the work is the same, its critical path is shorter.
TEST(SeveralDevices, ShareTheWork) {
  WorkerTeam team(2);
  const auto counters_of = [&](uint32_t devices, FabricSplit split) {
    const auto device = CreateDevice(OptionsOf(devices, split), team);
    MatrixId id;
    EXPECT_EQ(
        device->Upload(
            TernaryCase::Make(960, 640, ScaleKind::kRow, 0, TernaryLayout::kPanel2Bit, 1).matrix,
            &id),
        Status::kOk);
    const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, 640, 2);
    std::vector<float> y(960);
    const ProjectionOp op{.matrix = id, .x = &x.view, .y = y.data(), .y_stride = 960};
    EXPECT_EQ(Execute(*device, {&op, 1}), Status::kOk);
    return device->Counters();
  };
  const DeviceCounters one = counters_of(1, FabricSplit::kRows);
  for (const FabricSplit split : {FabricSplit::kRows, FabricSplit::kColumns}) {
    const DeviceCounters four = counters_of(4, split);
    EXPECT_EQ(four.projections, 4U);
    EXPECT_EQ(four.total_ops, one.total_ops);
    EXPECT_EQ(four.active_ops, one.active_ops);
    // 960 rows are 16 rounds of 60 lanes; a fourth of them, or of the columns, and one dispatch.
    EXPECT_EQ(one.cycles_gated, 16U * 640U + 120U);
    EXPECT_EQ(four.cycles_gated, 4U * 640U + 120U);
  }
}

TEST(SeveralDevices, RefuseWhatOneRefuses) {
  WorkerTeam team(1);
  const auto device = CreateDevice(OptionsOf(3, FabricSplit::kRows), team);
  MatrixId id;
  ASSERT_EQ(
      device->Upload(
          TernaryCase::Make(40, 64, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit, 1).matrix,
          &id),
      Status::kOk);
  EXPECT_EQ(device->Upload(std::shared_ptr<const DenseMatrix>(), &id), Status::kErrAddr);
  const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, 64, 1);
  std::vector<float> y(40, 3.0F);
  const ProjectionOp good{.matrix = id, .x = &x.view, .y = y.data(), .y_stride = 40};
  ProjectionOp bad = good;
  bad.y_stride = 39;
  const ProjectionOp both[] = {good, bad};
  EXPECT_EQ(Execute(*device, both), Status::kErrAddr);
  EXPECT_EQ(y, std::vector<float>(40, 3.0F)) << "checked before any ran";
  bad = good;
  bad.epilogue = Epilogue::kSiluMul;
  EXPECT_EQ(Execute(*device, {&bad, 1}), Status::kErrPack);
  EXPECT_EQ(device->Counters().TotalFaults(), 2U);
  EXPECT_EQ(device->Free(id), Status::kOk);
  EXPECT_EQ(device->Free(id), Status::kErrStale);
  EXPECT_EQ(Execute(*device, {&good, 1}), Status::kErrStale);
}

}  // namespace
}  // namespace fabric
