// Property: a quantised matrix gives back the rows that it was given; its scalar kernel computes
// the documented sums; and every supported instruction set gives the scalar kernel's bits for any
// shape, any rows in any order, any number of tokens, and every sketch.

#include "fabric/quantized_matrix.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "fabric/activations.h"
#include "fabric/half.h"
#include "fabric/kernels/kernel_table.h"
#include "tests/fabric/quantized_cases.h"

namespace fabric {
namespace {

using kernels::KernelTable;
using kernels::QuantizedFormat;
using kernels::QuantizedTile;
using Random = std::independent_bits_engine<std::mt19937, 32, uint32_t>;
using testing::kQuantizedTypes;
using Case = testing::QuantizedCase;

struct Activations {
  std::vector<int8_t> codes;
  std::vector<float> scales;
  uint32_t tokens;
  size_t stride;
  size_t blocks;

  Activations(uint32_t count, uint32_t cols, uint32_t seed)
      : tokens(count),
        stride((cols + kCodePadding - 1) / kCodePadding * kCodePadding),
        blocks(cols / kActivationBlock) {
    Random random(seed);
    std::uniform_real_distribution<float> scale(0.01F, 3.0F);
    codes.resize(tokens * stride);
    for (uint32_t t = 0; t < tokens; ++t) {
      const unsigned style = random() % 5;
      for (uint32_t c = 0; c < cols; ++c) {
        codes[t * stride + c] = static_cast<int8_t>(style == 0   ? 0x80U
                                                    : style == 1 ? 127U
                                                                 : random());
      }
    }
    scales.resize(tokens * blocks);
    for (float& s : scales) s = scale(random);
  }
};

std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
  return bits;
}

// [tokens, rows]
std::vector<float> RunRows(const KernelTable& table, const QuantizedMatrix& matrix,
                           const std::vector<uint32_t>& rows, const Activations& x,
                           uint32_t sketch_planes = 0) {
  const size_t stride = (rows.size() + 15) / 16 * 16;
  std::vector<float> padded(x.tokens * stride);
  QuantizedTile tile = matrix.Tile();
  tile.sketch_planes = sketch_planes;
  tile.rows = rows.data();
  tile.row_count = static_cast<uint32_t>(rows.size());
  tile.tokens = x.tokens;
  tile.codes = x.codes.data();
  tile.code_stride = x.stride;
  tile.x_scales = x.scales.data();
  tile.x_scale_stride = x.blocks;
  tile.out = padded.data();
  tile.out_stride = stride;
  table.quantized(tile);
  std::vector<float> out;
  for (uint32_t t = 0; t < x.tokens; ++t) {
    const auto first = padded.begin() + static_cast<ptrdiff_t>(t * stride);
    out.insert(out.end(), first, first + static_cast<ptrdiff_t>(rows.size()));
  }
  return out;
}

std::vector<uint32_t> AllRows(uint32_t rows) {
  std::vector<uint32_t> all(rows);
  std::iota(all.begin(), all.end(), 0U);
  return all;
}

uint32_t Dropped(QuantizedType type, uint32_t planes) {
  return kernels::DroppedBits(FormatOf(type), planes);
}

// The definition, written apart from the kernels: exact sums in int64, then the documented order.
float Naive(const Case& c, const Activations& x, uint32_t row, uint32_t token, uint32_t planes) {
  const QuantizedFormat& f = c.matrix.format();
  const uint32_t dropped = Dropped(c.matrix.type(), planes);
  float v = 0;
  for (uint32_t block = 0; block < x.blocks; ++block) {
    int64_t sum = 0;
    int64_t min_sum = 0;
    for (uint32_t col = block * 32; col < block * 32 + 32; ++col) {
      const int64_t code = x.codes[token * x.stride + col];
      sum += c.SubScale(row, col) * c.Level(row, col, dropped) * code;
      min_sum += c.SubMin(row, col) * code;
    }
    const float d = x.scales[token * x.blocks + block];
    v = std::fma(static_cast<float>(sum), c.Scale(row, block * 32) * d, v);
    if (f.mins) v = std::fma(static_cast<float>(min_sum), c.Min(row, block * 32) * d, v);
  }
  return v;
}

TEST(QuantizedMatrix, GivesBackItsRows) {
  for (const QuantizedType type : kQuantizedTypes) {
    const QuantizedFormat& f = FormatOf(type);
    const Case c(type, 5, 3 * f.super_block, 1);
    std::vector<float> row(c.matrix.cols());
    for (uint32_t r = 0; r < 5; ++r) {
      c.matrix.GetRow(r, row);
      for (uint32_t col = 0; col < row.size(); ++col) {
        const float scale = f.sub_scales ? c.Scale(r, col) * static_cast<float>(c.SubScale(r, col))
                                         : c.Scale(r, col);
        const float min =
            f.sub_scales ? c.Min(r, col) * static_cast<float>(c.SubMin(r, col)) : c.Min(r, col);
        const float weight = scale * static_cast<float>(c.Level(r, col, 0));
        ASSERT_EQ(row[col], f.mins ? weight + min : weight) << QuantizedTypeName(type);
      }
    }
  }
}

TEST(QuantizedMatrix, RefusesShapesThatItsBlocksDoNotCover) {
  EXPECT_THROW(QuantizedMatrix(QuantizedType::kQ6_K, 4, 128), std::invalid_argument);
  EXPECT_THROW(QuantizedMatrix(QuantizedType::kQ8_0, 4, 40), std::invalid_argument);
  EXPECT_THROW(QuantizedMatrix(QuantizedType::kQ8_0, 0, 32), std::invalid_argument);
}

TEST(QuantizedMatrix, TakesTheBitsThatItsHeaderPromises) {
  const auto bits_per_weight = [](QuantizedType type) {
    const QuantizedMatrix matrix(type, 1024, 1024);
    return static_cast<double>(matrix.bytes()) * 8 / (1024.0 * 1024.0);
  };
  EXPECT_NEAR(bits_per_weight(QuantizedType::kQ6_K), 6.5625, 0.01);
  EXPECT_NEAR(bits_per_weight(QuantizedType::kQ8_0), 8.5, 0.01);
  EXPECT_NEAR(bits_per_weight(QuantizedType::kQ4_0), 4.5, 0.01);
  EXPECT_NEAR(bits_per_weight(QuantizedType::kQ4_K), 4.625, 0.01);
  EXPECT_NEAR(bits_per_weight(QuantizedType::kQ2_K), 3.125, 0.01);
}

TEST(QuantizedKernels, ScalarComputesTheDocumentedSums) {
  for (const QuantizedType type : kQuantizedTypes) {
    const uint32_t cols = 2 * FormatOf(type).super_block;
    const Case c(type, 7, cols, 2);
    const Activations x(3, cols, 3);
    for (uint32_t planes = 0; planes < 2; ++planes) {
      if (planes > 0 && Dropped(type, planes) == 0) continue;
      std::vector<float> expected;
      for (uint32_t token = 0; token < 3; ++token) {
        for (uint32_t row = 0; row < 7; ++row) expected.push_back(Naive(c, x, row, token, planes));
      }
      const auto y = RunRows(kernels::SupportedKernels().back(), c.matrix, AllRows(7), x, planes);
      ASSERT_EQ(Bits(y), Bits(expected)) << QuantizedTypeName(type) << " planes " << planes;
    }
  }
}

struct Shape {
  uint32_t rows;
  uint32_t supers;
  uint32_t tokens;
};

TEST(QuantizedKernels, EverySupportedIsaMatchesScalar) {
  Random random(4);
  const std::vector<Shape> shapes = {{1, 1, 1},  {16, 1, 1},  {17, 2, 2},  {33, 3, 3},
                                     {64, 4, 4}, {5, 9, 5},   {48, 10, 7}, {31, 5, 8},
                                     {20, 7, 9}, {64, 2, 16}, {18, 3, 31}, {40, 11, 64}};
  for (const QuantizedType type : kQuantizedTypes) {
    for (const Shape& shape : shapes) {
      const uint32_t cols = shape.supers * FormatOf(type).super_block;
      const Case c(type, shape.rows, cols, random());
      const Activations x(shape.tokens, cols, random());
      // Any rows, repeated ones too.
      std::vector<uint32_t> rows = AllRows(shape.rows);
      if (random() % 2 == 0) {
        for (uint32_t& row : rows) row = random() % shape.rows;
      }
      for (uint32_t planes = 0; planes < 2; ++planes) {
        if (planes > 0 && Dropped(type, planes) == 0) continue;
        const std::span<const KernelTable> tables = kernels::SupportedKernels();
        const auto expected = Bits(RunRows(tables.back(), c.matrix, rows, x, planes));
        for (const KernelTable& table : tables.first(tables.size() - 1)) {
          ASSERT_EQ(Bits(RunRows(table, c.matrix, rows, x, planes)), expected)
              << table.name << ' ' << QuantizedTypeName(type) << ' ' << shape.rows << " x " << cols
              << " tokens " << shape.tokens << " planes " << planes;
        }
      }
    }
  }
}

// Columns beyond what the activations' sums are kept for at a time.
TEST(QuantizedKernels, VeryLongRowsMatchScalar) {
  for (const QuantizedType type : {QuantizedType::kQ6_K, QuantizedType::kQ4_K}) {
    const uint32_t cols = 130 * 256;
    const Case c(type, 3, cols, 5);
    const Activations x(9, cols, 6);
    const std::span<const KernelTable> tables = kernels::SupportedKernels();
    const auto expected = Bits(RunRows(tables.back(), c.matrix, AllRows(3), x));
    for (const KernelTable& table : tables) {
      ASSERT_EQ(Bits(RunRows(table, c.matrix, AllRows(3), x)), expected) << table.name;
    }
  }
}

TEST(QuantizedKernels, ATokensBitsDoNotDependOnItsBatch) {
  const Case c(QuantizedType::kQ5_K, 40, 1024, 7);
  const Activations x(33, 1024, 8);
  const KernelTable& table = kernels::SupportedKernels().front();
  const std::vector<float> all = RunRows(table, c.matrix, AllRows(40), x);
  for (uint32_t token = 0; token < 33; ++token) {
    Activations one = x;
    one.tokens = 1;
    one.codes.erase(one.codes.begin(),
                    one.codes.begin() + static_cast<ptrdiff_t>(token * x.stride));
    one.scales.erase(one.scales.begin(),
                     one.scales.begin() + static_cast<ptrdiff_t>(token * x.blocks));
    const auto first = all.begin() + token * 40;
    ASSERT_EQ(Bits(RunRows(table, c.matrix, AllRows(40), one)), Bits({first, first + 40}));
  }
}

}  // namespace
}  // namespace fabric
