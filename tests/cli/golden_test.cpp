// Property: on real files the tool reproduces reference figures: perplexities within 0.1 %,
// teacher-forced log-probabilities within the tolerances of docs/decisions.md, token ids exactly.

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "tests/cli/process.h"

namespace cli {
namespace {

using nlohmann::json;

std::string ReadShared(const std::string& name) {
  std::ifstream file(SharedData(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct PerplexityCase {
  const char* key;
  const char* file;
  const char* context;
};

class GoldenPerplexity : public testing::TestWithParam<PerplexityCase> {};

TEST_P(GoldenPerplexity, WithinATenthOfAPercent) {
  TERN_NEEDS_SHARED_DATA("models/perplexity.json");
  const json expected = json::parse(ReadShared("models/perplexity.json")).at(GetParam().key);
  const ProcessResult result =
      RunTern({"perplexity", "--model", SharedData("models/tern-demo-7m-i2_s.gguf"), "--file",
               SharedData(GetParam().file), "--context", GetParam().context, "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json score = json::parse(result.out);
  EXPECT_EQ(score["tokens_scored"], expected["tokens_scored"]);
  EXPECT_EQ(score["chunks"], expected["chunks"]);
  const double want = expected["perplexity"];
  EXPECT_NEAR(score["perplexity"].get<double>(), want, want * 1e-3);
}

INSTANTIATE_TEST_SUITE_P(
    DemoModel, GoldenPerplexity,
    testing::Values(PerplexityCase{"valid_dialog@256", "models/valid_dialog.txt", "256"},
                    PerplexityCase{"valid_dialog@1024", "models/valid_dialog.txt", "1024"},
                    PerplexityCase{"shakespeare40k@512", "models/shakespeare40k.txt", "512"}),
    [](const testing::TestParamInfo<PerplexityCase>& info) {
      std::string name = info.param.key;
      for (char& c : name) c = c == '@' ? '_' : c;
      return name;
    });

std::string Joined(const json& ids) {
  std::string text;
  for (const json& id : ids) {
    if (!text.empty()) text += ',';
    text += id.dump();
  }
  return text;
}

// Mean and largest difference of the reference's 20 best log-probabilities along its tokens.
struct Difference {
  double mean = 0;
  double max = 0;
  int count = 0;
};

Difference AgainstReference(const std::string& model, const json& reference) {
  const ProcessResult result =
      RunTern({"generate", "--model", model, "--prompt-tokens", Joined(reference["prompt"]),
               "--force-tokens", Joined(reference["tokens"]), "--logprobs", "1000", "--json"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  if (result.exit_code != 0) return {};
  const json answer = json::parse(result.out);
  EXPECT_EQ(answer["tokens"], reference["tokens"]);
  Difference difference;
  for (size_t i = 0; i < reference["top"].size(); ++i) {
    std::map<int, double> ours;
    for (const json& entry : answer["logprobs"][i]["top"]) {
      ours[entry["token"]] = entry["logprob"];
    }
    for (const json& pair : reference["top"][i]) {
      const auto found = ours.find(pair[0].get<int>());
      if (found == ours.end()) continue;
      const double delta = std::abs(found->second - pair[1].get<double>());
      difference.mean += delta;
      difference.max = std::max(difference.max, delta);
      ++difference.count;
    }
  }
  EXPECT_GT(difference.count, 0);
  difference.mean /= std::max(difference.count, 1);
  return difference;
}

TEST(GoldenLogprobs, DemoModelWithInt8Activations) {
  TERN_NEEDS_SHARED_DATA("models/golden.json");
  const json golden = json::parse(ReadShared("models/golden.json"));
  const std::string model = SharedData("models/tern-demo-7m-i2_s.gguf");
  for (const auto& [name, reference] : golden.items()) {
    EXPECT_LE(AgainstReference(model, reference).mean, 0.03) << name;
  }
}

TEST(GoldenLogprobs, DemoModelWithFloatActivations) {
  TERN_NEEDS_SHARED_DATA("models/golden_float.json");
  const json golden = json::parse(ReadShared("models/golden_float.json"));
  const std::string model = SharedData("models/tern-demo-7m-f16.gguf");
  for (const auto& [name, reference] : golden.items()) {
    // The reference rounds nothing; our KV cache does unless it is told not to.
    EXPECT_LE(AgainstReference(model, reference).mean, 1e-3) << name;
  }
}

TEST(GoldenLogprobs, DemoModelIsTheSameInEveryFormat) {
  TERN_NEEDS_SHARED_DATA("models/golden.json");
  const json reference = json::parse(ReadShared("models/golden.json"))["movies"];
  std::string first;
  for (const char* format : {"i2_s", "tq1_0", "tq2_0"}) {
    const ProcessResult result = RunTern(
        {"generate", "--model", SharedData("models/tern-demo-7m-" + std::string(format) + ".gguf"),
         "--prompt-tokens", Joined(reference["prompt"]), "--force-tokens",
         Joined(reference["tokens"]), "--logprobs", "50", "--json"});
    ASSERT_EQ(result.exit_code, 0) << result.err;
    const std::string logprobs = json::parse(result.out)["logprobs"].dump();
    if (first.empty()) first = logprobs;
    EXPECT_EQ(logprobs, first) << format;
  }
}

TEST(GoldenLogprobs, DemoModelAnswersItsGoldenPrompt) {
  TERN_NEEDS_SHARED_DATA("models/golden.json");
  const json reference = json::parse(ReadShared("models/golden.json"))["movies"];
  const ProcessResult result =
      RunTern({"generate", "--model", SharedData("models/tern-demo-7m-i2_s.gguf"), "--chat",
               "--prompt", "Do you like movies?", "--temperature", "0", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json answer = json::parse(result.out);
  EXPECT_EQ(answer["prompt_tokens"], reference["prompt"]);
  EXPECT_EQ(answer["tokens"], reference["tokens"]);
  EXPECT_EQ(answer["text"], reference["text"]);
  EXPECT_EQ(answer["finish_reason"], "stop");
}

class TokenizerCases : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerCases, EveryLineIsEqual) {
  const std::string stem = std::string("tokenizers/") + GetParam();
  TERN_NEEDS_SHARED_DATA(stem + ".gguf");
  const ProcessResult result = RunTern(
      {"tokenize", "--model", SharedData(stem + ".gguf"), "--cases", SharedData(stem + ".inp")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream ours(result.out);
  std::istringstream theirs(ReadShared(stem + ".out"));
  std::string expected;
  std::string actual;
  int line = 0;
  while (std::getline(theirs, expected)) {
    ++line;
    ASSERT_TRUE(std::getline(ours, actual)) << "line " << line;
    // The reference indents its ids.
    expected.erase(0, expected.find_first_not_of(' '));
    expected.erase(expected.find_last_not_of(' ') + 1);
    EXPECT_EQ(actual, expected) << "line " << line;
  }
  EXPECT_GT(line, 10);
}

INSTANTIATE_TEST_SUITE_P(SharedData, TokenizerCases,
                         testing::Values("llama-bpe", "gpt-2", "llama-spm", "phi-3",
                                         "deepseek-llm"),
                         [](const testing::TestParamInfo<const char*>& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace cli
