// A file that lies about a count, length, extent, offset, alignment or type is refused with a
// sentence, before memory is reserved for what it claims. Named after the published defects of
// other loaders where there is one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tests/support/gguf_builder.h"
#include "tests/support/gguf_seeds.h"

namespace gguf {
namespace {

using support::GgufBuilder;
using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
constexpr uint32_t kF32 = 0;
constexpr uint32_t kQ4_0 = 2;

// The message with which the bytes are refused; empty when they are not.
std::string Refusal(std::span<const std::byte> bytes) {
  try {
    File::Parse(bytes);
  } catch (const FormatError& error) {
    return error.what();
  }
  return {};
}

std::string Refusal(const GgufBuilder& builder) { return Refusal(builder.bytes()); }

TEST(HostileHeader, EmptyInput) { EXPECT_THAT(Refusal({}), HasSubstr("the file ends inside")); }

TEST(HostileHeader, WrongMagic) {
  std::vector<std::byte> bytes = GgufBuilder(0, 0).bytes();
  bytes[0] = std::byte{'P'};
  EXPECT_THAT(Refusal(bytes), HasSubstr("not a GGUF file"));
}

TEST(HostileHeader, UnsupportedVersions) {
  EXPECT_THAT(Refusal(GgufBuilder(0, 0, 1)), HasSubstr("version 1 is not supported"));
  EXPECT_THAT(Refusal(GgufBuilder(0, 0, 4)), HasSubstr("version 4 is not supported"));
  EXPECT_THAT(Refusal(GgufBuilder(0, 0, 0x03000000)), HasSubstr("big-endian"));
  EXPECT_EQ(Refusal(GgufBuilder(0, 0, 2)), "");
}

TEST(HostileHeader, EveryPrefixOfAValidFileIsRefused) {
  Writer writer;
  writer.metadata().Set("general.architecture", support::TextValue("llama"));
  writer.metadata().Set(
      "names",
      {ValueType::kArray, MetadataArray{ValueType::kString, std::vector<std::string>{"a", "bc"}}});
  writer.AddTensor("x", TensorType::kF32, {8, 1}, std::vector<std::byte>(32));
  const std::vector<std::byte> bytes = writer.Serialize();
  ASSERT_EQ(Refusal(bytes), "");
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_NE(Refusal(std::span(bytes).first(size)), "") << size;
  }
}

// What was read before an error is given back once: for AddressSanitizer.
TEST(HostileHeader, Cve2024_32878_ErrorsAfterEveryKindOfValue) {
  const auto strings = [](GgufBuilder* builder) {
    builder->Array("v", ValueType::kString, 2).String("first").String("second");
  };
  const auto nested = [](GgufBuilder* builder) {
    builder->Array("v", ValueType::kArray, 1);
    builder->Put(static_cast<uint32_t>(ValueType::kString)).Put(uint64_t{1}).String("inner");
  };
  const auto text = [](GgufBuilder* builder) { builder->Text("v", std::string(100, 't')); };
  const auto number = [](GgufBuilder* builder) { builder->Uint32("v", 1); };
  const std::vector<std::function<void(GgufBuilder*)>> values = {strings, nested, text, number};
  for (const auto& value : values) {
    GgufBuilder bad_type(0, 2), cut_array(0, 2), cut_tensor(1, 1);
    value(&bad_type);
    bad_type.Key("bad", static_cast<ValueType>(99)).Data(64);
    EXPECT_THAT(Refusal(bad_type), HasSubstr("unknown metadata value type 99"));
    value(&cut_array);
    cut_array.Array("cut", ValueType::kString, 3).String("one").Put(uint64_t{1000}).Data(64);
    EXPECT_THAT(Refusal(cut_array), HasSubstr("the file ends inside"));
    value(&cut_tensor);
    cut_tensor.Tensor("t", {8, 8, 8, 8, 8}, kF32, 0).Data(64);
    EXPECT_THAT(Refusal(cut_tensor), HasSubstr("5 dimensions"));
  }
}

// Empty is not absent: nothing here is a null pointer to anyone.
TEST(HostileHeader, Cve2024_41130_EmptyStringsArraysAndNames) {
  GgufBuilder builder(1, 3);
  builder.Text("text", "").Array("strings", ValueType::kString, 0);
  builder.Array("numbers", ValueType::kUint32, 0).Tensor("", {4}, kF32, 0).Data(16);
  const File file = File::Parse(builder.bytes());
  support::ReadWholeFile(file);
  EXPECT_EQ(file.metadata().GetString("text"), "");
  EXPECT_EQ(file.metadata().FindStrings("strings")->size(), 0u);
  EXPECT_EQ(file.tensors()[0].name, "");
  GgufBuilder nothing(0, 0);
  EXPECT_TRUE(File::Parse(nothing.bytes()).tensors().empty());
}

TEST(HostileHeader, Cve2024_23605_EntryCountBeyondTheFile) {
  EXPECT_THAT(Refusal(GgufBuilder(0, kHuge)),
              HasSubstr("the metadata count is 18446744073709551615"));
  EXPECT_THAT(Refusal(GgufBuilder(0, kHuge / 13 + 1).Data(64)), HasSubstr("the metadata count"));
}

TEST(HostileHeader, Cve2024_21836_TensorCountBeyondTheFile) {
  EXPECT_THAT(Refusal(GgufBuilder(kHuge, 0)), HasSubstr("the tensor count is"));
  // Fits the whole file but not what the metadata leaves.
  GgufBuilder builder(4, 1);
  builder.Text("general.name", std::string(100, 'n'));
  EXPECT_THAT(Refusal(builder), HasSubstr("the tensor count is 4, but the 0 bytes left"));
}

TEST(HostileHeader, Cve2024_21825_ArrayLengthTimesSizeWraps) {
  for (const ValueType type : {ValueType::kUint64, ValueType::kString, ValueType::kArray,
                               ValueType::kFloat32, ValueType::kUint8}) {
    for (const uint64_t count : {kHuge, kHuge / 8 + 2, uint64_t{1} << 61, uint64_t{1000}}) {
      GgufBuilder builder(0, 1);
      builder.Array("a", type, count).Data(64);
      EXPECT_THAT(Refusal(builder),
                  AllOf(HasSubstr("metadata key \"a\""), HasSubstr("an array's length is")));
    }
  }
}

TEST(HostileHeader, Cve2024_23496_StringLengthBeyondTheFile) {
  for (const uint64_t length : {kHuge, kHuge - 7, uint64_t{1} << 63, uint64_t{1000}}) {
    GgufBuilder value(0, 1);
    value.Key("s", ValueType::kString).Put(length).Data(64);
    EXPECT_THAT(Refusal(value), HasSubstr("the file ends inside a string"));
    GgufBuilder key(0, 1);
    key.Put(length).Data(64);
    EXPECT_THAT(Refusal(key), HasSubstr("the file ends inside a metadata key"));
    GgufBuilder name(1, 0);
    name.Put(length).Data(64);
    EXPECT_THAT(Refusal(name), HasSubstr("the file ends inside a tensor's name"));
  }
}

TEST(HostileHeader, OverlongKey) {
  GgufBuilder builder(0, 1);
  builder.Uint32(std::string(70000, 'k'), 1);
  EXPECT_THAT(Refusal(builder), HasSubstr("has 70000 bytes: expected at most 65535"));
}

TEST(HostileHeader, MessagesShowHostileNamesHarmlessly) {
  GgufBuilder builder(0, 1);
  builder.Key("\x1b[31m\n\xff\"" + std::string(500, 'k'), static_cast<ValueType>(99));
  const std::string message = Refusal(builder);
  EXPECT_THAT(message, HasSubstr("\\x1b[31m\\x0a\\xff\\x22kkk"));
  EXPECT_LT(message.size(), 200u);
}

TEST(HostileHeader, UnknownValueType) {
  GgufBuilder builder(0, 1);
  builder.Key("k", static_cast<ValueType>(13)).Put(uint32_t{0});
  EXPECT_THAT(Refusal(builder), HasSubstr("unknown metadata value type 13"));
}

TEST(HostileHeader, BoolThatIsNeitherZeroNorOne) {
  GgufBuilder builder(0, 1);
  builder.Key("k", ValueType::kBool).Put(uint8_t{2});
  EXPECT_THAT(Refusal(builder), HasSubstr("bool is 2: expected 0 or 1"));
}

TEST(HostileHeader, DeeplyNestedArrays) {
  GgufBuilder builder(0, 1);
  builder.Key("k", ValueType::kArray);
  for (int depth = 0; depth < 1000000; ++depth) {
    builder.Put(static_cast<uint32_t>(ValueType::kArray)).Put(uint64_t{1});
  }
  EXPECT_THAT(Refusal(builder), HasSubstr("nested deeper than 4"));
}

TEST(HostileHeader, DuplicateKeys) {
  GgufBuilder builder(0, 2);
  builder.Uint32("twice", 1).Uint32("twice", 2);
  EXPECT_THAT(Refusal(builder), HasSubstr("metadata key \"twice\" occurs more than once"));
}

TEST(HostileHeader, Pr24997_AlignmentOutOfRange) {
  for (const uint32_t alignment : {0u, 3u, 48u, 0x20000u, 0x80000000u}) {
    GgufBuilder builder(0, 1);
    builder.Uint32("general.alignment", alignment);
    EXPECT_THAT(Refusal(builder), HasSubstr("general.alignment is " + std::to_string(alignment)));
  }
}

TEST(HostileHeader, Pr26318_AlignmentOfTheWrongType) {
  GgufBuilder builder(0, 1);
  builder.Text("general.alignment", "32");
  EXPECT_THAT(Refusal(builder), HasSubstr("expected an unsigned integer, found a string"));
}

TEST(HostileHeader, Pr26690_ScoresDeclaredAsBytes) {
  GgufBuilder builder(0, 2);
  builder.Array("tokenizer.ggml.scores", ValueType::kUint8, 2).Put(uint16_t{0});
  builder.Array("tokenizer.ggml.token_type", ValueType::kFloat32, 1).Put(1.0f);
  const File file = File::Parse(builder.bytes());
  EXPECT_THROW(file.metadata().FindFloats("tokenizer.ggml.scores"), FormatError);
  EXPECT_THROW(file.metadata().FindInts("tokenizer.ggml.token_type"), FormatError);
}

TEST(HostileTensor, RankAboveFour) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {1, 1, 1, 1, 1}, kF32, 0).Data(64);
  EXPECT_THAT(Refusal(builder), HasSubstr("has 5 dimensions: expected at most 4"));
}

