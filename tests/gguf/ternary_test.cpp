// Every ternary format holds the same trits: each byte value of each format decodes as the format's
// definition says, the same weights survive every format, and what a format cannot hold is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "gguf/codec.h"
#include "gguf/error.h"
#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tests/support/gguf_builder.h"

namespace gguf {
namespace {

using testing::HasSubstr;

// A matrix in one format.
struct Encoded {
  TensorInfo info;
  std::vector<std::byte> bytes;
  ReadOptions options;
};

Encoded Wrap(TensorType type, uint64_t rows, uint64_t cols, std::vector<std::byte> bytes,
             I2SLayout layout = I2SLayout::kX86) {
  Encoded encoded;
  encoded.info.name = std::string("w");
  encoded.info.type = type;
  encoded.info.extents = {cols, rows, 1, 1};
  encoded.info.rank = 2;
  encoded.info.byte_size = bytes.size();
  encoded.bytes = std::move(bytes);
  encoded.options.i2s_layout = layout;
  return encoded;
}

struct Decoded {
  std::vector<int8_t> trits;
  std::vector<float> scales;  // [rows, scales_per_row]
  uint32_t group;
  ScaleLayout layout;
};

Decoded Decode(const Encoded& encoded) {
  const TernaryDecoder decoder(encoded.info, encoded.bytes, encoded.options);
  const uint64_t cols = encoded.info.cols();
  const uint64_t per_row = decoder.scales_per_row();
  Decoded decoded;
  decoded.group = decoder.group();
  decoded.layout = decoder.scale_layout();
  decoded.trits.resize(encoded.info.elements());
  decoded.scales.resize(encoded.info.rows() * per_row);
  for (uint64_t row = 0; row < encoded.info.rows(); ++row) {
    decoder.DecodeRow(row, std::span(decoded.trits).subspan(row * cols, cols),
                      std::span(decoded.scales).subspan(row * per_row, per_row));
  }
  return decoded;
}

std::string ErrorOf(const std::function<void()>& action) {
  try {
    action();
  } catch (const FormatError& error) {
    return error.what();
  }
  return {};
}

// Where weight i of a block lies, by the definitions of docs/ternary_format.md and independently of
// the codec: in two-bit formats (byte, shift), in base-3 formats (byte, digit from the top).
struct Place {
  size_t byte;
  int position;
};

enum class Coding { kTwoBit, kBase3, kBit };

struct FormatCase {
  const char* name;
  TensorType type;
  I2SLayout layout;
  Coding coding;
  size_t block_cols;
  size_t code_offset;  // of the first code byte in a tensor of one block (and one row group)
  size_t code_bytes;
  Place (*place)(size_t i);
};

Place PlaceTq1(size_t i) {
  if (i < 160) return {i % 32, static_cast<int>(i / 32)};
  if (i < 240) return {32 + (i - 160) % 16, static_cast<int>((i - 160) / 16)};
  return {48 + (i - 240) % 4, static_cast<int>((i - 240) / 4)};
}
Place PlacePtq1(size_t i) {
  if (i < 80) return {i % 16, static_cast<int>(i / 16)};
  if (i < 120) return {16 + (i - 80) % 8, static_cast<int>((i - 80) / 8)};
  return {24 + (i - 120) % 2, static_cast<int>((i - 120) / 2)};
}
Place PlaceIq1Bn(size_t i) {
  // Least significant digit first: digit j of five is 4 - j from the top.
  if (i % 16 == 15) return {12, 4 - static_cast<int>(i / 16)};
  return {i / 16 * 3 + i % 16 / 5, 4 - static_cast<int>(i % 16 % 5)};
}
Place PlaceTq2(size_t i) { return {i / 128 * 32 + i % 32, static_cast<int>(i / 32 % 4) * 2}; }
Place PlaceI2SX86(size_t i) { return {i % 32, 6 - static_cast<int>(i / 32) * 2}; }
Place PlaceI2SArm(size_t i) { return {i % 16, 6 - static_cast<int>(i / 16) * 2}; }
Place PlaceQ2(size_t i) { return {i / 4, static_cast<int>(i % 4) * 2}; }
Place PlaceIq2Bn(size_t i) { return {i % 16, static_cast<int>(i / 16) * 2}; }
Place PlaceQ1(size_t i) { return {i / 8, static_cast<int>(i % 8)}; }
// Row 0 of the four interleaved ones.
Place PlaceIq2BnR4(size_t i) { return {i / 16 * 16 + i % 4, static_cast<int>(i % 16 / 4) * 2}; }
Place PlaceI2SRows(size_t i) { return {i, 6}; }

constexpr I2SLayout kX86 = I2SLayout::kX86;

const FormatCase kFormatCases[] = {
    {"TQ1_0", TensorType::kTQ1_0, kX86, Coding::kBase3, 256, 0, 52, PlaceTq1},
    {"TQ2_0", TensorType::kTQ2_0, kX86, Coding::kTwoBit, 256, 0, 64, PlaceTq2},
    {"I2_S", TensorType::kI2_S, kX86, Coding::kTwoBit, 128, 0, 32, PlaceI2SX86},
    {"I2_S_arm", TensorType::kI2_S, I2SLayout::kArm64, Coding::kTwoBit, 64, 0, 16, PlaceI2SArm},
    {"I2_S_rows", TensorType::kI2_S, I2SLayout::kInterleaved4, Coding::kTwoBit, 64, 0, 64,
     PlaceI2SRows},
    {"Q1_0", TensorType::kQ1_0, kX86, Coding::kBit, 128, 2, 16, PlaceQ1},
    {"Q2_0", TensorType::kQ2_0, kX86, Coding::kTwoBit, 64, 2, 16, PlaceQ2},
    {"Q2_0_G128", TensorType::kQ2_0_G128, kX86, Coding::kTwoBit, 128, 2, 32, PlaceQ2},
    {"PQ2_0", TensorType::kPQ2_0, kX86, Coding::kTwoBit, 128, 2, 32, PlaceQ2},
    {"PTQ1_0", TensorType::kPTQ1_0, kX86, Coding::kBase3, 128, 0, 26, PlacePtq1},
    {"IQ1_BN", TensorType::kIQ1_BN, kX86, Coding::kBase3, 64, 2, 13, PlaceIq1Bn},
    {"IQ2_BN", TensorType::kIQ2_BN, kX86, Coding::kTwoBit, 64, 4, 16, PlaceIq2Bn},
    {"IQ2_BN_R4", TensorType::kIQ2_BN_R4, kX86, Coding::kTwoBit, 64, 16, 64, PlaceIq2BnR4},
};

class TernaryFormats : public testing::TestWithParam<FormatCase> {
 protected:
  uint64_t Rows() const {
    const bool four =
        GetParam().type == TensorType::kIQ2_BN_R4 || GetParam().layout == I2SLayout::kInterleaved4;
    return four ? 4 : 1;
  }

