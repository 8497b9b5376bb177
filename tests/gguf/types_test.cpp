// Where forks gave one id two meanings, the tensor's byte span and the architecture decide; types
// that cannot be read are refused with what to do instead.
#include "gguf/types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "gguf/codec.h"
#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tests/support/gguf_builder.h"

namespace gguf {
namespace {

using support::GgufBuilder;
using testing::HasSubstr;

std::string RefusalOfType(uint32_t id, const char* architecture, size_t data_bytes = 4096) {
  GgufBuilder builder(1, 1);
  builder.Text("general.architecture", architecture);
  builder.Tensor("t", {256, 4}, id, 0).Data(data_bytes);
  try {
    File::Parse(builder.bytes());
  } catch (const FormatError& error) {
    return error.what();
  }
  return {};
}

TEST(TensorTypes, Id39IsTl2InABitnetFileAndMxfp4Elsewhere) {
  EXPECT_THAT(RefusalOfType(39, "bitnet-b1.58"), HasSubstr("39 (TL2)"));
  EXPECT_THAT(RefusalOfType(39, "bitnet"), HasSubstr("use the model's I2_S"));
  EXPECT_THAT(RefusalOfType(39, "gpt-oss"), HasSubstr("39 (MXFP4), which is not supported"));
}

TEST(TensorTypes, RefusedTypesSayWhyAndWhatToDo) {
  EXPECT_THAT(RefusalOfType(38, "bitnet-b1.58"), HasSubstr("38 (TL1), whose weights are permuted"));
  EXPECT_THAT(RefusalOfType(37, "bitnet-b1.58"), HasSubstr("activations only"));
  EXPECT_THAT(RefusalOfType(16, "llama"), HasSubstr("IQ2_XXS, which is not supported"));
  EXPECT_THAT(RefusalOfType(26, "llama"), HasSubstr("I32, which is not a weight format"));
  EXPECT_THAT(RefusalOfType(4, "llama"), HasSubstr("4, which is unknown"));
  EXPECT_THAT(RefusalOfType(999, "llama"), HasSubstr("999, which is unknown"));
  // The value with which an old Q2_0 is known in memory is no id of a file.
  EXPECT_THAT(RefusalOfType(0x10000 | 42, "llama"), HasSubstr("65578, which is unknown"));
}

TEST(TensorTypes, Id36IsI2SUnlessItsSpanIsTheWithdrawnIq4) {
  EXPECT_EQ(RefusalOfType(36, "llama", 1024 / 4 + 32), "");
  EXPECT_EQ(RefusalOfType(36, "bitnet-b1.58", 1024 / 4 + 32), "");
  EXPECT_THAT(RefusalOfType(36, "llama", 1024 / 32 * 18), HasSubstr("IQ4_NL_4_4"));
}

TEST(TensorTypes, ShortIds142And143AreTheWithdrawnTypes) {
  EXPECT_EQ(RefusalOfType(142, "qwen3", 1024 / 128 * 34), "");
  EXPECT_EQ(RefusalOfType(143, "qwen3", 1024 / 128 * 28), "");
  // IQ2_TN: 66 bytes per 256 weights; IQ1_TN: 2 + 52 bytes per row of 256.
  EXPECT_THAT(RefusalOfType(142, "llama", 4 * 66), HasSubstr("IQ2_TN"));
  EXPECT_THAT(RefusalOfType(143, "llama", 4 * 54), HasSubstr("IQ1_TN"));
}

// Two tensors of id 42: `first_span` tells which, the second (128 weights) fits either way.
TensorType TypeOfSecondQ2(uint64_t first_span) {
  GgufBuilder builder(2, 0);
  builder.Tensor("large", {1280, 4}, 42, 0).Tensor("small", {128}, 42, first_span);
  builder.Data(first_span + 64);
  const File file = File::Parse(builder.bytes());
  EXPECT_EQ(file.tensors()[0].type, file.tensors()[1].type);
  return file.tensors()[1].type;
}

TEST(TensorTypes, Id42FollowsTheSpanAndSmallTensorsFollowTheOthers) {
  constexpr uint64_t kOld = 5120 / 128 * 34;  // 1360, padded to 1376
  constexpr uint64_t kNew = 5120 / 64 * 18;   // 1440
  EXPECT_EQ(TypeOfSecondQ2((kOld + 31) / 32 * 32), TensorType::kQ2_0_G128);
  EXPECT_EQ(TypeOfSecondQ2(kNew), TensorType::kQ2_0);
}

TEST(TensorTypes, Id42OfTheLastTensorNeedsNoPadding) {
  GgufBuilder builder(1, 0);
  builder.Tensor("t", {1280, 4}, 42, 0).Data(5120 / 128 * 34);
  EXPECT_EQ(File::Parse(builder.bytes()).tensors()[0].type, TensorType::kQ2_0_G128);
}

TEST(TensorTypes, NamesAndTernaryKinds) {
  EXPECT_EQ(TypeName(TensorType::kTQ2_0), "TQ2_0");
  EXPECT_EQ(TypeName(static_cast<TensorType>(9999)), "?");
  EXPECT_TRUE(IsTernaryType(TensorType::kIQ1_BN));
  EXPECT_FALSE(IsTernaryType(TensorType::kQ2_0));
  EXPECT_FALSE(IsTernaryType(TensorType::kQ6_K));
}

TEST(TensorTypes, ByteSizes) {
  EXPECT_EQ(TensorByteSize(TensorType::kF16, 3, 5), 30u);
  EXPECT_EQ(TensorByteSize(TensorType::kTQ1_0, 2, 512), 216u);
  EXPECT_EQ(TensorByteSize(TensorType::kI2_S, 2, 256), 160u);
  EXPECT_EQ(TensorByteSize(TensorType::kIQ1_BN, 4, 128), 4 * (2 + 26u));
  EXPECT_EQ(TensorByteSize(TensorType::kIQ2_BN, 4, 128), 4 * (4 + 32u));
  EXPECT_EQ(TensorByteSize(TensorType::kIQ2_BN_R4, 4, 128), 4 * (4 + 32u));
  EXPECT_THROW(TensorByteSize(TensorType::kTQ1_0, 2, 100), FormatError);
  EXPECT_THROW(TensorByteSize(static_cast<TensorType>(9999), 2, 100), FormatError);
}

}  // namespace
}  // namespace gguf