TEST(HostileTensor, EmptyExtent) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {4, 0}, kF32, 0).Data(64);
  EXPECT_THAT(Refusal(builder), HasSubstr("shape 4 x 0: expected extents of at least 1"));
}

TEST(HostileTensor, Cve2024_21802_ExtentProductWraps) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {uint64_t{1} << 32, uint64_t{1} << 32, 1, 1}, kF32, 0).Data(64);
  EXPECT_THAT(Refusal(builder), HasSubstr("expected fewer than 2^64 elements"));
}

TEST(HostileTensor, Cve2026_33298_ByteSizeWraps) {
  // 2^62 floats are 2^64 bytes: the size wraps to nothing and would fit anywhere.
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {uint64_t{1} << 62}, kF32, 0).Data(64);
  EXPECT_THAT(Refusal(builder), HasSubstr("needs more than 2^64 bytes"));
}

TEST(HostileTensor, Cve2026_33298_ByteSizeOfAQuantisedTypeWraps) {
  // Blocks of 34 bytes for 32 weights: no wrap of the weights, but of the bytes.
  GgufBuilder q8(1, 0);
  q8.Tensor("t", {32, (uint64_t{1} << 59) - 1}, 8, 0).Data(64);
  EXPECT_THAT(Refusal(q8), HasSubstr("needs more than 2^64 bytes"));
  GgufBuilder q4(1, 0);
  q4.Tensor("t", {32, (uint64_t{1} << 59) - 1}, kQ4_0, 0).Data(64);
  EXPECT_THAT(Refusal(q4), HasSubstr("needs 10376293541461622766 bytes, but only 64"));
}

