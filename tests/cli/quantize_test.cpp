// Property: `tern quantize` writes files that run, with the same bits where the trits and scales
// are the same, reports what it did, and refuses what it cannot or must not do, leaving nothing
// behind.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "gguf/reader.h"
#include "tests/cli/process.h"
#include "tests/support/split_file.h"

namespace cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

std::string Bundled() { return TERN_SOURCE_DIR "/models/tern-demo-7m-i2_s.gguf"; }

// A path that nothing is at.
class FreshPath : public ScratchFile {
 public:
  FreshPath() : ScratchFile("gguf") { fs::remove(path()); }
};

ProcessResult Quantize(const std::string& input, const std::string& output,
                       const std::vector<std::string>& extra) {
  std::vector<std::string> arguments = {"quantize", input};
  if (!output.empty()) arguments.push_back(output);
  arguments.insert(arguments.end(), extra.begin(), extra.end());
  return RunTern(arguments);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Text of our own, long enough for two chunks of 64 tokens.
std::string Story() {
  std::string text;
  for (int i = 0; i < 6; ++i) {
    text +=
        "Once upon a time there was a little dog who liked to play in the park. One day he found a "
        "big red ball under a tree, and he ran home to show it to his friend. ";
  }
  return text;
}

// Teacher-forced log-probabilities: what two files must agree on to be the same model.
json LogprobsOf(const std::string& model) {
  const ProcessResult result =
      RunTern({"generate", "--model", model, "--prompt-tokens", "1,296,295,500,31",
               "--force-tokens", "327,376,12,900,44,871", "--logprobs", "20", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return result.exit_code == 0 ? json::parse(result.out)["logprobs"] : json();
}

TEST(Quantize, EveryTernaryTypeOfTheBundledModelGivesTheSameBits) {
  const json expected = LogprobsOf(Bundled());
  ASSERT_EQ(expected.size(), 6u);
  for (const char* type : {"TQ1_0", "TQ2_0", "Q2_0", "Q2_0_G128", "PQ2_0", "PTQ1_0", "IQ1_BN",
                           "IQ2_BN", "IQ2_BN_R4"}) {
    const FreshPath output;
    const ProcessResult made = Quantize(Bundled(), output.path(), {"--type", type, "--json"});
    ASSERT_EQ(made.exit_code, 0) << type << made.err;
    const json report = json::parse(made.out);
    EXPECT_EQ(report["total"]["relative_error"], 0.0) << type;
    EXPECT_NEAR(report["total"]["ternary_zero_rate"], 0.342, 0.001) << type;
    EXPECT_EQ(LogprobsOf(output.path()), expected) << type;
  }
}

// To floats and back: the floats are seen to be ternary, whatever the calibration.
TEST(Quantize, FloatCopyOfTheBundledModelComesBackByteForByte) {
  const FreshPath floats, again;
  ASSERT_EQ(Quantize(Bundled(), floats.path(), {"--type", "F16"}).exit_code, 0);
  const ProcessResult made = Quantize(floats.path(), again.path(), {"--type", "I2_S", "--json"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const gguf::File before = gguf::File::Open(Bundled());
  const gguf::File after = gguf::File::Open(again.path());
  const json report = json::parse(made.out);
  int exact = 0;
  for (const json& tensor : report["tensors"]) exact += tensor["method"] == "exact";
  EXPECT_EQ(exact, 56);
  for (const gguf::TensorInfo& info : before.tensors()) {
    const gguf::TensorInfo* same = after.FindTensor(info.name);
    ASSERT_NE(same, nullptr);
    EXPECT_EQ(same->type, info.type);
    const auto a = before.TensorBytes(info), b = after.TensorBytes(*same);
    EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << info.name;
  }
  EXPECT_EQ(after.metadata().GetUint("general.file_type"), 40u);
}

// The demo model was trained with absmean: trits = round(w / mean|w|), scale = mean|w|, and the
// shared F16 file holds the products. Its trits come back by absmean too, since |w| is the scale
// or 0; the scale of the rule is smaller by the share of zeros, which the original had not lost.
TEST(Quantize, SharedFloatModelBecomesTheBundledOne) {
  TERN_NEEDS_SHARED_DATA("models/tern-demo-7m-f16.gguf");
  const std::string floats = SharedData("models/tern-demo-7m-f16.gguf");
  const FreshPath exact, absmean;
  ASSERT_EQ(Quantize(floats, exact.path(), {"--type", "I2_S"}).exit_code, 0);
  const ProcessResult made =
      Quantize(floats, absmean.path(), {"--type", "I2_S", "--recalibrate", "--json"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const json report = json::parse(made.out);
  const gguf::File bundled = gguf::File::Open(Bundled());
  const gguf::File same = gguf::File::Open(exact.path());
  const gguf::File shrunk = gguf::File::Open(absmean.path());
  int compared = 0;
  for (const gguf::TensorInfo& info : bundled.tensors()) {
    if (info.type != gguf::TensorType::kI2_S) continue;
    const auto bytes = bundled.TensorBytes(info);
    const auto exact_bytes = same.TensorBytes(*same.FindTensor(info.name));
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), exact_bytes.begin())) << info.name;
    const auto absmean_bytes = shrunk.TensorBytes(*shrunk.FindTensor(info.name));
    const size_t codes = info.elements() / 4;
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(codes),
                           absmean_bytes.begin()))
        << info.name;
    float scale = 0, rule = 0;
    std::memcpy(&scale, bytes.data() + codes, 4);
    std::memcpy(&rule, absmean_bytes.data() + codes, 4);
    for (const json& tensor : report["tensors"]) {
      if (tensor["name"] != info.name) continue;
      EXPECT_NEAR(rule / scale, 1.0 - tensor["zero_rate"].get<double>(), 1e-6) << info.name;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 56);
}

struct BlockType {
  const char* name;
  double relative_error;  // of the embedding, at most
};

// The embedding is the head too: both ends of the model run on the type.
TEST(Quantize, EveryBlockTypeOfTheEmbeddingRuns) {
  const json expected = LogprobsOf(Bundled());
  for (const BlockType& type : {BlockType{"Q8_0", 0.006},
                                {"Q6_K", 0.019},
                                {"Q5_1", 0.041},
                                {"Q5_K", 0.038},
                                {"Q5_0", 0.046},
                                {"IQ4_NL", 0.079},
                                {"IQ4_XS", 0.080},
                                {"Q4_K", 0.075},
                                {"Q4_1", 0.083},
                                {"Q4_0", 0.095},
                                {"Q3_K", 0.157},
                                {"Q2_K", 0.285}}) {
    const FreshPath output;
    const ProcessResult made =
        Quantize(Bundled(), output.path(), {"--type", "I2_S", "--embeddings", type.name, "--json"});
    ASSERT_EQ(made.exit_code, 0) << type.name << made.err;
    for (const json& tensor : json::parse(made.out)["tensors"]) {
      if (tensor["name"] != "token_embd.weight") continue;
      EXPECT_EQ(tensor["type"], type.name);
      EXPECT_EQ(tensor["method"], "encoded");
      EXPECT_GT(tensor["relative_error"], 0.0);
      EXPECT_LT(tensor["relative_error"], type.relative_error) << type.name;
    }
    const json logprobs = LogprobsOf(output.path());
    ASSERT_EQ(logprobs.size(), expected.size()) << type.name;
    EXPECT_NE(logprobs, expected) << type.name;
  }
}

// Trits are three of the levels of any type, so block types hold a ternary model too, if not as
// well.
TEST(Quantize, ProjectionsTakeBlockTypes) {
  for (const auto& [type, number] : {std::pair{"Q4_K", 14u}, {"IQ4_NL", 25u}, {"Q2_K", 10u}}) {
    const FreshPath output;
    const ProcessResult made = Quantize(Bundled(), output.path(), {"--type", type, "--json"});
    ASSERT_EQ(made.exit_code, 0) << type << made.err;
    EXPECT_LT(json::parse(made.out)["total"]["relative_error"], 0.06) << type;
    EXPECT_EQ(LogprobsOf(output.path()).size(), 6u) << type;
    const gguf::File file = gguf::File::Open(output.path());
    EXPECT_EQ(file.metadata().GetUint("general.file_type"), number) << type;
    EXPECT_EQ(gguf::TypeName(file.FindTensor("blk.0.attn_q.weight")->type), type);
  }
}

TEST(Quantize, SplitModelsAreTheWholeFromAnyPart) {
  const FreshPath prefix, from_whole;
  const std::vector<std::string> parts =
      support::WriteSplit(gguf::File::Open(Bundled()), prefix.path(), 3);
  const std::vector<std::string> options = {"--type", "TQ1_0", "--embeddings", "Q4_K"};
  ASSERT_EQ(Quantize(Bundled(), from_whole.path(), options).exit_code, 0);
  EXPECT_EQ(LogprobsOf(parts[0]), LogprobsOf(Bundled()));
  for (const std::string& part : {parts[0], parts[2]}) {
    const FreshPath output;
    const ProcessResult made = Quantize(part, output.path(), options);
    ASSERT_EQ(made.exit_code, 0) << part << made.err;
    EXPECT_EQ(ReadFile(output.path()), ReadFile(from_whole.path())) << part;
    // No part of the input is a fit output.
    const ProcessResult onto_part = Quantize(part, parts[1], {"--force"});
    EXPECT_EQ(onto_part.exit_code, 2);
    EXPECT_THAT(onto_part.err, HasSubstr("is the input file"));
  }
  fs::remove(parts[1]);
  const FreshPath output;
  const ProcessResult incomplete = Quantize(parts[0], output.path(), options);
  EXPECT_EQ(incomplete.exit_code, 1);
  EXPECT_THAT(incomplete.err, HasSubstr("-00002-of-00003.gguf: No such file"));
  EXPECT_FALSE(fs::exists(output.path()));
  for (const std::string& part : parts) fs::remove(part);
}

TEST(Quantize, PerplexityBeforeAndAfterIsThatOfTheFiles) {
  const ScratchFile text("txt", Story());
  const FreshPath output;
  const ProcessResult made = Quantize(Bundled(), output.path(),
                                      {"--type", "TQ2_0", "--embeddings", "ternary", "--text",
                                       text.path(), "--context", "64", "--json"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  const json perplexity = json::parse(made.out)["perplexity"];
  for (const auto& [model, name] : {std::pair{Bundled(), "before"}, {output.path(), "after"}}) {
    const ProcessResult measured = RunTern(
        {"perplexity", "--model", model, "--file", text.path(), "--context", "64", "--json"});
    EXPECT_EQ(json::parse(measured.out)["perplexity"], perplexity[name]["perplexity"]) << name;
  }
  // A ternary embedding costs something, but the model still speaks: chance would be 4096.
  EXPECT_LT(perplexity["before"]["perplexity"], 60.0);
  EXPECT_GT(perplexity["after"]["perplexity"], perplexity["before"]["perplexity"]);
  EXPECT_LT(perplexity["after"]["perplexity"], 1000.0);
}

TEST(Quantize, SweepShowsZeroRateErrorAndPerplexityPerThreshold) {
  const ScratchFile text("txt", Story());
  const ProcessResult swept =
      Quantize(Bundled(), "",
               {"--type", "TQ2_0", "--tensor-type", "blk.*=keep", "--embeddings", "ternary",
                "--calibration", "twn", "--sweep", "--sweep-thresholds", "0.2,0.7,1.5", "--text",
                text.path(), "--context", "64", "--json"});
  ASSERT_EQ(swept.exit_code, 0) << swept.err;
  std::istringstream lines(swept.out);
  std::vector<json> points;
  for (std::string line; std::getline(lines, line);) points.push_back(json::parse(line));
  ASSERT_EQ(points.size(), 3u);
  EXPECT_LT(points[0]["zero_rate"], points[1]["zero_rate"]);
  EXPECT_LT(points[1]["zero_rate"], points[2]["zero_rate"]);
  // The published threshold loses least of the three.
  EXPECT_LT(points[1]["relative_error"], points[0]["relative_error"]);
  EXPECT_LT(points[1]["relative_error"], points[2]["relative_error"]);
  for (const json& point : points) EXPECT_GT(point["perplexity"], 1.0);
}

TEST(Quantize, DryRunReportsTheSameAndWritesNothing) {
  const FreshPath output;
  const std::vector<std::string> options = {"--type", "PTQ1_0", "--embeddings", "Q6_K", "--json"};
  const ProcessResult written = Quantize(Bundled(), output.path(), options);
  std::vector<std::string> dry = options;
  dry.emplace_back("--dry-run");
  const ProcessResult reported = Quantize(Bundled(), "", dry);
  ASSERT_EQ(written.exit_code, 0) << written.err;
  ASSERT_EQ(reported.exit_code, 0) << reported.err;
  EXPECT_EQ(json::parse(written.out)["tensors"], json::parse(reported.out)["tensors"]);
  EXPECT_TRUE(json::parse(reported.out)["output"].is_null());
}

TEST(Quantize, HostileOptionsAreRefusedInOneSentence) {
  const FreshPath output;
  const std::vector<std::pair<std::vector<std::string>, std::string>> bad_usage = {
      {{"--type", "Q9"}, "TQ1_0"},
      {{"--type", "I2_S", "--calibration", "magic"}, "absmean"},
      {{"--threshold", "-1"}, "from 0 to 100"},
      {{"--threshold", "nan"}, "threshold"},
      {{"--threshold", "x"}, "--threshold"},
      {{"--granularity", "column"}, "group:N"},
      {{"--granularity", "group:"}, "group:N"},
      {{"--granularity", "group:0"}, "group:N"},
      {{"--granularity", "group:99999999999999999999"}, "group:N"},
      {{"--granularity", "group:-64"}, "group:N"},
      {{"--tensor-type", "blk.0.*"}, "NAME=TYPE"},
      {{"--tensor-type", "=F16"}, "NAME=TYPE"},
      {{"--tensor-type", "a=Q9"}, "Q9"},
      {{"--embeddings", "big"}, "big"},
      {{"--sweep-thresholds", "0.5"}, "--sweep"},
      {{"--sweep"}, "leave OUTPUT out"},
      {{"--dry-run"}, "leave OUTPUT out"},
      {{"--context", "3"}, "--context"}};
  for (const auto& [options, word] : bad_usage) {
    const ProcessResult result = Quantize(Bundled(), output.path(), options);
    EXPECT_EQ(result.exit_code, 2) << options[0] << result.err;
    EXPECT_THAT(result.err, HasSubstr(word));
    EXPECT_EQ(result.out, "");
  }
  const std::vector<std::pair<std::vector<std::string>, std::string>> failures = {
      {{"--type", "Q1_0"}, "a weight is 0"},
      {{"--head", "Q6_K"}, "no output.weight"},
      {{"--tensor-type", "nothing.*=F16"}, "nothing.*"},
      {{"--text", "/nonexistent.txt"}, "/nonexistent.txt"}};
  for (const auto& [options, word] : failures) {
    const ProcessResult result = Quantize(Bundled(), output.path(), options);
    EXPECT_EQ(result.exit_code, 1) << options[0] << result.err;
    EXPECT_THAT(result.err, HasSubstr(word));
    EXPECT_FALSE(fs::exists(output.path())) << options[0];
    EXPECT_FALSE(fs::exists(output.path() + ".partial")) << options[0];
  }
  EXPECT_EQ(Quantize("/nonexistent.gguf", output.path(), {}).exit_code, 1);
  EXPECT_EQ(Quantize(Bundled(), "", {}).exit_code, 2);
  EXPECT_EQ(Quantize(Bundled(), "/nonexistent/out.gguf", {}).exit_code, 1);
}

TEST(Quantize, InputIsNeverOverwrittenAndOutputOnlyByForce) {
  const FreshPath copy;
  fs::copy_file(Bundled(), copy.path());
  const std::string link = copy.path() + ".link";
  fs::create_hard_link(copy.path(), link);
  for (const std::string& target : {copy.path(), link}) {
    const ProcessResult onto_itself = Quantize(copy.path(), target, {"--force"});
    EXPECT_EQ(onto_itself.exit_code, 2);
    EXPECT_THAT(onto_itself.err, HasSubstr("is the input file"));
  }
  fs::remove(link);
  EXPECT_EQ(fs::file_size(copy.path()), fs::file_size(Bundled()));
  const ScratchFile other("gguf", "precious");
  const ProcessResult refused = Quantize(Bundled(), other.path(), {});
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, HasSubstr("--force"));
  EXPECT_EQ(fs::file_size(other.path()), 8u);
  EXPECT_EQ(Quantize(Bundled(), other.path(), {"--force"}).exit_code, 0);
  EXPECT_GT(fs::file_size(other.path()), 1000000u);
}

TEST(Quantize, InterruptedRunLeavesNothing) {
  std::string text;
  for (int i = 0; i < 200; ++i) text += Story();
  const ScratchFile file("txt", text);
  for (const int signal : {SIGINT, SIGTERM}) {
    const FreshPath output;
    BackgroundTern tern({"quantize", Bundled(), output.path(), "--type", "TQ1_0", "--text",
                         file.path(), "--context", "64"});
    ASSERT_TRUE(tern.WaitFor("chunk 2 of", 60)) << tern.Errors();
    tern.Signal(signal);
    EXPECT_EQ(tern.Wait(), 1);
    EXPECT_THAT(tern.Errors(), HasSubstr("Interrupted"));
    EXPECT_FALSE(fs::exists(output.path()));
    EXPECT_FALSE(fs::exists(output.path() + ".partial"));
  }
}

}  // namespace
}  // namespace cli
