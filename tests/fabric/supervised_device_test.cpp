// Property: whatever a device does (time out, refuse, give wrong numbers, lose weights, vanish),
// every submission completes with the bits of the reference, the fault is counted by its kind, and
// a device that keeps failing is taken out of service.

#include "fabric/supervised_device.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "fabric/matrix_store.h"
#include "tests/fabric/cases.h"

namespace fabric {
namespace {

using testing::Bits;
using testing::Codes;
using testing::Floats;
using testing::Random;
using testing::RandomDense;
using testing::TernaryCase;

uint64_t Count(const Device& device, FaultKind kind) {
  return device.Counters().faults[static_cast<size_t>(kind)];
}

FabricOptions OptionsOf(const std::string& name, const std::string& faults = "") {
  FabricOptions options;
  options.device = name;
  options.layout = TernaryLayout::kPanel2Bit;  // nothing is measured
  options.faults = ParseFaultPlan(faults);
  options.watchdog_ms = faults.find("timeout") == std::string::npos ? 60'000 : 100;
  return options;
}

// A model in small: ternary matrices of all kinds of scales and a dense one, and a group of ops as
// the engine submits them, with every epilogue and a bias.
class Workload {
 public:
  Workload(Device& device, ActivationKind kind, uint32_t tokens, uint32_t seed)
      : x_(Codes::Make(kind, tokens, kCols, seed)), floats_(Floats::Make(tokens, kCols, seed)) {
    const ScaleKind kinds[] = {ScaleKind::kTensor, ScaleKind::kRow, ScaleKind::kGroup,
                               ScaleKind::kRow};
    for (size_t i = 0; i < 4; ++i) {
      Upload(device, TernaryCase::Make(kRows, kCols, kinds[i], 96, TernaryLayout::kPanel2Bit,
                                       static_cast<uint32_t>(i))
                         .matrix);
    }
    Upload(device,
           std::shared_ptr<const DenseMatrix>(RandomDense(DenseType::kF16, kRows, kCols, 5)));
    bias_.assign(kRows, 0.75F);
  }

  // All results, one after the other.
  std::vector<float> Run(Device& device) {
    const size_t size = size_t{x_.view.tokens} * kRows;
    std::vector<float> y(4 * size, 0.5F);
    const auto op = [&](size_t matrix, size_t place, Epilogue epilogue) {
      return ProjectionOp{.matrix = ids_[matrix],
                          .x = matrix == 4 ? &floats_.view : &x_.view,
                          .y = y.data() + place * size,
                          .y_stride = kRows,
                          .bias = matrix == 1 ? bias_.data() : nullptr,
                          .epilogue = epilogue};
    };
    const ProjectionOp ops[] = {op(0, 0, Epilogue::kStore),   op(1, 1, Epilogue::kAdd),
                                op(4, 2, Epilogue::kStore),   op(2, 3, Epilogue::kStore),
                                op(3, 3, Epilogue::kSiluMul), op(1, 0, Epilogue::kAdd)};
    EXPECT_EQ(Execute(device, ops), Status::kOk);
    return y;
  }

  void FreeAll(Device& device) {
    for (const MatrixId id : ids_) EXPECT_EQ(device.Free(id), Status::kOk);
  }

  static constexpr uint32_t kRows = 70;
  static constexpr uint32_t kCols = 330;

 private:
  void Upload(Device& device, Matrix matrix) {
    MatrixId id;
    EXPECT_EQ(device.Upload(std::move(matrix), &id), Status::kOk);
    ids_.push_back(id);
  }