TEST(HostileTensor, Cve2025_53630_SumOfPaddedSizesWraps) {
  // Each size fits 64 bits, their sum is small again.
  GgufBuilder builder(2, 0);
  builder.Tensor("a", {(uint64_t{1} << 61) - 8}, kF32, 0);
  builder.Tensor("b", {(uint64_t{1} << 61) + 16}, kF32, (uint64_t{1} << 63) - 32).Data(64);
  EXPECT_NE(Refusal(builder), "");
}

TEST(HostileTensor, Cve2026_27940_OffsetPlusSizeWraps) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {16}, kF32, kHuge - 31).Data(64);
  EXPECT_THAT(Refusal(builder), HasSubstr("but the file has only 64 bytes of tensor data"));
}

TEST(HostileTensor, Pr24759_OffsetThatPadsToZero) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {16}, kF32, kHuge - 3).Data(64);
  EXPECT_THAT(Refusal(builder), HasSubstr("expected a multiple of the alignment 32"));
}

TEST(HostileTensor, Cve2026_7482_ExtentsBeyondTheData) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {17}, kF32, 0).Data(64);
  EXPECT_THAT(Refusal(builder),
              HasSubstr("tensor \"t\" of type F32 and shape 17 needs 68 bytes, but only 64 lie"));
}

