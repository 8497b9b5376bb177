// Property: the ternary planes of a quantised matrix add up to its very codes, for every type and
// any blocks; products of such planes have the bits of the quantised kernels, with every
// instruction set, on every device; and with fewer planes each level becomes the nearest one that
// they can say, at the error that was estimated, and each plane is charged as a product of its own.

#include "fabric/plane_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "fabric/device.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/sim/sim_device.h"
#include "tests/fabric/cases.h"
#include "tests/fabric/quantized_cases.h"

namespace fabric {
namespace {

using kernels::KernelTable;
using testing::Bits;
using testing::Codes;
using testing::kQuantizedTypes;
using testing::QuantizedCase;
using testing::Random;

// A matrix and the planes that hold it exactly, or as many as wanted.
struct Case {
  std::shared_ptr<const QuantizedMatrix> quantized;
  std::shared_ptr<const PlaneMatrix> planes;

  Case(QuantizedType type, uint32_t rows, uint32_t cols, uint32_t seed, uint32_t count = 0) {
    auto source = QuantizedCase(type, rows, cols, seed);
    const auto choices = MeasurePlanes(source.matrix);
    const PlaneChoice& choice = count == 0 ? choices.back() : choices.at(count - 1);
    planes = std::make_shared<const PlaneMatrix>(source.matrix, choice);
    quantized = std::make_shared<const QuantizedMatrix>(std::move(source.matrix));
  }
};

// Shared is a pointer to a quantised matrix or to planes.
template <typename Shared>
std::vector<float> Project(Device& device, const Shared& matrix, const ActivationView& x) {
  MatrixId id;
  EXPECT_EQ(device.Upload(matrix, &id), Status::kOk);
  std::vector<float> y(size_t{x.tokens} * matrix->rows(), -7.0F);
  const ProjectionOp op{.matrix = id, .x = &x, .y = y.data(), .y_stride = matrix->rows()};
  EXPECT_EQ(Execute(device, {&op, 1}), Status::kOk);
  return y;
}

template <typename Shared>
std::vector<float> Project(const KernelTable& table, WorkerTeam* team, const Shared& matrix,
                           const ActivationView& x) {
  sim::SimDevice device("test", {}, table, team);
  return Project(device, matrix, x);
}

TEST(PlaneMatrix, TakesThePlanesThatTheDesignCounts) {
  EXPECT_EQ(ExactPlanes(QuantizedType::kQ4_0), 3U);
  EXPECT_EQ(ExactPlanes(QuantizedType::kQ4_K), 3U);
  EXPECT_EQ(ExactPlanes(QuantizedType::kQ5_K), 4U);
  EXPECT_EQ(ExactPlanes(QuantizedType::kQ6_K), 4U);
  EXPECT_EQ(ExactPlanes(QuantizedType::kQ8_0), 6U);
  EXPECT_EQ(ExactPlanes(QuantizedType::kQ2_K), 2U);
  EXPECT_EQ(ExactPlanes(QuantizedType::kQ3_K), 2U);
}

// Every level of every type occurs, and rows of nothing but the extremes.
TEST(PlaneMatrix, PlanesAddUpToTheExactCodes) {
  for (const QuantizedType type : kQuantizedTypes) {
    const Case c(type, 37, 4 * FormatOf(type).super_block * (256 / FormatOf(type).super_block), 11);
    ASSERT_EQ(c.planes->choice().error, 0) << QuantizedTypeName(type);
    ASSERT_EQ(c.planes->planes().size(), ExactPlanes(type));
    std::set<int16_t> seen;
    std::vector<int16_t> expected(c.planes->cols());
    std::vector<int16_t> levels(c.planes->cols());
    for (uint32_t row = 0; row < c.planes->rows(); ++row) {
      c.quantized->GetLevels(row, expected);
      c.planes->GetLevels(row, levels);
      ASSERT_EQ(levels, expected) << QuantizedTypeName(type) << " row " << row;
      seen.insert(levels.begin(), levels.end());
    }
    const size_t all = FormatOf(type).nonlinear ? 16 : 1U << CodeBits(FormatOf(type));
    EXPECT_EQ(seen.size(), all) << QuantizedTypeName(type);
    // Each plane is a matrix of trits with radix-3 weights: nothing else holds a part of the codes.
    for (size_t p = 0; p < c.planes->planes().size(); ++p) {
      EXPECT_EQ(c.planes->weights()[p], static_cast<int>(std::lround(std::pow(3, p))));
    }
  }
}

TEST(PlaneMatrix, ExactProductsHaveTheBitsOfTheQuantisedKernels) {
  WorkerTeam team(2);
  Random random(12);
  struct Shape {
    uint32_t rows, supers, tokens;
  };
  const std::vector<Shape> shapes = {{1, 1, 1}, {16, 1, 2}, {17, 2, 1}, {70, 3, 5}, {130, 9, 3}};
  for (const QuantizedType type : kQuantizedTypes) {
    for (const Shape& shape : shapes) {
      const uint32_t cols = shape.supers * FormatOf(type).super_block;
      const Case c(type, shape.rows, cols, random());
      const Codes x = Codes::Make(ActivationKind::kInt8Block, shape.tokens, cols, random());
      const KernelTable& scalar = kernels::SupportedKernels().back();
      const auto expected = Bits(Project(scalar, nullptr, c.quantized, x.view));
      for (const KernelTable& table : kernels::SupportedKernels()) {
        ASSERT_EQ(Bits(Project(table, &team, c.planes, x.view)), expected)
            << table.name << ' ' << QuantizedTypeName(type) << ' ' << shape.rows << " x " << cols
            << " tokens " << shape.tokens;
      }
    }
  }
}

// Columns up to the limit, where the sums of sub-blocks fill their place on the stack.
TEST(PlaneMatrix, VeryLongRowsHaveTheBitsOfTheQuantisedKernels) {
  const uint32_t cols = 511 * 256;
  const Case c(QuantizedType::kQ6_K, 3, cols, 13);
  const Codes x = Codes::Make(ActivationKind::kInt8Block, 2, cols, 14);
  for (const KernelTable& table : kernels::SupportedKernels()) {
    ASSERT_EQ(Bits(Project(table, nullptr, c.planes, x.view)),
              Bits(Project(table, nullptr, c.quantized, x.view)))
        << table.name;
  }
}

TEST(PlaneMatrix, EveryDeviceGivesTheSameBits) {
  WorkerTeam team(2);
  const Codes x = Codes::Make(ActivationKind::kInt8Block, 3, 512, 15);
  for (const uint32_t count : {1U, 2U, 0U}) {
    const Case c(QuantizedType::kQ4_K, 90, 512, 16, count);
    std::vector<uint32_t> expected;
    for (const char* name : {"reference", "sim", "stub", "ioctl"}) {
      for (const uint32_t devices : {1U, 3U}) {
        FabricOptions options;
        options.device = name;
        options.devices = devices;
        const auto device = CreateDevice(options, team);
        const auto y = Bits(Project(*device, c.planes, x.view));
        if (expected.empty()) expected = y;
        EXPECT_EQ(y, expected) << name << " x " << devices << ", planes " << count;
        EXPECT_EQ(device->Counters().TotalFaults(), 0U) << name;
      }
    }
    if (count == 0) {
      EXPECT_EQ(expected, Bits(Project(kernels::ActiveKernels(), &team, c.quantized, x.view)));
    }
  }
}

// Brute force: what is nearest among all sums of the planes.
TEST(PlaneMatrix, FewerPlanesSayTheNearestLevelThatTheyCan) {
  for (const QuantizedType type : kQuantizedTypes) {
    for (uint32_t count = 1; count < ExactPlanes(type); ++count) {
      const Case c(type, 20, 256, 17, count);
      const int step = c.planes->choice().step;
      int largest = 0;
      for (uint32_t p = 0; p < count; ++p) largest = 3 * largest + 1;
      std::vector<int16_t> exact(256);
      std::vector<int16_t> said(256);
      for (uint32_t row = 0; row < 20; ++row) {
        c.quantized->GetLevels(row, exact);
        c.planes->GetLevels(row, said);
        const int offset = FormatOf(type).mins ? 1 << (CodeBits(FormatOf(type)) - 1) : 0;
        for (size_t col = 0; col < exact.size(); ++col) {
          int nearest = 1000;
          for (int m = -largest; m <= largest; ++m) {
            nearest = std::min(nearest, std::abs(exact[col] - offset - m * step));
          }
          ASSERT_EQ(std::abs(exact[col] - said[col]), nearest)
              << QuantizedTypeName(type) << " planes " << count << " level " << exact[col];
        }
      }
    }
  }
}

// ||W - W'|| / ||W||, each column times the root of its weight.
double WeightedError(const QuantizedCase& c, uint32_t rows, const PlaneChoice& choice,
                     const std::vector<double>& weights) {
  const PlaneMatrix planes(c.matrix, choice);
  const auto cols = static_cast<uint32_t>(weights.size());
  std::vector<int16_t> exact(cols);
  std::vector<int16_t> said(cols);
  double norm = 0;
  double missed = 0;
  for (uint32_t row = 0; row < rows; ++row) {
    c.matrix.GetLevels(row, exact);
    planes.GetLevels(row, said);
    for (uint32_t col = 0; col < cols; ++col) {
      const double scale = double{c.Scale(row, col)} * c.SubScale(row, col);
      const bool mins = FormatOf(c.matrix.type()).mins;
      const double min = mins ? double{c.Min(row, col)} * c.SubMin(row, col) : 0.0;
      norm += weights[col] * std::pow(scale * exact[col] + min, 2);
      missed += weights[col] * std::pow(scale * (exact[col] - said[col]), 2);
    }
  }
  return std::sqrt(missed / norm);
}

// The error is that of the columns as they are weighed, and no other step would err less so.
TEST(PlaneMatrix, WeighsTheErrorByWhatComesIn) {
  const uint32_t rows = 70;
  const uint32_t cols = 512;
  Random random(5);
  std::vector<float> mean_squares(cols);
  std::vector<double> weights(cols);
  for (float& mean : mean_squares) mean = static_cast<float>(random() % 1000) / 100;
  mean_squares[7] = 0;  // counts as a thousandth of the mean
  const double mean = std::accumulate(mean_squares.begin(), mean_squares.end(), 0.0) / cols;
  for (uint32_t col = 0; col < cols; ++col) {
    weights[col] = std::max(mean_squares[col] / mean, 1e-3);
  }
  for (const QuantizedType type : {QuantizedType::kQ4_K, QuantizedType::kQ6_K}) {
    const QuantizedCase c(type, rows, cols, 21);
    const auto plain = MeasurePlanes(c.matrix);
    for (const PlaneChoice& choice : MeasurePlanes(c.matrix, mean_squares)) {
      EXPECT_NEAR(choice.error, WeightedError(c, rows, choice, weights), 1e-6);
      for (int32_t step = 1; step < 20; ++step) {
        const PlaneChoice other{.planes = choice.planes, .step = step};
        EXPECT_GE(WeightedError(c, rows, other, weights), choice.error - 1e-6) << step;
      }
    }
    EXPECT_EQ(MeasurePlanes(c.matrix, mean_squares).back().error, 0);
    const std::vector<float> alike(cols, 3.0F);
    const std::vector<float> nothing(cols, 0.0F);
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_NEAR(MeasurePlanes(c.matrix, alike)[i].error, plain[i].error, 1e-9);
      EXPECT_EQ(MeasurePlanes(c.matrix, nothing)[i].error, plain[i].error);
    }
  }
}

TEST(PlaneMatrix, EstimatesTheErrorThatItsWeightsHave) {
  for (const QuantizedType type : kQuantizedTypes) {
    const uint32_t rows = 130;
    const QuantizedCase c(type, rows, 512, 18);
    const auto choices = MeasurePlanes(c.matrix);
    ASSERT_EQ(choices.size(), ExactPlanes(type));
    double before = 2;
    for (const PlaneChoice& choice : choices) {
      const PlaneMatrix planes(c.matrix, choice);
      std::vector<int16_t> exact(512);
      std::vector<int16_t> said(512);
      double norm = 0;
      double missed = 0;
      for (uint32_t row = 0; row < rows; ++row) {
        c.matrix.GetLevels(row, exact);
        planes.GetLevels(row, said);
        for (uint32_t col = 0; col < 512; ++col) {
          const double scale = double{c.Scale(row, col)} * c.SubScale(row, col);
          const double min = double{c.Min(row, col)} * c.SubMin(row, col);
          const double weight = scale * exact[col] + (FormatOf(type).mins ? min : 0.0);
          norm += weight * weight;
          missed += std::pow(scale * (exact[col] - said[col]), 2);
        }
      }
      EXPECT_NEAR(choice.error, std::sqrt(missed / norm), 1e-6) << QuantizedTypeName(type);
      EXPECT_LT(choice.error, before) << QuantizedTypeName(type) << " planes " << choice.planes;
      before = choice.error;
    }
    EXPECT_EQ(before, 0);
  }
}

// 1024 weights of each of 256 rows against inputs without a pattern: the error of the products.
TEST(PlaneMatrix, EstimateIsTheErrorOfProducts) {
  WorkerTeam team(2);
  for (const uint32_t count : {1U, 2U, 3U}) {
    const Case c(QuantizedType::kQ6_K, 256, 1024, 19, count);
    Codes x = Codes::Make(ActivationKind::kInt8Block, 1, 1024, 20);
    Random random(21);
    for (int8_t& code : x.codes) code = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
    for (float& scale : x.scales) scale = 1;
    const auto exact = Project(kernels::ActiveKernels(), &team, c.quantized, x.view);
    const auto said = Project(kernels::ActiveKernels(), &team, c.planes, x.view);
    double norm = 0;
    double missed = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      norm += double{exact[i]} * exact[i];
      missed += std::pow(double{exact[i]} - said[i], 2);
    }
    const double error = std::sqrt(missed / norm);
    EXPECT_GT(error, 0.6 * c.planes->choice().error) << count;
    EXPECT_LT(error, 1.6 * c.planes->choice().error) << count;
  }
}