  Codes x_;
  Floats floats_;
  std::vector<float> bias_;
  std::vector<MatrixId> ids_;
};

constexpr ActivationKind kKinds[] = {ActivationKind::kInt8Token, ActivationKind::kInt8Block};

std::vector<uint32_t> Expected(ActivationKind kind, uint32_t tokens, uint32_t seed) {
  WorkerTeam team(1);
  const auto reference = CreateDevice(OptionsOf("reference"), team);
  return Bits(Workload(*reference, kind, tokens, seed).Run(*reference));
}

TEST(EveryDevice, GivesTheBitsOfTheReference) {
  WorkerTeam team(2);
  for (const char* name : {"sim", "stub", "ioctl"}) {
    const auto device = CreateDevice(OptionsOf(name), team);
    EXPECT_EQ(device->name(), name);
    for (const ActivationKind kind : kKinds) {
      for (const uint32_t tokens : {1U, 3U, 40U}) {
        Workload work(*device, kind, tokens, tokens);
        EXPECT_EQ(Bits(work.Run(*device)), Expected(kind, tokens, tokens)) << name;
        work.FreeAll(*device);
      }
    }
    EXPECT_EQ(device->resident_bytes(), 0U) << name;
    EXPECT_EQ(device->Counters().TotalFaults(), 0U) << name;
    EXPECT_EQ(device->Counters().host_fallbacks, 0U) << name;
    // Five ternary ops of 2 * (1 + 3 + 40) tokens, on the device and not beside it.
    EXPECT_EQ(device->Counters().projections, 5U * 88U) << name;
    EXPECT_TRUE(device->in_service());
  }
}

// More tokens than one request of the driver takes, and more requests than its queue holds.
TEST(EveryDevice, TakesBatchesOfAnySize) {
  WorkerTeam team(2);
  const auto device = CreateDevice(OptionsOf("ioctl"), team);
  Workload work(*device, ActivationKind::kInt8Token, 2500, 3);
  EXPECT_EQ(Bits(work.Run(*device)), Expected(ActivationKind::kInt8Token, 2500, 3));
  EXPECT_EQ(device->Counters().TotalFaults(), 0U);
  EXPECT_EQ(device->Counters().host_fallbacks, 0U);
}

struct FaultCase {
  const char* faults;
  FaultKind kind;
};

class Faults : public ::testing::TestWithParam<FaultCase> {};

TEST_P(Faults, AreCountedAndChangeNoBit) {
  WorkerTeam team(2);
  for (const ActivationKind kind : kKinds) {
    const auto device = CreateDevice(OptionsOf("ioctl", GetParam().faults), team);
    Workload work(*device, kind, 2, 1);
    const std::vector<uint32_t> expected = Expected(kind, 2, 1);
    for (int repeat = 0; repeat < 60; ++repeat) {
      ASSERT_EQ(Bits(work.Run(*device)), expected) << repeat;
    }
    const DeviceCounters counters = device->Counters();
    EXPECT_GT(Count(*device, GetParam().kind), 2U);
    EXPECT_EQ(counters.TotalFaults(), Count(*device, GetParam().kind));
    // Most were mended by the second attempt.
    EXPECT_LT(counters.host_fallbacks, counters.TotalFaults());
    EXPECT_TRUE(device->in_service());
  }
}

INSTANTIATE_TEST_SUITE_P(Kinds, Faults,
                         ::testing::Values(FaultCase{"timeout=0.08,seed=1", FaultKind::kTimeout},
                                           FaultCase{"busy=0.1,seed=2", FaultKind::kBusy},
                                           FaultCase{"corrupt=0.1,seed=3", FaultKind::kCorrupt}),
                         [](const auto& info) {
                           return std::string(FaultKindName(info.param.kind));
                         });

TEST(PersistentFaults, TakeTheDeviceOutOfServiceAndChangeNoBit) {
  WorkerTeam team(2);
  const FaultCase cases[] = {{"timeout=1", FaultKind::kTimeout},
                             {"busy=1", FaultKind::kBusy},
                             {"corrupt=1", FaultKind::kCorrupt},
                             {"flip=0.02", FaultKind::kCorrupt}};
  for (const FaultCase& fault : cases) {
    const auto device = CreateDevice(OptionsOf("ioctl", fault.faults), team);
    Workload work(*device, ActivationKind::kInt8Token, 1, 4);
    const std::vector<uint32_t> expected = Expected(ActivationKind::kInt8Token, 1, 4);
    for (int repeat = 0; repeat < 5; ++repeat) {
      ASSERT_EQ(Bits(work.Run(*device)), expected) << fault.faults;
    }
    EXPECT_FALSE(device->in_service()) << fault.faults;
    // Two attempts each until it was enough, and none after.
    EXPECT_EQ(Count(*device, fault.kind), 2U * SupervisedDevice::kFaultsInARow) << fault.faults;
    EXPECT_GE(device->Counters().host_fallbacks, SupervisedDevice::kFaultsInARow);
  }
}

TEST(PersistentFaults, ADeviceThatIsGoneIsOutOfServiceAtOnce) {
  WorkerTeam team(2);
  const auto device = CreateDevice(OptionsOf("ioctl", "disconnect=5"), team);
  Workload work(*device, ActivationKind::kInt8Token, 3, 4);
  const std::vector<uint32_t> expected = Expected(ActivationKind::kInt8Token, 3, 4);
  for (int repeat = 0; repeat < 6; ++repeat) ASSERT_EQ(Bits(work.Run(*device)), expected);
  EXPECT_FALSE(device->in_service());
  EXPECT_EQ(Count(*device, FaultKind::kDisconnected), 1U);
  // What it did before it went stays counted, and new matrices go to the host.
  EXPECT_GT(device->Counters().projections, 0U);
  Workload later(*device, ActivationKind::kInt8Token, 3, 4);
  EXPECT_EQ(Bits(later.Run(*device)), expected);
  later.FreeAll(*device);
  work.FreeAll(*device);
}

// Without verification the same faults are visible, so that the tests above could fail.
TEST(CheckRate, DecidesWhetherWrongResultsAreFound) {
  WorkerTeam team(2);
  const std::vector<uint32_t> expected = Expected(ActivationKind::kInt8Token, 2, 1);
  for (const char* faults : {"flip=0.02", "corrupt=1"}) {
    FabricOptions options = OptionsOf("ioctl", faults);
    options.check_rate = 0;
    const auto device = CreateDevice(options, team);
    Workload work(*device, ActivationKind::kInt8Token, 2, 1);
    EXPECT_NE(Bits(work.Run(*device)), expected) << faults;
    EXPECT_EQ(device->Counters().TotalFaults(), 0U);
  }
  // A fourth of the results verified: some wrong ones found, some not.
  FabricOptions options = OptionsOf("ioctl", "corrupt=0.2");
  options.check_rate = 0.25;
  const auto device = CreateDevice(options, team);
  Workload work(*device, ActivationKind::kInt8Token, 1, 1);
  const std::vector<uint32_t> right = Expected(ActivationKind::kInt8Token, 1, 1);
  int wrong = 0;
  for (int repeat = 0; repeat < 100; ++repeat) wrong += Bits(work.Run(*device)) != right ? 1 : 0;
  EXPECT_GT(wrong, 0);
  EXPECT_GT(Count(*device, FaultKind::kCorrupt), 0U);
}

// The flipped trits are a share of all, and each becomes one of the other two.
TEST(FlippedTrits, AreAsManyAsAskedFor) {
  WorkerTeam team(2);
  constexpr uint32_t kSize = 256;
  TernaryMatrix ones(kSize, kSize, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit);
  const std::vector<int8_t> row(kSize, 1);
  const float scale = 1;
  for (uint32_t r = 0; r < kSize; ++r) ones.SetRow(r, row, {&scale, 1});
  FabricOptions options = OptionsOf("ioctl", "flip=0.1,seed=5");
  options.check_rate = 0;
  const auto device = CreateDevice(options, team);
  MatrixId id;
  ASSERT_EQ(device->Upload(std::move(ones), &id), Status::kOk);
  std::vector<int8_t> codes(kSize, 1);
  const float s = 1;
  const int32_t sum = kSize;
  const ActivationView x{.kind = ActivationKind::kInt8Token,
                         .tokens = 1,
                         .cols = kSize,
                         .codes = codes.data(),
                         .code_stride = kSize,
                         .scales = &s,
                         .scale_stride = 1,
                         .sums = &sum};
  std::vector<float> y(kSize);
  const ProjectionOp op{.matrix = id, .x = &x, .y = y.data(), .y_stride = kSize};
  ASSERT_EQ(Execute(*device, {&op, 1}), Status::kOk);
  double lost = 0;
  for (const float value : y) lost += kSize - double{value};
  // A trit of 1 that becomes 0 loses 1, one that becomes -1 loses 2: 1.5 on average. 65,536 trits
  // at 10 % are 6,554 +- 77 flips.
  EXPECT_NEAR(lost / 1.5, 6554, 500);
}

TEST(Device, OpsAreCheckedBeforeAnyRunsHoweverTheyAreRouted) {
  WorkerTeam team(2);
  for (const char* name : {"stub", "ioctl"}) {
    const auto device = CreateDevice(OptionsOf(name), team);
    MatrixId id;
    ASSERT_EQ(
        device->Upload(
            TernaryCase::Make(16, 64, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit, 1).matrix,
            &id),
        Status::kOk);
    const Codes x = Codes::Make(ActivationKind::kInt8Token, 1, 64, 1);
    std::vector<float> y(16, 3.0F);
    const ProjectionOp good{.matrix = id, .x = &x.view, .y = y.data(), .y_stride = 16};
    ProjectionOp bad = good;
    bad.y_stride = 15;
    const ProjectionOp both[] = {good, bad};
    EXPECT_EQ(Execute(*device, both), Status::kErrAddr);
    EXPECT_EQ(y, std::vector<float>(16, 3.0F));
    EXPECT_EQ(Count(*device, FaultKind::kRefused), 1U);
    EXPECT_EQ(device->Free(id), Status::kOk);
    EXPECT_EQ(Execute(*device, {&good, 1}), Status::kErrStale);
    EXPECT_EQ(device->Free(id), Status::kErrStale);
    Ticket ticket = 0;
    EXPECT_EQ(device->Submit({}, &ticket), Status::kOk);
    EXPECT_EQ(device->Wait(ticket), Status::kOk);
    EXPECT_EQ(device->Wait(ticket + 1), Status::kErrAddr);
  }
}

TEST(Trace, HasALinePerOp) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("tern-trace-" + std::to_string(getpid())))
          .string();
  WorkerTeam team(1);
  {
    FabricOptions options = OptionsOf("ioctl", "busy=1");
    options.trace = path;
    const auto device = CreateDevice(options, team);
    EXPECT_EQ(device->name(), "ioctl");
    Workload work(*device, ActivationKind::kInt8Token, 2, 1);
    EXPECT_EQ(Bits(work.Run(*device)), Expected(ActivationKind::kInt8Token, 2, 1));
  }
  std::ifstream file(path);
  std::vector<std::vector<std::string>> lines;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    lines.emplace_back();
    for (std::string word; std::getline(words, word, '\t');) lines.back().push_back(word);
  }
  std::filesystem::remove(path);
  ASSERT_EQ(lines.size(), 7U);
  for (const auto& line : lines) EXPECT_EQ(line.size(), lines[0].size());
  const std::vector<std::string> first(lines[1].begin(), lines[1].begin() + 11);
  EXPECT_EQ(first, (std::vector<std::string>{"1", "0", "ioctl", "0", "ternary", "70", "330", "2",
                                             "int8_token", "store", "OK"}));
  EXPECT_EQ(lines[3][4], "dense");
  // Two runs of ops on the device, each refused twice and then run by the host.
  EXPECT_EQ(lines[1][12], "4");
  EXPECT_EQ(lines[1][13], "5");

  FabricOptions options;
  options.trace = "/nowhere/at/all";
  EXPECT_THROW(CreateDevice(options, team), std::runtime_error);
}

}  // namespace
}  // namespace fabric