TEST(HostileTensor, Cve2026_5757_ExtentsOfAQuantisedTypeBeyondTheData) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {64, 2}, 8, 0).Data(96);
  EXPECT_THAT(
      Refusal(builder),
      HasSubstr("tensor \"t\" of type Q8_0 and shape 64 x 2 needs 136 bytes, but only 96 lie"));
}

TEST(HostileTensor, DataSectionPastTheEnd) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {1}, kF32, 0);
  EXPECT_THAT(Refusal(builder), HasSubstr("the file has only 0 bytes of tensor data"));
}

TEST(HostileTensor, OverlappingTensors) {
  GgufBuilder partial(2, 0);
  partial.Tensor("a", {16}, kF32, 0).Tensor("b", {8}, kF32, 32).Data(64);
  EXPECT_THAT(Refusal(partial), HasSubstr("tensor \"a\" of type F32 and shape 16 needs 64 bytes, "
                                          "but only 32 lie before the next tensor"));
  GgufBuilder same(2, 0);
  same.Tensor("a", {8}, kF32, 0).Tensor("b", {8}, kF32, 0).Data(64);
  EXPECT_THAT(Refusal(same), HasSubstr("only 0 lie before the next tensor"));
}

TEST(HostileTensor, DuplicateNames) {
  GgufBuilder builder(2, 0);
  builder.Tensor("a", {8}, kF32, 0).Tensor("a", {8}, kF32, 32).Data(64);
  EXPECT_THAT(Refusal(builder), HasSubstr("tensor \"a\" occurs more than once"));
}

TEST(HostileTensor, ColumnsThatAreNotWholeBlocks) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {48, 2}, kQ4_0, 0).Data(64);
  EXPECT_THAT(Refusal(builder), HasSubstr("type Q4_0 has shape 48 x 2: expected a multiple of 32"));
}

TEST(HostileTensor, RowsThatAreNotWholeGroups) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {64, 3}, 335, 0).Data(256);
  EXPECT_THAT(Refusal(builder), HasSubstr("expected a multiple of 64 columns and of 4 rows"));
}

// Neither the number of tensors nor lengths of strings have a limit of their own: the size of the
// file bounds them.
TEST(HostileTensor, Issue15711_ManyTensorsLoadInLinearTime) {
  // Quadratic duplicate or overlap checks would take minutes here.
  constexpr uint64_t kCount = 200000;
  GgufBuilder builder(kCount, 0);
  for (uint64_t i = 0; i < kCount; ++i) {
    builder.Tensor(std::to_string(i), {8}, kF32, 32 * (kCount - 1 - i));
  }
  builder.Data(32 * kCount);
  const File file = File::Parse(builder.bytes());
  EXPECT_EQ(file.tensors().size(), kCount);
  EXPECT_EQ(file.FindTensor("77777")->name, "77777");
}

TEST(HostileSplit, OnePartIsNotAFile) {
  GgufBuilder builder(0, 2);
  builder.Key("split.no", ValueType::kUint16).Put(uint16_t{0});
  builder.Key("split.count", ValueType::kUint16).Put(uint16_t{3});
  EXPECT_THAT(Refusal(builder), HasSubstr("one part of 3"));
}

}  // namespace
}  // namespace gguf
