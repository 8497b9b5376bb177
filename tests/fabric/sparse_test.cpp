// Property: a sparse form of a matrix holds its trits exactly, gives the integer sums of the plain
// product with every instruction set, and stays intact through any sequence of edits.

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <vector>

#include "fabric/kernels/kernel_table.h"
#include "fabric/sim/sim_device.h"
#include "fabric/sparse/trit_planes.h"

namespace fabric::sparse {
namespace {

// mt19937 gives 64-bit numbers on some systems.
using Random = std::independent_bits_engine<std::mt19937, 32, uint32_t>;

uint32_t Padded(uint32_t cols) { return (cols + kWordTrits - 1) / kWordTrits * kWordTrits; }

struct Case {
  std::vector<int8_t> trits;  // [rows, cols]
  TritPlanes planes;

  // density: probability of a non-zero; some rows are all zero, some all non-zero.
  static Case Make(uint32_t rows, uint32_t cols, double density, Random& random) {
    Case result{std::vector<int8_t>(size_t{rows} * cols), TritPlanes(rows, cols)};
    std::bernoulli_distribution nonzero(density);
    for (uint32_t row = 0; row < rows; ++row) {
      const unsigned style = random() % 10;
      for (uint32_t col = 0; col < cols; ++col) {
        const bool set = style == 0 ? false : style == 1 ? true : nonzero(random);
        const int8_t trit = !set ? int8_t{0} : (random() & 1) != 0 ? int8_t{1} : int8_t{-1};
        result.trits[size_t{row} * cols + col] = trit;
        result.planes.Set(row, col, trit);
      }
    }
    return result;
  }
};

// Extremes are frequent; what lies past cols is not zero, so that a kernel that uses it fails.
std::vector<int8_t> RandomCodes(size_t count, Random& random) {
  std::vector<int8_t> codes(count);
  for (int8_t& code : codes) {
    switch (random() % 6) {
      case 0:
        code = -128;
        break;
      case 1:
        code = 127;
        break;
      default:
        code = static_cast<int8_t>(random());
    }
  }
  return codes;
}

std::vector<int32_t> PlainSums(const Case& c, const std::vector<int8_t>& codes, size_t stride,
                               uint32_t tokens) {
  const uint32_t rows = c.planes.rows();
  const uint32_t cols = c.planes.cols();
  std::vector<int32_t> sums(size_t{tokens} * rows);
  for (uint32_t token = 0; token < tokens; ++token) {
    for (uint32_t row = 0; row < rows; ++row) {
      int32_t sum = 0;
      for (uint32_t col = 0; col < cols; ++col) {
        sum += c.trits[size_t{row} * cols + col] * codes[token * stride + col];
      }
      sums[size_t{token} * rows + row] = sum;
    }
  }
  return sums;
}

// Through a device, with scales of 1: floats hold these sums exactly.
std::vector<int32_t> LineSums(const kernels::KernelTable& table, const TritPlanes& planes,
                              const std::vector<int8_t>& codes, size_t stride, uint32_t tokens) {
  sim::SimDevice device("test", {}, table, nullptr);
  const float one = 1.0F;
  MatrixId id;
  EXPECT_EQ(device.Upload(planes.ToMatrix({&one, 1}), &id), Status::kOk);
  const std::vector<float> scales(tokens, 1.0F);
  const std::vector<int32_t> sums(tokens);  // of no use to kernels of non-zeros
  const ActivationView x{.kind = ActivationKind::kInt8Token,
                         .tokens = tokens,
                         .cols = planes.cols(),
                         .codes = codes.data(),
                         .code_stride = stride,
                         .scales = scales.data(),
                         .scale_stride = 1,
                         .sums = sums.data()};
  std::vector<float> y(size_t{tokens} * planes.rows());
  const ProjectionOp op{.matrix = id, .x = &x, .y = y.data(), .y_stride = planes.rows()};
  EXPECT_EQ(Execute(device, {&op, 1}), Status::kOk);
  return {y.begin(), y.end()};
}

TEST(SparseMatrix, EverySupportedIsaGivesThePlainSums) {
  Random random(1);
  const double densities[] = {0.0, 0.0005, 0.01, 0.05, 0.1, 0.4, 1.0};
  size_t checked = 0;
  for (int round = 0; round < 120; ++round) {
    const uint32_t rows = 1 + random() % 70;
    const uint32_t cols = 1 + random() % 700;
    const uint32_t tokens = 1 + random() % 9;
    const Case c = Case::Make(rows, cols, densities[random() % 7], random);
    const size_t stride = Padded(cols) + 64 * (random() % 2);
    const std::vector<int8_t> codes = RandomCodes(tokens * stride, random);
    const std::vector<int32_t> expected = PlainSums(c, codes, stride, tokens);
    for (const kernels::KernelTable& table : kernels::SupportedKernels()) {
      std::vector<int32_t> plane_sums(size_t{tokens} * rows, -7);
      Multiply(c.planes, table.sparse, 0, rows / 3, codes.data(), stride, tokens, plane_sums.data(),
               rows);
      Multiply(c.planes, table.sparse, rows / 3, rows, codes.data(), stride, tokens,
               plane_sums.data(), rows);
      ASSERT_EQ(LineSums(table, c.planes, codes, stride, tokens), expected)
          << table.name << ": lines, " << rows << " x " << cols;
      ASSERT_EQ(plane_sums, expected) << table.name << ": planes, " << rows << " x " << cols;
      ++checked;
    }
  }
  EXPECT_GE(checked, 120U);
}

TEST(SparseMatrix, HoldsTheTritsExactly) {
  Random random(2);
  for (int round = 0; round < 40; ++round) {
    const Case c = Case::Make(1 + random() % 50, 1 + random() % 500, 0.07, random);
    const std::vector<float> scales(c.planes.rows(), 0.5F);
    const TernaryMatrix sparse = c.planes.ToMatrix(scales);
    EXPECT_EQ(sparse.layout(), TernaryLayout::kSparse);
    EXPECT_EQ(sparse.CopyScales(), scales);
    const auto& counts = sparse.nonzeros_per_column();
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), uint64_t{0}), c.planes.nonzeros());
    const TritPlanes back = TritPlanes::FromMatrix(sparse);
    for (uint32_t row = 0; row < c.planes.rows(); ++row) {
      for (uint32_t col = 0; col < c.planes.cols(); ++col) {
        ASSERT_EQ(back.Get(row, col), c.trits[size_t{row} * c.planes.cols() + col]);
      }
    }
  }
}