  // One block (of one row group) whose trits are all `trit`, scale 1.
  Encoded Uniform(int8_t trit) const {
    const std::vector<int8_t> trits(Rows() * GetParam().block_cols, trit);
    return Wrap(GetParam().type, Rows(), GetParam().block_cols,
                EncodeTernary(GetParam().type, Rows(), GetParam().block_cols, trits,
                              ScaleLayout::kTensor, 0, std::array{1.0f}, GetParam().layout),
                GetParam().layout);
  }

  // The code that `byte` holds at `position`, from the definition.
  int Code(uint8_t byte, int position) const {
    switch (GetParam().coding) {
      case Coding::kTwoBit:
        return (byte >> position) & 3;
      case Coding::kBit:
        return ((byte >> position) & 1) * 2;
      case Coding::kBase3:
        break;
    }
    // byte = ceil(q * 256 / 243), so q is the floor of the inverse.
    int q = byte * 243 / 256;
    for (int i = position; i < 4; ++i) q /= 3;
    return q % 3;
  }

  // True when some encoder writes `byte` at index `at`.
  bool Written(uint8_t byte, size_t at) const {
    if (GetParam().coding == Coding::kBit) return true;
    int trits = 0;
    int last = 4;  // position of the least significant digit in use
    for (size_t i = 0; i < GetParam().block_cols; ++i) {
      if (GetParam().place(i).byte == at) ++trits;
    }
    if (trits == 0) return true;  // another row's byte
    if (GetParam().coding == Coding::kTwoBit) {
      for (size_t i = 0; i < GetParam().block_cols; ++i) {
        const Place place = GetParam().place(i);
        if (place.byte == at && Code(byte, place.position) == 3) return false;
      }
      return true;
    }
    const bool low_digits = GetParam().type == TensorType::kIQ1_BN && at == 12;
    if (trits == 4 && !low_digits) last = 3;
    for (int q = 0; q < 243; ++q) {
      if ((q * 256 + 242) / 243 != byte) continue;
      if (last == 3 && q % 3 != 0) return false;
      return !low_digits || q < 81;
    }
    return false;
  }
};

TEST_P(TernaryFormats, EveryByteValueDecodesAsDefined) {
  const FormatCase& format = GetParam();
  const Encoded zeros = Uniform(format.coding == Coding::kBit ? 1 : 0);
  const Decoded plain = Decode(zeros);
  for (size_t at = 0; at < format.code_bytes; ++at) {
    for (int value = 0; value < 256; ++value) {
      const auto byte = static_cast<uint8_t>(value);
      Encoded encoded = zeros;
      encoded.bytes[format.code_offset + at] = static_cast<std::byte>(byte);
      std::vector<float> row(format.block_cols);
      DequantizeRow(encoded.info, encoded.bytes, encoded.options, 0, row);
      for (size_t i = 0; i < format.block_cols; ++i) {
        const Place place = format.place(i);
        const int expected = place.byte == at ? Code(byte, place.position) - 1 : plain.trits[i];
        ASSERT_EQ(row[i], static_cast<float>(expected)) << at << " " << value << " " << i;
      }
      std::vector<int8_t> trits(format.block_cols);
      std::array<float, 1> scale;
      const TernaryDecoder decoder(encoded.info, encoded.bytes, encoded.options);
      const std::string error = ErrorOf([&] { decoder.DecodeRow(0, trits, scale); });
      ASSERT_EQ(error.empty(), Written(byte, at)) << at << " " << value << ": " << error;
      if (!error.empty()) continue;
      for (size_t i = 0; i < format.block_cols; ++i) {
        ASSERT_EQ(static_cast<float>(trits[i]), row[i]) << at << " " << value << " " << i;
      }
    }
  }
}

TEST_P(TernaryFormats, EncodingIsTheInverseOfDecoding) {
  const FormatCase& format = GetParam();
  const bool binary = format.coding == Coding::kBit;
  constexpr uint64_t kRows = 8;
  constexpr uint64_t kCols = 768;
  std::mt19937 random(7);
  std::vector<int8_t> trits(kRows * kCols);
  for (int8_t& trit : trits) {
    trit = static_cast<int8_t>(binary ? static_cast<int>(random() % 2) * 2 - 1
                                      : static_cast<int>(random() % 3) - 1);
  }
  const float scale = HalfToFloat(0x28c3);
  const auto encode = [&](ScaleLayout layout, uint32_t group, std::span<const float> scales,
                          std::span<const int8_t> weights) {
    return Wrap(
        format.type, kRows, kCols,
        EncodeTernary(format.type, kRows, kCols, weights, layout, group, scales, format.layout),
        format.layout);
  };
  const Encoded encoded = encode(ScaleLayout::kTensor, 0, std::array{scale}, trits);
  EXPECT_EQ(encoded.bytes.size(), TensorByteSize(format.type, kRows, kCols));
  EXPECT_TRUE(TernaryDecoder::Accepts(encoded.info, encoded.bytes));
  const Decoded decoded = Decode(encoded);
  EXPECT_EQ(decoded.trits, trits);
  for (const float found : decoded.scales) EXPECT_EQ(found, scale);

  std::vector<float> row(kCols);
  DequantizeRow(encoded.info, encoded.bytes, encoded.options, 5, row);
  for (size_t i = 0; i < kCols; ++i) {
    ASSERT_EQ(row[i], scale * static_cast<float>(trits[5 * kCols + i]));
  }
  // What the decoder yields encodes to the same bytes.
  if (decoded.layout == ScaleLayout::kTensor) return;
  EXPECT_EQ(encode(decoded.layout, decoded.group, decoded.scales, decoded.trits).bytes,
            encoded.bytes);
}

INSTANTIATE_TEST_SUITE_P(All, TernaryFormats, testing::ValuesIn(kFormatCases),
                         [](const auto& info) { return info.param.name; });

constexpr uint64_t kRows = 4;
constexpr uint64_t kCols = 512;

std::vector<int8_t> RandomTrits(unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<int8_t> trits(kRows * kCols);
  for (int8_t& trit : trits) trit = static_cast<int8_t>(static_cast<int>(random() % 3) - 1);
  return trits;
}

std::string Refusal(TensorType type, ScaleLayout layout, uint32_t group,
                    std::span<const float> scales, std::span<const int8_t> trits) {
  return ErrorOf([&] { EncodeTernary(type, kRows, kCols, trits, layout, group, scales); });
}

TEST(TernaryEncoding, ScalesPerRow) {
  const std::vector<int8_t> trits = RandomTrits();
  const std::array scales = {1.0f, 2.0f, 0.5f, -0.25f};
  for (const TensorType type : {TensorType::kIQ1_BN, TensorType::kIQ2_BN, TensorType::kIQ2_BN_R4,
                                TensorType::kTQ1_0, TensorType::kQ2_0}) {
    const Decoded decoded =
        Decode(Wrap(type, kRows, kCols,
                    EncodeTernary(type, kRows, kCols, trits, ScaleLayout::kRow, 0, scales)));
    EXPECT_EQ(decoded.trits, trits);
    const size_t per_row = decoded.scales.size() / kRows;
    for (size_t i = 0; i < decoded.scales.size(); ++i) {
      EXPECT_EQ(decoded.scales[i], scales[i / per_row]) << TypeName(type);
    }
  }
  EXPECT_THAT(Refusal(TensorType::kI2_S, ScaleLayout::kRow, 0, scales, trits),
              HasSubstr("I2_S holds one scale per tensor"));
}

TEST(TernaryEncoding, ScalesPerGroup) {
  const std::vector<int8_t> trits = RandomTrits();
  std::vector<float> scales(kRows * kCols / 128);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<float>(i + 1);
  for (const TensorType type :
       {TensorType::kPQ2_0, TensorType::kPTQ1_0, TensorType::kQ2_0, TensorType::kQ2_0_G128}) {
    const Decoded decoded =
        Decode(Wrap(type, kRows, kCols,
                    EncodeTernary(type, kRows, kCols, trits, ScaleLayout::kGroup, 128, scales)));
    EXPECT_EQ(decoded.trits, trits);
    for (size_t i = 0; i < decoded.scales.size(); ++i) {
      EXPECT_EQ(decoded.scales[i], scales[i * decoded.group / 128]) << TypeName(type);
    }
  }
  EXPECT_THAT(Refusal(TensorType::kTQ2_0, ScaleLayout::kGroup, 128, scales, trits),
              HasSubstr("TQ2_0 holds one scale per block"));
  EXPECT_THAT(Refusal(TensorType::kIQ2_BN, ScaleLayout::kGroup, 128, scales, trits),
              HasSubstr("IQ2_BN holds one scale per row"));
}

TEST(TernaryEncoding, ScalesThatFloat16CannotHoldNeedFloat32) {
  const std::vector<int8_t> trits = RandomTrits();
  const std::array scale = {0.1f};
  for (const TensorType type : {TensorType::kI2_S, TensorType::kIQ2_BN, TensorType::kIQ2_BN_R4}) {
    EXPECT_EQ(Refusal(type, ScaleLayout::kTensor, 0, scale, trits), "");
  }
  for (const TensorType type : {TensorType::kTQ1_0, TensorType::kPQ2_0, TensorType::kIQ1_BN}) {
    EXPECT_THAT(Refusal(type, ScaleLayout::kTensor, 0, scale, trits),
                HasSubstr("is not exact in the float16"));
  }
}

TEST(TernaryEncoding, AnAllZeroBlockDoesNotMakeASecondScale) {
  // TQ2_0 as other programs write it: d is the largest magnitude, so a zero block has d = 0.
  std::vector<int8_t> trits = RandomTrits();
  std::fill(trits.begin() + 256, trits.begin() + 512, int8_t{0});
  std::vector<float> weights(trits.begin(), trits.end());
  for (float& weight : weights) weight *= 0.5f;
  const Encoded source = Wrap(TensorType::kTQ2_0, kRows, kCols,
                              EncodeTensor(TensorType::kTQ2_0, kRows, kCols, weights));
  const Decoded decoded = Decode(source);
  ASSERT_EQ(decoded.scales[1], 0.0f);
  ASSERT_EQ(decoded.scales[0], 0.5f);
  const Decoded repacked =
      Decode(Wrap(TensorType::kI2_S, kRows, kCols,
                  EncodeTernary(TensorType::kI2_S, kRows, kCols, decoded.trits, decoded.layout,
                                decoded.group, decoded.scales)));
  EXPECT_EQ(repacked.trits, trits);
  EXPECT_EQ(repacked.scales[0], 0.5f);
}

TEST(TernaryEncoding, AnAllZeroTensorKeepsItsScale) {
  const std::vector<int8_t> zeros(kRows * kCols, 0);
  const Decoded decoded = Decode(Wrap(TensorType::kTQ1_0, kRows, kCols,
                                      EncodeTernary(TensorType::kTQ1_0, kRows, kCols, zeros,
                                                    ScaleLayout::kTensor, 0, std::array{0.5f})));
  for (const float scale : decoded.scales) EXPECT_EQ(scale, 0.5f);
}

TEST(TernaryEncoding, RefusesWhatIsNoTrit) {
  std::vector<int8_t> trits = RandomTrits();
  const std::array one = {1.0f};
  EXPECT_THAT(Refusal(TensorType::kQ1_0, ScaleLayout::kTensor, 0, one, trits),
              HasSubstr("Q1_0 holds -1 and 1 only"));
  trits[700] = 2;
  EXPECT_THAT(Refusal(TensorType::kTQ2_0, ScaleLayout::kTensor, 0, one, trits),
              HasSubstr("a trit is 2: expected -1, 0 or 1"));
  EXPECT_THAT(Refusal(TensorType::kQ8_0, ScaleLayout::kTensor, 0, one, trits),
              HasSubstr("Q8_0 is not a ternary type"));
  const std::array infinite = {std::numeric_limits<float>::infinity()};
  EXPECT_THAT(Refusal(TensorType::kI2_S, ScaleLayout::kTensor, 0, infinite, RandomTrits()),
              HasSubstr("expected a finite number"));
}

TEST(TernaryEncoding, RefusesShapesThatDoNotFit) {
  const std::vector<int8_t> trits(3 * 64, 1);
  const std::array one = {1.0f};
  const auto refusal = [&](TensorType type, I2SLayout layout) {
    return ErrorOf(
        [&] { EncodeTernary(type, 3, 64, trits, ScaleLayout::kTensor, 0, one, layout); });
  };
  EXPECT_THAT(refusal(TensorType::kI2_S, I2SLayout::kX86), HasSubstr("a multiple of 128 columns"));
  EXPECT_EQ(refusal(TensorType::kI2_S, I2SLayout::kArm64), "");
  EXPECT_THAT(refusal(TensorType::kI2_S, I2SLayout::kInterleaved4), HasSubstr("and of 4 rows"));
  EXPECT_THAT(refusal(TensorType::kIQ2_BN_R4, I2SLayout::kX86), HasSubstr("and of 4 rows"));
  EXPECT_THAT(refusal(TensorType::kTQ1_0, I2SLayout::kX86), HasSubstr("a multiple of 256 columns"));
}

TEST(TernaryDecoding, FourLevelTypesAreTernaryOnlyWithoutCode3) {
  for (const TensorType type : {TensorType::kQ2_0, TensorType::kQ2_0_G128, TensorType::kPQ2_0}) {
    Encoded encoded = Wrap(type, kRows, kCols,
                           EncodeTernary(type, kRows, kCols, RandomTrits(), ScaleLayout::kTensor, 0,
                                         std::array{0.5f}));
    EXPECT_TRUE(TernaryDecoder::Accepts(encoded.info, encoded.bytes));
    // The last weight becomes +2.
    encoded.bytes.back() |= std::byte{0xc0};
    EXPECT_FALSE(TernaryDecoder::Accepts(encoded.info, encoded.bytes));
    std::vector<float> row(kCols);
    DequantizeRow(encoded.info, encoded.bytes, {}, kRows - 1, row);
    EXPECT_EQ(row.back(), 1.0f);
    EXPECT_THAT(ErrorOf([&] { Decode(encoded); }), HasSubstr("row 3: a code is 3"));
  }
}

TEST(TernaryDecoding, ScaleBytesAreNotTakenForCodes) {
  // 0x7bff has both bits of many fields set; only codes count.
  const Encoded encoded = Wrap(TensorType::kQ2_0, kRows, kCols,
                               EncodeTernary(TensorType::kQ2_0, kRows, kCols, RandomTrits(),
                                             ScaleLayout::kTensor, 0, std::array{65504.0f}));
  EXPECT_TRUE(TernaryDecoder::Accepts(encoded.info, encoded.bytes));
}

TEST(TernaryDecoding, RefusesScalesThatAreNotFinite) {
  Encoded encoded = Wrap(TensorType::kIQ2_BN, kRows, kCols,
                         EncodeTernary(TensorType::kIQ2_BN, kRows, kCols, RandomTrits(),
                                       ScaleLayout::kTensor, 0, std::array{0.5f}));
  encoded.bytes[3] = std::byte{0x7f};
  encoded.bytes[2] = std::byte{0xc0};
  EXPECT_THAT(ErrorOf([&] { Decode(encoded); }), HasSubstr("row 0: a scale is not finite"));
}

TEST(TernaryDecoding, RefusesOtherTypes) {
  const Encoded floats = Wrap(TensorType::kF16, 1, 4, std::vector<std::byte>(8));
  EXPECT_FALSE(TernaryDecoder::Accepts(floats.info, floats.bytes));
  EXPECT_THAT(ErrorOf([&] { Decode(floats); }), HasSubstr("of type F16: expected a ternary type"));
}

TEST(TernaryDecoding, LayoutOptionReachesTheReader) {
  const std::vector<int8_t> trits = RandomTrits();
  for (const I2SLayout layout : {I2SLayout::kX86, I2SLayout::kArm64, I2SLayout::kInterleaved4}) {
    Writer writer;
    writer.AddTensor("w", TensorType::kI2_S, {kCols, kRows},
                     EncodeTernary(TensorType::kI2_S, kRows, kCols, trits, ScaleLayout::kTensor, 0,
                                   std::array{0.1f}, layout));
    const std::vector<std::byte> bytes = writer.Serialize();
    const File file = File::Parse(bytes, {layout});
    const TensorInfo& info = file.tensors()[0];
    const auto data = file.TensorBytes(info);
    const Decoded decoded = Decode(
        Wrap(info.type, kRows, kCols, {data.begin(), data.end()}, file.options().i2s_layout));
    EXPECT_EQ(decoded.trits, trits);
    EXPECT_EQ(decoded.scales[0], 0.1f);
  }
}

}  // namespace
}  // namespace gguf
