// Dequantisation equals the reference vectors bit for bit, and half floats convert exactly.
#include "gguf/codec.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "gguf/error.h"
#include "gguf/writer.h"

namespace gguf {
namespace {

std::vector<std::byte> ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> chars((std::istreambuf_iterator<char>(file)), {});
  std::vector<std::byte> bytes(chars.size());
  std::memcpy(bytes.data(), chars.data(), chars.size());
  return bytes;
}

std::vector<float> Dequantize(TensorType type, uint64_t rows, uint64_t cols,
                              std::span<const std::byte> bytes) {
  TensorInfo info;
  info.name = "t";
  info.type = type;
  info.extents = {cols, rows, 1, 1};
  info.rank = 2;
  info.byte_size = bytes.size();
  std::vector<float> values(rows * cols);
  for (uint64_t row = 0; row < rows; ++row) {
    DequantizeRow(info, bytes, {}, row, std::span(values).subspan(row * cols, cols));
  }
  return values;
}

struct GoldenVector {
  const char* name;
  TensorType type;
};

class Golden : public testing::TestWithParam<GoldenVector> {};

TEST_P(Golden, DequantizesBitForBit) {
  const std::string base =
      std::string(TERN_SOURCE_DIR "/tests/data/golden/dequant/") + GetParam().name;
  const std::vector<std::byte> raw = ReadBytes(base + ".raw");
  const std::vector<std::byte> expected = ReadBytes(base + ".f32");
  ASSERT_FALSE(raw.empty());
  const uint64_t cols = expected.size() / sizeof(float);
  ASSERT_EQ(raw.size(), TensorByteSize(GetParam().type, 1, cols));

  const std::vector<float> values = Dequantize(GetParam().type, 1, cols, raw);
  for (uint64_t i = 0; i < cols; ++i) {
    uint32_t want;
    std::memcpy(&want, expected.data() + 4 * i, sizeof want);
    ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), want) << "weight " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Types, Golden,
    testing::Values(
        GoldenVector{"F16", TensorType::kF16}, GoldenVector{"BF16", TensorType::kBF16},
        GoldenVector{"Q4_0", TensorType::kQ4_0}, GoldenVector{"Q4_1", TensorType::kQ4_1},
        GoldenVector{"Q5_0", TensorType::kQ5_0}, GoldenVector{"Q5_1", TensorType::kQ5_1},
        GoldenVector{"Q8_0", TensorType::kQ8_0}, GoldenVector{"Q2_K", TensorType::kQ2_K},
        GoldenVector{"Q3_K", TensorType::kQ3_K}, GoldenVector{"Q4_K", TensorType::kQ4_K},
        GoldenVector{"Q5_K", TensorType::kQ5_K}, GoldenVector{"Q6_K", TensorType::kQ6_K},
        GoldenVector{"IQ4_NL", TensorType::kIQ4_NL}, GoldenVector{"IQ4_XS", TensorType::kIQ4_XS},
        GoldenVector{"TQ1_0", TensorType::kTQ1_0}, GoldenVector{"TQ2_0", TensorType::kTQ2_0}),
    [](const auto& info) { return info.param.name; });

TEST(Half, EveryValueSurvivesTheRoundTrip) {
  for (uint32_t half = 0; half < 65536; ++half) {
    const auto bits = static_cast<uint16_t>(half);
    const float value = HalfToFloat(bits);
    const bool nan = (half & 0x7c00) == 0x7c00 && (half & 0x3ff) != 0;
    EXPECT_EQ(std::isnan(value), nan);
    // A signalling NaN comes back quiet.
    EXPECT_EQ(FloatToHalf(value), nan ? bits | 0x200 : bits) << half;
  }
}

TEST(Half, KnownValues) {
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0f);
  EXPECT_EQ(HalfToFloat(0xc000), -2.0f);
  EXPECT_EQ(HalfToFloat(0x7bff), 65504.0f);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0x03ff), 1023 * 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0x7c00), std::numeric_limits<float>::infinity());
}

TEST(Half, RoundsToNearestEven) {
  // Every midpoint between neighbours goes to the even one, and just off it to the nearer one.
  for (uint32_t low = 0; low < 0x7bff; ++low) {
    const float a = HalfToFloat(static_cast<uint16_t>(low));
    const float b = HalfToFloat(static_cast<uint16_t>(low + 1));
    const float middle = 0.5f * (a + b);
    ASSERT_EQ(FloatToHalf(middle), low % 2 == 0 ? low : low + 1);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, a)), low);
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, b)), low + 1);
    ASSERT_EQ(FloatToHalf(-middle), 0x8000 | (low % 2 == 0 ? low : low + 1));
  }
  EXPECT_EQ(FloatToHalf(65519.996f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(1e-30f), 0);
}

}  // namespace
}  // namespace gguf
