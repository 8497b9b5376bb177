// Files written by other programs open with the right shapes, and the demo model's three ternary
// files hold the same trits and the same scale.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "gguf/codec.h"
#include "gguf/reader.h"

namespace gguf {
namespace {

std::string DataPath(const std::string& relative) {
  const char* root = std::getenv("TERN_TEST_DATA");
  return std::string(root != nullptr ? root : TERN_SOURCE_DIR "/../shared/data") + "/" + relative;
}

#define SKIP_WITHOUT(path)                                    \
  if (!std::filesystem::exists(path)) {                       \
    GTEST_SKIP() << "needs the shared test data: " << (path); \
  }

TEST(RealFiles, DemoModelHasItsShapes) {
  const std::string path = TERN_SOURCE_DIR "/models/tern-demo-7m-i2_s.gguf";
  const File file = File::Open(path);
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.file_bytes(), std::filesystem::file_size(path));
  EXPECT_EQ(file.metadata().GetString("general.architecture"), "bitnet-b1.58");
  EXPECT_EQ(file.metadata().GetUint("bitnet-b1.58.block_count"), 8u);
  EXPECT_EQ(file.metadata().FindStrings("tokenizer.ggml.tokens")->size(), 4096u);
  EXPECT_EQ(file.metadata().FindFloats("tokenizer.ggml.scores")->size(), 4096u);
  ASSERT_EQ(file.tensors().size(), 90u);
  const TensorInfo* down = file.FindTensor("blk.0.ffn_down.weight");
  ASSERT_NE(down, nullptr);
  EXPECT_EQ(down->type, TensorType::kI2_S);
  EXPECT_EQ(down->cols(), 768u);
  EXPECT_EQ(down->rows(), 256u);
  EXPECT_EQ(file.TensorBytes(*down).size(), 768u * 256 / 4 + 32);
  EXPECT_EQ(file.FindTensor("blk.8.ffn_down.weight"), nullptr);
}

// The only scale of a tensor's non-zero weights, appended trits; fails the test when there are two.
float CollectTrits(const File& file, const TensorInfo& info, std::vector<int8_t>& trits) {
  const TernaryDecoder decoder(info, file.TensorBytes(info), file.options());
  trits.resize(info.elements());
  std::vector<float> scales(decoder.scales_per_row());
  std::optional<float> only;
  for (uint64_t row = 0; row < info.rows(); ++row) {
    const auto row_trits = std::span(trits).subspan(row * info.cols(), info.cols());
    decoder.DecodeRow(row, row_trits, scales);
    for (uint64_t col = 0; col < info.cols(); ++col) {
      if (row_trits[col] == 0) continue;
      const float scale = scales[col / decoder.group()];
      if (!only) only = scale;
      EXPECT_EQ(*only, scale) << info.name << " row " << row << " column " << col;
    }
  }
  return only.value_or(0);
}

TEST(RealFiles, DemoModelHasTheSameTritsInEveryFormat) {
  const std::string base = DataPath("models/tern-demo-7m-");
  SKIP_WITHOUT(base + "i2_s.gguf");
  const File i2s = File::Open(base + "i2_s.gguf");
  const File tq1 = File::Open(base + "tq1_0.gguf");
  const File tq2 = File::Open(base + "tq2_0.gguf");
  const File f16 = File::Open(base + "f16.gguf");
  int compared = 0;
  for (const TensorInfo& info : i2s.tensors()) {
    if (info.type != TensorType::kI2_S) continue;
    ++compared;
    std::vector<int8_t> expected;
    const float scale = CollectTrits(i2s, info, expected);
    for (const File* other : {&tq1, &tq2}) {
      const TensorInfo* same = other->FindTensor(info.name);
      ASSERT_NE(same, nullptr);
      EXPECT_EQ(same->extents, info.extents);
      std::vector<int8_t> trits;
      EXPECT_EQ(CollectTrits(*other, *same, trits), scale) << info.name;
      EXPECT_EQ(trits, expected) << info.name;
    }
    std::vector<float> from_f16(info.cols());
    std::vector<float> from_i2s(info.cols());
    const TensorInfo& plain = *f16.FindTensor(info.name);
    DequantizeRow(plain, f16.TensorBytes(plain), {}, 3, from_f16);
    DequantizeRow(info, i2s.TensorBytes(info), {}, 3, from_i2s);
    EXPECT_EQ(from_f16, from_i2s) << info.name;
  }
  EXPECT_EQ(compared, 56);
}

TEST(RealFiles, VocabularyOnlyFilesOpen) {
  for (const char* name : {"llama-bpe", "llama-spm", "gpt-2", "phi-3", "deepseek-llm"}) {
    const std::string path = DataPath(std::string("tokenizers/") + name + ".gguf");
    SKIP_WITHOUT(path);
    const File file = File::Open(path);
    EXPECT_TRUE(file.tensors().empty()) << name;
    EXPECT_GT(file.metadata().FindStrings("tokenizer.ggml.tokens")->size(), 30000u) << name;
  }
}

TEST(RealFiles, EveryTinyModelOpensAndDequantizes) {
  const std::string folder = DataPath("golden/tiny");
  SKIP_WITHOUT(folder);
  int opened = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() != ".gguf") continue;
    const File file = File::Open(entry.path());
    const TensorInfo* embedding = file.FindTensor("token_embd.weight");
    ASSERT_NE(embedding, nullptr) << entry.path();
    EXPECT_EQ(embedding->cols(), 256u);
    EXPECT_EQ(embedding->rows(), 512u);
    for (const TensorInfo& info : file.tensors()) {
      std::vector<float> row(info.cols());
      DequantizeRow(info, file.TensorBytes(info), {}, info.rows() - 1, row);
      for (const float value : row) ASSERT_LT(std::abs(value), 100.0f) << info.name;
    }
    ++opened;
  }
  EXPECT_EQ(opened, 14);
}

}  // namespace
}  // namespace gguf