TEST(PlaneMatrix, EveryPlaneIsAProductInTheAccount) {
  WorkerTeam team(2);
  const Case c(QuantizedType::kQ5_K, 50, 256, 22);
  const Codes x = Codes::Make(ActivationKind::kInt8Block, 3, 256, 23);
  const auto device = CreateDevice({}, team);
  Project(*device, c.planes, x.view);
  uint64_t active = 0;
  std::vector<int8_t> trits(256);
  for (const TernaryMatrix& plane : c.planes->planes()) {
    for (uint32_t row = 0; row < 50; ++row) {
      plane.GetRow(row, trits);
      for (uint32_t token = 0; token < 3; ++token) {
        for (uint32_t col = 0; col < 256; ++col) {
          active += trits[col] != 0 && x.codes[token * x.view.code_stride + col] != 0 ? 1 : 0;
        }
      }
    }
  }
  const DeviceCounters counters = device->Counters();
  EXPECT_EQ(counters.projections, 4U * 3U);
  EXPECT_EQ(counters.total_ops, uint64_t{4} * 3 * 50 * 256);
  EXPECT_EQ(counters.active_ops, active);
  EXPECT_EQ(counters.mem_reads, uint64_t{4} * 3 * 50 * 256 / 5);
  EXPECT_EQ(counters.weight_bytes, c.planes->bytes());
  EXPECT_EQ(counters.dense_bytes, 0U);
}

