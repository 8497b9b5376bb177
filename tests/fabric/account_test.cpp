// Property: the account counts exactly what a walk over every (row, column) pair counts, and gives
// the reference points of the 1024 x 1024 dense matrix.

#include "fabric/sim/account.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <random>
#include <thread>
#include <vector>

#include "fabric/kernels/kernel_table.h"
#include "fabric/sim/sim_device.h"
#include "tests/fabric/cases.h"

namespace fabric::sim {
namespace {

namespace testing = fabric::testing;

using Random = std::independent_bits_engine<std::mt19937, 32, uint32_t>;

// The public model's own count: packed bytes of x are read, not broadcast, and every division
// rounds down.
double LegacyCost(uint64_t rows, uint64_t cols) {
  const uint64_t reads = rows * cols / 5 + cols / 5;
  return static_cast<double>(rows * cols + 5 * reads + 8 * 4 * rows);
}
uint64_t LegacyCycles(uint64_t rows, uint64_t cols) { return rows * cols / 15; }

TEST(Account, ReferencePointsOfADenseMatrix) {
  const FabricGeometry one_tile{.lanes_per_tile = 15, .tiles = 1};
  const auto c = AccountOf(one_tile, {}, 1024, 1024, 1, {1024 * 1024, 1024});
  EXPECT_EQ(c.fabric_cost, 2131972.0);
  EXPECT_EQ(c.cycles_gated, 70776U);
  EXPECT_EQ(c.cycles_column_skip, 70776U);
  EXPECT_EQ(LegacyCost(1024, 1024), 2130939.0);
  EXPECT_EQ(LegacyCycles(1024, 1024), 69905U);
}

struct Workload {
  TernaryMatrix matrix;
  std::vector<int8_t> trits;
  std::vector<int8_t> codes;  // [tokens, stride]
  size_t stride;
  uint32_t tokens;
};

Workload MakeWorkload(uint32_t rows, uint32_t cols, uint32_t tokens, uint32_t seed) {
  Random random(seed);
  Workload w{TernaryMatrix(rows, cols, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit),
             {},
             {},
             (size_t{cols} + 63) / 64 * 64,
             tokens};
  const float scale = 1.0F;
  for (uint32_t row = 0; row < rows; ++row) {
    std::vector<int8_t> trits(cols);
    for (int8_t& t : trits) t = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
    w.matrix.SetRow(row, trits, {&scale, 1});
    w.trits.insert(w.trits.end(), trits.begin(), trits.end());
  }
  w.codes.resize(w.stride * tokens);
  for (uint32_t token = 0; token < tokens; ++token) {
    for (uint32_t col = 0; col < cols; ++col) {
      const auto code = static_cast<int8_t>(random());
      w.codes[token * w.stride + col] = random() % 3 == 0 ? int8_t{0} : code;
    }
  }
  return w;
}

class AccountOfLayout : public ::testing::TestWithParam<TernaryLayout> {};

TEST_P(AccountOfLayout, DeviceCountsEqualAWalkOverAllPairsOnEveryIsa) {
  WorkerTeam team(2);
  for (const auto& table : kernels::SupportedKernels()) {
    for (const auto [rows, cols, tokens] :
         {std::array<uint32_t, 3>{1, 1, 1}, {70, 33, 3}, {130, 1000, 1}, {200, 129, 40}}) {
      Workload w = MakeWorkload(rows, cols, tokens, rows);
      uint64_t active = 0;
      uint64_t columns = 0;
      for (uint32_t token = 0; token < tokens; ++token) {
        for (uint32_t col = 0; col < cols; ++col) {
          if (w.codes[token * w.stride + col] == 0) continue;
          ++columns;
          for (uint32_t row = 0; row < rows; ++row) {
            if (w.trits[size_t{row} * cols + col] != 0) ++active;
          }
        }
      }
      SimDevice device("sim", {}, table, &team);
      MatrixId id;
      w.matrix = CopyTernary(w.matrix, GetParam());
      const size_t bytes = w.matrix.bytes();
      ASSERT_EQ(device.Upload(std::move(w.matrix), &id), Status::kOk);
      std::vector<float> scales(tokens, 1.0F);
      std::vector<int32_t> sums(tokens);
      const ActivationView x{.kind = ActivationKind::kInt8Token,
                             .tokens = tokens,
                             .cols = cols,
                             .codes = w.codes.data(),
                             .code_stride = w.stride,
                             .scales = scales.data(),
                             .scale_stride = 1,
                             .sums = sums.data()};
      std::vector<float> y(size_t{rows} * tokens);
      const ProjectionOp op{.matrix = id, .x = &x, .y = y.data(), .y_stride = rows};
      ASSERT_EQ(Execute(device, {&op, 1}), Status::kOk);
      const DeviceCounters c = device.Counters();
      EXPECT_EQ(c.projections, tokens);
      EXPECT_EQ(c.total_ops, uint64_t{rows} * cols * tokens);
      EXPECT_EQ(c.active_ops, active) << table.name;
      EXPECT_EQ(c.mem_reads, (uint64_t{rows} * cols + 4) / 5 * tokens);
      EXPECT_EQ(c.mem_writes, uint64_t{4} * rows * tokens);
      const uint64_t rounds = (rows + 59) / 60;
      EXPECT_EQ(c.cycles_gated, (rounds * cols + 120) * tokens);
      EXPECT_EQ(c.cycles_column_skip, rounds * columns + 120 * tokens);
      EXPECT_EQ(c.lanes_used, std::min(rows, 60U) * tokens);
      EXPECT_EQ(c.broadcasts, uint64_t{cols} * std::min(4U, (rows + 14) / 15) * tokens);
      EXPECT_EQ(c.weight_bytes, bytes);
      EXPECT_EQ(c.residency_misses, 0U);
      EXPECT_GT(c.fabric_seconds, 0.0);
      EXPECT_EQ(c.host_seconds, 0.0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Every, AccountOfLayout, ::testing::ValuesIn(testing::kEveryLayout),
                         [](const auto& info) {
                           const std::string_view name = LayoutName(info.param);
                           return "Layout_" + std::string(name);
                         });

TEST(Account, CanBeTurnedOff) {
  WorkerTeam team(1);
  FabricOptions options;
  options.account = false;
  Workload w = MakeWorkload(20, 40, 1, 3);
  SimDevice device("sim", options, kernels::SupportedKernels().front(), &team);
  MatrixId id;
  ASSERT_EQ(device.Upload(std::move(w.matrix), &id), Status::kOk);
  const float scale = 1;
  const int32_t sum = 0;
  const ActivationView x{.kind = ActivationKind::kInt8Token,
                         .tokens = 1,
                         .cols = 40,
                         .codes = w.codes.data(),
                         .code_stride = 64,
                         .scales = &scale,
                         .scale_stride = 1,
                         .sums = &sum};
  std::vector<float> y(20);
  const ProjectionOp op{.matrix = id, .x = &x, .y = y.data(), .y_stride = 20};
  ASSERT_EQ(Execute(device, {&op, 1}), Status::kOk);
  EXPECT_EQ(device.Counters().total_ops, 0U);
  EXPECT_GT(device.Counters().weight_bytes, 0U);
}

TEST(Account, CountersAreReadableWhileTheDeviceRuns) {
  CounterBook book;
  std::atomic<bool> done{false};
  std::thread reader([&] {
    while (!done) {
      const DeviceCounters c = book.Read();
      EXPECT_EQ(c.total_ops, 2 * c.projections);
    }
  });
  for (int i = 0; i < 2000; ++i) book.Add({.projections = 1, .total_ops = 2});
  done = true;
  reader.join();
  EXPECT_EQ(book.Read().total_ops, 4000U);
}

}  // namespace
}  // namespace fabric::sim
