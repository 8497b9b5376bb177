// Dequantisation equals the reference vectors bit for bit, and half floats convert exactly.
#include "gguf/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
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

// Values in [-1, 1] with some exact zeros, the same in every run.
std::vector<float> Weights(uint64_t count) {
  std::mt19937 random(11);
  std::vector<float> values(count);
  for (float& value : values) {
    value = random() % 16 == 0 ? 0.0f : static_cast<float>(random() % 20001) / 10000.0f - 1.0f;
  }
  return values;
}

TEST(EncodeTensor, FloatTypesRoundToNearest) {
  const std::vector<float> values = Weights(512);
  EXPECT_EQ(Dequantize(TensorType::kF32, 2, 256, EncodeTensor(TensorType::kF32, 2, 256, values)),
            values);
  const auto half =
      Dequantize(TensorType::kF16, 2, 256, EncodeTensor(TensorType::kF16, 2, 256, values));
  const auto bf16 =
      Dequantize(TensorType::kBF16, 2, 256, EncodeTensor(TensorType::kBF16, 2, 256, values));
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_LE(std::fabs(half[i] - values[i]), std::fabs(values[i]) * 0x1p-11f + 0x1p-25f);
    EXPECT_LE(std::fabs(bf16[i] - values[i]), std::fabs(values[i]) * 0x1p-8f);
  }
}

TEST(EncodeTensor, Bf16RoundsToEvenAndKeepsNaN) {
  const std::array values = {std::bit_cast<float>(0x3f808000u), std::bit_cast<float>(0x3f818000u),
                             std::bit_cast<float>(0x7f800001u), -std::numeric_limits<float>::max()};
  const auto back =
      Dequantize(TensorType::kBF16, 1, 4, EncodeTensor(TensorType::kBF16, 1, 4, values));
  EXPECT_EQ(std::bit_cast<uint32_t>(back[0]), 0x3f800000u);
  EXPECT_EQ(std::bit_cast<uint32_t>(back[1]), 0x3f820000u);
  EXPECT_TRUE(std::isnan(back[2]));
  EXPECT_EQ(back[3], -std::numeric_limits<float>::infinity());
}

struct Rounding {
  const char* name;
  TensorType type;
  float bound;  // largest error for weights in [-1, 1], derived at the instantiation
};

class Encoder : public testing::TestWithParam<Rounding> {};

TEST_P(Encoder, ErrsByHalfALevelAtMost) {
  const std::vector<float> values = Weights(1024);
  const auto back =
      Dequantize(GetParam().type, 2, 512, EncodeTensor(GetParam().type, 2, 512, values));
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_LE(std::fabs(back[i] - values[i]), GetParam().bound) << i;
  }
}

TEST_P(Encoder, KeepsZerosAndIsStable) {
  const std::vector<float> zeros(512, 0.0f);
  EXPECT_EQ(Dequantize(GetParam().type, 1, 512, EncodeTensor(GetParam().type, 1, 512, zeros)),
            zeros);
  std::vector<float> lopsided(512, 0.25f);  // one sign only: the offset types take their minimum
  lopsided[3] = 1.0f;
  const auto back =
      Dequantize(GetParam().type, 1, 512, EncodeTensor(GetParam().type, 1, 512, lopsided));
  EXPECT_NEAR(back[3], 1.0f, GetParam().bound);
}

// Half a step, where the step is the range over the levels: symmetric types span [-1, 1) so the end
// opposite to the extreme may be clipped by a whole step; those with a minimum span 2 over
// levels-1. A thousandth covers the rounding of the float16 scale.
INSTANTIATE_TEST_SUITE_P(Types, Encoder,
                         testing::Values(Rounding{"Q4_0", TensorType::kQ4_0, 1.0f / 8 + 1e-3f},
                                         Rounding{"Q4_1", TensorType::kQ4_1, 1.0f / 15 + 1e-3f},
                                         Rounding{"Q5_0", TensorType::kQ5_0, 1.0f / 16 + 1e-3f},
                                         Rounding{"Q5_1", TensorType::kQ5_1, 1.0f / 31 + 1e-3f},
                                         Rounding{"Q8_0", TensorType::kQ8_0, 0.5f / 127 + 1e-3f}),
                         [](const auto& info) { return info.param.name; });

TEST(EncodeTensor, TernaryTypesKeepExactTernaryWeights) {
  std::mt19937 random(5);
  std::vector<float> values(4 * 256);
  for (float& value : values)
    value = 0.375f * static_cast<float>(static_cast<int>(random() % 3) - 1);
  for (const TensorType type :
       {TensorType::kTQ1_0, TensorType::kTQ2_0, TensorType::kI2_S, TensorType::kQ2_0,
        TensorType::kQ2_0_G128, TensorType::kPQ2_0, TensorType::kPTQ1_0, TensorType::kIQ1_BN,
        TensorType::kIQ2_BN, TensorType::kIQ2_BN_R4}) {
    EXPECT_EQ(Dequantize(type, 4, 256, EncodeTensor(type, 4, 256, values)), values)
        << TypeName(type);
  }
}

TEST(EncodeTensor, TernaryTypesRoundToTheNearestOfThree) {
  std::vector<float> values(256, 0.0f);
  values[0] = -1.0f;
  values[1] = 0.49f;
  values[2] = -0.51f;
  const auto back =
      Dequantize(TensorType::kTQ2_0, 1, 256, EncodeTensor(TensorType::kTQ2_0, 1, 256, values));
  EXPECT_EQ(back[0], -1.0f);
  EXPECT_EQ(back[1], 0.0f);
  EXPECT_EQ(back[2], -1.0f);
}

std::string EncodeRefusal(TensorType type, uint64_t cols, float value) {
  try {
    EncodeTensor(type, 1, cols, std::vector<float>(cols, value));
  } catch (const FormatError& error) {
    return error.what();
  }
  return {};
}

TEST(EncodeTensor, RefusesWhatTheTypeCannotHold) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const TensorType type :
       {TensorType::kF16, TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0,
        TensorType::kQ5_1, TensorType::kQ8_0, TensorType::kQ2_K, TensorType::kQ3_K,
        TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K, TensorType::kIQ4_NL,
        TensorType::kIQ4_XS, TensorType::kTQ1_0, TensorType::kI2_S}) {
    EXPECT_NE(EncodeRefusal(type, 256, nan), "") << TypeName(type);
    EXPECT_NE(EncodeRefusal(type, 256, -infinity), "") << TypeName(type);
  }
  for (const TensorType type : {TensorType::kQ4_K, TensorType::kIQ4_NL, TensorType::kQ8_0}) {
    EXPECT_THAT(EncodeRefusal(type, 256, 65536.0f), testing::HasSubstr("numbers up to 65504"));
  }
  EXPECT_NE(EncodeRefusal(TensorType::kQ8_0, 256, 1e9f), "");
  EXPECT_NE(EncodeRefusal(TensorType::kTQ2_0, 256, 1e9f), "");
  EXPECT_EQ(EncodeRefusal(TensorType::kI2_S, 256, 1e9f), "");
  EXPECT_NE(EncodeRefusal(TensorType::kQ8_0, 40, 1.0f), "");  // no whole blocks
  EXPECT_NE(EncodeRefusal(TensorType::kQ4_K, 128, 1.0f), "");
}

}  // namespace
}  // namespace gguf