// The figures of docs/fabric.md for a 4096-column matrix: at least 20 times smaller than F16 at 95
// % zeros and 50 times at 99 %.
TEST(SparseMatrix, IsFarSmallerThanHalfFloats) {
  Random random(3);
  const float one = 1.0F;
  for (const auto& [density, factor] : {std::pair{0.05, 20.0}, std::pair{0.01, 50.0}}) {
    TritPlanes planes(512, 4096);
    std::bernoulli_distribution nonzero(density);
    for (uint32_t row = 0; row < planes.rows(); ++row) {
      for (uint32_t col = 0; col < planes.cols(); ++col) {
        if (nonzero(random)) planes.Set(row, col, (random() & 1) != 0 ? int8_t{1} : int8_t{-1});
      }
    }
    const double half_bytes = 2.0 * planes.rows() * planes.cols();
    EXPECT_GE(half_bytes / static_cast<double>(planes.ToMatrix({&one, 1}).bytes()), factor);
  }
}

TEST(TritPlanes, TakeTheTritsOfATernaryMatrix) {
  TernaryMatrix matrix(3, 70, ScaleKind::kRow, 0, TernaryLayout::kPanel2Bit);
  Random random(4);
  std::vector<int8_t> trits(size_t{3} * 70);
  for (int8_t& trit : trits) trit = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
  const float scale = 0.5F;
  for (uint32_t row = 0; row < 3; ++row) matrix.SetRow(row, {&trits[row * 70], 70}, {&scale, 1});
  const TritPlanes planes = TritPlanes::FromMatrix(matrix);
  EXPECT_TRUE(planes.Intact());
  EXPECT_EQ(planes.version(), 0U);
  for (uint32_t row = 0; row < 3; ++row) {
    for (uint32_t col = 0; col < 70; ++col) {
      EXPECT_EQ(planes.Get(row, col), trits[row * 70 + col]);
    }
  }
}

TEST(TritPlanes, StayIntactThroughRandomEdits) {
  Random random(5);
  TritPlanes planes(7, 4200);  // more than one word of occupied bits per row
  std::vector<int8_t> model(size_t{7} * 4200);
  uint64_t changes = 0;
  for (int edit = 0; edit < 20000; ++edit) {
    const uint32_t row = random() % 7;
    const uint32_t col = random() % 4200;
    const auto trit = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
    changes += model[row * 4200 + col] != trit ? 1U : 0U;
    model[row * 4200 + col] = trit;
    planes.Set(row, col, trit);
  }
  EXPECT_TRUE(planes.Intact());
  EXPECT_EQ(planes.version(), changes);
  TritPlanes again(7, 4200);  // the same trits by another way
  for (uint32_t col = 4200; col-- > 0;) {
    for (uint32_t row = 0; row < 7; ++row) {
      ASSERT_EQ(planes.Get(row, col), model[row * 4200 + col]);
      again.Set(row, col, model[row * 4200 + col]);
    }
  }
  EXPECT_EQ(again.checksum(), planes.checksum());
  EXPECT_EQ(again.nonzeros(), planes.nonzeros());
  again.Set(3, 17, static_cast<int8_t>(again.Get(3, 17) == 0 ? 1 : 0));
  EXPECT_NE(again.checksum(), planes.checksum());
}

TEST(TritPlanes, ChecksumTellsSwappedWordsAndSigns) {
  TritPlanes a(1, 128);
  TritPlanes b(1, 128);
  a.Set(0, 3, 1);
  b.Set(0, 67, 1);
  EXPECT_NE(a.checksum(), b.checksum());
  b.Set(0, 67, 0);
  EXPECT_EQ(b.checksum(), 0U);
  b.Set(0, 3, -1);
  EXPECT_NE(a.checksum(), b.checksum());
}

TEST(SparseMatrix, IsNotFilledRowByRow) {
  EXPECT_THROW(TernaryMatrix(3, 5, ScaleKind::kTensor, 0, TernaryLayout::kSparse),
               std::invalid_argument);
  const std::vector<float> two(2, 1.0F);
  EXPECT_THROW(TritPlanes(3, 5).ToMatrix(two), std::invalid_argument);
}

TEST(TritPlanes, RefuseEmptyShapes) {
  EXPECT_THROW(TritPlanes(0, 5), std::invalid_argument);
  EXPECT_THROW(TritPlanes(5, 0), std::invalid_argument);
}

TEST(TritPlanes, DotIsTheSumOfProducts) {
  Random random(6);
  for (int round = 0; round < 50; ++round) {
    const Case c = Case::Make(2, 1 + random() % 300, 0.6, random);
    const uint32_t cols = c.planes.cols();
    int64_t expected = 0;
    for (uint32_t col = 0; col < cols; ++col) expected += c.trits[col] * c.trits[cols + col];
    EXPECT_EQ(Dot(c.planes.plus(0), c.planes.minus(0), c.planes.plus(1), c.planes.minus(1)),
              expected);
  }
}

}  // namespace
}  // namespace fabric::sparse
