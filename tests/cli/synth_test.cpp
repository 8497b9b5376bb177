// Property: a synthetic model is deterministic, holds the same weights in every format, and has
// the shape and zero rate that were asked for.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "gguf/codec.h"
#include "gguf/reader.h"
#include "tests/cli/process.h"

namespace cli {
namespace {

std::string Bytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

ProcessResult Synth(const std::string& path, const std::vector<std::string>& extra) {
  std::vector<std::string> arguments = {"synth", "--shape", "tiny", "-o", path};
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  return RunTern(arguments);
}

TEST(Synth, SameOptionsGiveTheSameBytes) {
  const ScratchFile a("gguf"), b("gguf"), c("gguf");
  ASSERT_EQ(Synth(a.path(), {}).exit_code, 0);
  ASSERT_EQ(Synth(b.path(), {}).exit_code, 0);
  ASSERT_EQ(Synth(c.path(), {"--seed", "2"}).exit_code, 0);
  EXPECT_EQ(Bytes(a.path()), Bytes(b.path()));
  EXPECT_NE(Bytes(a.path()), Bytes(c.path()));
}

TEST(Synth, EveryFormatHoldsTheSameWeights) {
  std::vector<float> first;
  for (const char* type : {"F32", "I2_S", "TQ1_0", "TQ2_0", "tq2_0", "F16"}) {
    const ScratchFile file("gguf");
    const ProcessResult made = Synth(file.path(), {"--type", type});
    ASSERT_EQ(made.exit_code, 0) << made.err;
    const gguf::File model = gguf::File::Open(file.path());
    const gguf::TensorInfo* info = model.FindTensor("blk.1.ffn_down.weight");
    ASSERT_NE(info, nullptr);
    ASSERT_EQ(info->cols(), 768U);
    ASSERT_EQ(info->rows(), 256U);
    std::vector<float> row(info->cols());
    gguf::DequantizeRow(*info, model.TensorBytes(*info), model.options(), 255, row);
    if (first.empty()) first = row;
    EXPECT_EQ(row, first) << type;
  }
}

TEST(Synth, EmbeddingTakesItsOwnType) {
  const ScratchFile file("gguf");
  ASSERT_EQ(Synth(file.path(), {"--embedding-type", "Q6_K"}).exit_code, 0);
  const gguf::File model = gguf::File::Open(file.path());
  EXPECT_EQ(model.FindTensor("token_embd.weight")->type, gguf::TensorType::kQ6_K);
  EXPECT_EQ(model.FindTensor("output.weight"), nullptr);
}

TEST(Synth, VocabularyOfAnotherFileIsCopied) {
  const ScratchFile donor("gguf"), copy("gguf");
  ASSERT_EQ(Synth(donor.path(), {}).exit_code, 0);
  const ProcessResult made = Synth(copy.path(), {"--vocab", donor.path(), "--seed", "3"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const gguf::File a = gguf::File::Open(donor.path());
  const gguf::File b = gguf::File::Open(copy.path());
  EXPECT_EQ(*a.metadata().FindStrings("tokenizer.ggml.tokens"),
            *b.metadata().FindStrings("tokenizer.ggml.tokens"));
}

// What a pruned model is for: the same tokens from a fraction of the bytes, and inspect says why.
TEST(Synth, APrunedModelRunsSparseWithTheSameTokens) {
  const ScratchFile file("gguf");
  ASSERT_EQ(Synth(file.path(), {"--zero-rate", "0.95"}).exit_code, 0);
  std::vector<std::string> answers;
  for (const char* sparse : {"never", "always", "auto"}) {
    const ProcessResult made = RunTern({"generate", "-m", file.path(), "-p", "a b c", "-n", "24",
                                        "--temperature", "0", "--fabric-sparse", sparse});
    ASSERT_EQ(made.exit_code, 0) << made.err;
    answers.push_back(made.out);
  }
  EXPECT_FALSE(answers[0].empty());
  EXPECT_EQ(answers[1], answers[0]);
  EXPECT_EQ(answers[2], answers[0]);

  const auto inspect = [&](const char* sparse) {
    const ProcessResult made =
        RunTern({"inspect", file.path(), "--json", "--fabric-sparse", sparse});
    EXPECT_EQ(made.exit_code, 0) << made.err;
    return nlohmann::json::parse(made.out)["run"];
  };
  const auto bytes_of = [](const nlohmann::json& run, const std::string& layout) {
    uint64_t bytes = 0;
    for (const auto& placement : run["placements"]) {
      if (placement["layout"].get<std::string>().starts_with(layout)) {
        bytes += placement["resident_bytes"].get<uint64_t>();
      }
    }
    return bytes;
  };
  const nlohmann::json never = inspect("never");
  const nlohmann::json always = inspect("always");
  EXPECT_EQ(bytes_of(never, "sparse"), 0U);
  EXPECT_EQ(bytes_of(always, "panel"), 0U);
  EXPECT_LT(bytes_of(always, "sparse"), bytes_of(never, "panel"));
  EXPECT_EQ(always["layout_reason"], "asked for");
  if (never["isa"] != "scalar") {
    EXPECT_THAT(inspect("auto")["layout_reason"].get<std::string>(),
                testing::HasSubstr("zeros for one token"));
  }
}

// The end of --zero-rate's range: no norm to keep, yet a scale that every type can hold.
TEST(Synth, ZerosAloneAreAModel) {
  for (const char* type : {"TQ1_0", "TQ2_0", "I2_S", "F16"}) {
    const ScratchFile file("gguf");
    const ProcessResult made = Synth(file.path(), {"--zero-rate", "1", "--type", type});
    ASSERT_EQ(made.exit_code, 0) << type << ": " << made.err;
    const ProcessResult answer =
        RunTern({"generate", "-m", file.path(), "-p", "a b", "-n", "4", "--temperature", "0"});
    EXPECT_EQ(answer.exit_code, 0) << type << ": " << answer.err;
  }
}

TEST(Synth, UnknownNamesAreBadUsage) {
  const ScratchFile file("gguf");
  const ProcessResult type = Synth(file.path(), {"--type", "Q9"});
  EXPECT_EQ(type.exit_code, 2);
  EXPECT_THAT(type.err, testing::HasSubstr("TQ1_0"));
  EXPECT_EQ(RunTern({"synth", "--shape", "9b", "-o", file.path()}).exit_code, 2);
}

TEST(Synth, WhatItWouldDestroyIsNoOutput) {
  const std::string folder = std::filesystem::temp_directory_path().string();
  for (const auto& [output, code] :
       {std::pair{std::string("/dev/null"), 2}, {folder, 2}, {folder + "/none/m.gguf", 1}}) {
    const ProcessResult result = Synth(output, {});
    EXPECT_EQ(result.exit_code, code) << output;
    EXPECT_THAT(result.err, testing::HasSubstr(output));
  }
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/null"));
}

}  // namespace
}  // namespace cli