// A matrix of trits that stays with the host has the same bits, and the Fabric knows nothing of it.
TEST(HostMatrix, IsNotInTheAccount) {
  WorkerTeam team(2);
  const Codes x = Codes::Make(ActivationKind::kInt8Token, 2, 320, 24);
  const auto matrix = [] {
    return testing::TernaryCase::Make(70, 320, ScaleKind::kRow, 0, TernaryLayout::kPanel2Bit, 25)
        .matrix;
  };
  std::vector<uint32_t> expected;
  for (const char* name : {"sim", "reference", "stub", "ioctl"}) {
    for (const uint32_t devices : {1U, 2U}) {
      FabricOptions options;
      options.device = name;
      options.devices = devices;
      const auto device = CreateDevice(options, team);
      MatrixId on_fabric;
      MatrixId on_host;
      ASSERT_EQ(device->Upload(matrix(), &on_fabric), Status::kOk);
      ASSERT_EQ(device->UploadToHost(matrix(), &on_host), Status::kOk);
      std::vector<float> y(140);
      std::vector<float> z(140);
      const ProjectionOp to_fabric{
          .matrix = on_fabric, .x = &x.view, .y = y.data(), .y_stride = 70};
      ASSERT_EQ(Execute(*device, {&to_fabric, 1}), Status::kOk);
      const DeviceCounters before = device->Counters();
      EXPECT_GT(before.total_ops, 0U) << name;
      const ProjectionOp to_host{.matrix = on_host, .x = &x.view, .y = z.data(), .y_stride = 70};
      ASSERT_EQ(Execute(*device, {&to_host, 1}), Status::kOk);
      const DeviceCounters after = device->Counters();
      EXPECT_EQ(after.total_ops, before.total_ops) << name;
      EXPECT_EQ(after.weight_bytes, before.weight_bytes) << name;
      EXPECT_GT(after.dense_bytes, before.dense_bytes) << name;
      EXPECT_GT(after.host_seconds, before.host_seconds) << name;
      if (expected.empty()) expected = Bits(y);
      EXPECT_EQ(Bits(y), expected) << name;
      EXPECT_EQ(Bits(z), expected) << name;
    }
  }
}

}  // namespace
}  // namespace fabric
