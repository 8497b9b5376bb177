// Property: the comparison with saved predictions equals its formulas on a case worked by hand; a
// model does not differ from itself; another file of the same weights does not either; broken files
// are refused.

#include "cli/divergence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/logits_file.h"
#include "tests/cli/process.h"

namespace cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;

float LogSumExpOf(const std::vector<float>& logits) {
  double sum = 0;
  for (const float logit : logits) sum += std::exp(double{logit});
  return static_cast<float>(std::log(sum));
}

// One chunk of 8 tokens has 3 scored positions.
constexpr uint32_t kContext = 8;

TEST(LogitsFile, GivesBackWhatWasSavedWithinItsStep) {
  const ScratchFile file("logits");
  const LogitsHeader header = {
      .vocabulary = 5, .context = kContext, .chunks = 1, .tokens = {0, 1, 2, 3, 4, 0, 1, 2}};
  ASSERT_EQ(header.positions(), 3u);
  const std::vector<std::vector<float>> logits = {
      {1, 2, 3, 4, 5}, {-100, 0, 3, 3, -20}, {7, 7, 7, 7, 7}};
  LogitsWriter writer(file.path(), header);
  for (const auto& position : logits) writer.Add(position, LogSumExpOf(position), 2);
  writer.Finish();
  LogitsReader reader(file.path());
  EXPECT_EQ(reader.header().tokens, header.tokens);
  for (const auto& position : logits) {
    const LogitsReader::Record& record = reader.Next();
    EXPECT_FLOAT_EQ(record.target_logprob, position[2] - LogSumExpOf(position));
    double sum = 0;
    for (size_t i = 0; i < 5; ++i) {
      // Below 40 nats under the first, all are the same.
      const double expected = std::max<double>(position[i] - LogSumExpOf(position), -40.7);
      EXPECT_NEAR(record.logprobs[i], expected, 0.7 * (expected < -40 ? 1.5 : 1e-3)) << i;
      sum += std::exp(record.logprobs[i]);
    }
    EXPECT_NEAR(sum, 1.0, 1e-12);
  }
}

// P = (1/2, 1/4, 1/4), Q = (1/4, 1/2, 1/4): KL = 1/2 ln 2 - 1/4 ln 2 = ln(2) / 4.
TEST(Divergence, EqualsACaseWorkedByHand) {
  const std::vector<float> q = {std::log(0.25F), std::log(0.5F), std::log(0.25F)};
  LogitsReader::Record base;
  base.logprobs = {std::log(0.5), std::log(0.25), std::log(0.25)};
  base.target_logprob = std::log(0.5F);
  Divergence divergence;
  divergence.Add(base, {.target = 0, .logits = q, .log_sum = 0});
  // The second position: Q = P.
  const std::vector<float> same = {std::log(0.5F), std::log(0.25F), std::log(0.25F)};
  divergence.Add(base, {.target = 0, .logits = same, .log_sum = 0});
  const Divergence::Summary summary = divergence.Summarise();
  EXPECT_NEAR(summary.kl.mean, std::log(2) / 8, 1e-7);
  EXPECT_NEAR(summary.kl.standard_error, std::log(2) / 8, 1e-7);
  EXPECT_NEAR(summary.kl_median, 0, 1e-7);
  EXPECT_NEAR(summary.kl_p99, std::log(2) / 4, 1e-7);
  EXPECT_NEAR(summary.kl_max, std::log(2) / 4, 1e-7);
  EXPECT_EQ(summary.same_top.mean, 0.5);
  EXPECT_NEAR(summary.base_perplexity, 2, 1e-6);
  EXPECT_NEAR(summary.perplexity, std::sqrt(8), 1e-6);
  EXPECT_NEAR(summary.log_ratio.mean, std::log(2) / 2, 1e-7);
  EXPECT_NEAR(summary.rms_probability, 0.25 / std::sqrt(2), 1e-7);
}

std::string Story() {
  std::string text;
  for (int i = 0; i < 6; ++i) {
    text += "Once upon a time there was a little dog who liked to play in the park. ";
  }
  return text;
}

class Kl : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    base_ = new ScratchFile("logits");
    const ScratchFile text("txt", Story());
    const ProcessResult saved = RunTern({"perplexity", "--file", text.path(), "--context", "32",
                                         "--save-logits", base_->path(), "--json"});
    ASSERT_EQ(saved.exit_code, 0) << saved.err;
    perplexity_ = json::parse(saved.out)["perplexity"];
    chunks_ = json::parse(saved.out)["chunks"];
  }
  static void TearDownTestSuite() { delete base_; }

  static ScratchFile* base_;
  static double perplexity_;
  static uint64_t chunks_;
};
ScratchFile* Kl::base_ = nullptr;
double Kl::perplexity_ = 0;
uint64_t Kl::chunks_ = 0;

TEST_F(Kl, ModelDoesNotDifferFromItself) {
  const uint64_t positions = chunks_ * (32 - 1 - 16);
  EXPECT_EQ(fs::file_size(base_->path()), 24 + chunks_ * 32 * 4 + positions * (8 + 2 * 4096));
  const ProcessResult result = RunTern({"perplexity", "--kl", base_->path(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json compared = json::parse(result.out);
  EXPECT_LT(std::fabs(compared["kl"]["mean"].get<double>()), 1e-6);
  EXPECT_LT(compared["kl_max"], 1e-5);
  EXPECT_EQ(compared["same_top"]["mean"], 1.0);
  EXPECT_EQ(compared["perplexity"], perplexity_);
  EXPECT_NEAR(compared["base_perplexity"], perplexity_, 1e-5 * perplexity_);
  EXPECT_LT(std::fabs(compared["log_perplexity_ratio"]["mean"].get<double>()), 1e-6);
  EXPECT_EQ(compared["tokens_scored"], positions);
}

TEST_F(Kl, OtherActivationsDiffer) {
  const ProcessResult result =
      RunTern({"perplexity", "--kl", base_->path(), "--activation-quant", "float", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json compared = json::parse(result.out);
  EXPECT_GT(compared["kl"]["mean"], 1e-5);
  EXPECT_LT(compared["kl"]["mean"], 0.1);
  EXPECT_GE(compared["kl_p99"], compared["kl_median"]);
}

TEST_F(Kl, BrokenFilesAndFlagsAreRefused) {
  std::ifstream file(base_->path(), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  const auto with = [&](size_t at, char byte) {
    std::string changed = bytes;
    changed[at] = byte;
    return changed;
  };
  const std::vector<std::pair<std::string, std::string>> broken = {
      {"", "--save-logits"},
      {"GGUF", "--save-logits"},
      {with(0, 'X'), "--save-logits"},
      {bytes.substr(0, bytes.size() - 1), "chunks of"},
      {bytes + "x", "chunks of"},
      {with(16, 99), "chunks of"},
      {with(15, 0x7f), "expected a vocabulary"},
      {with(24 + 3, 0x7f), "outside the vocabulary"}};
  for (const auto& [text, word] : broken) {
    const ScratchFile damaged("logits", text);
    const ProcessResult result = RunTern({"perplexity", "--kl", damaged.path()});
    EXPECT_EQ(result.exit_code, 1);
    EXPECT_THAT(result.err, HasSubstr(word));
  }
  const ScratchFile other("gguf");
  ASSERT_EQ(RunTern({"synth", "--shape", "tiny", "-o", other.path()}).exit_code, 0);
  const ProcessResult vocabulary =
      RunTern({"perplexity", "--kl", base_->path(), "--model", other.path()});
  EXPECT_EQ(vocabulary.exit_code, 1);
  EXPECT_THAT(vocabulary.err, HasSubstr("vocabulary of 4096"));
  EXPECT_EQ(RunTern({"perplexity"}).exit_code, 2);
  EXPECT_EQ(RunTern({"perplexity", "--kl", base_->path(), "--file", "x"}).exit_code, 2);
  EXPECT_EQ(RunTern({"perplexity", "--kl", base_->path(), "--context", "64"}).exit_code, 2);
}

TEST_F(Kl, UnwritableFileLeavesNothing) {
  const ScratchFile text("txt", Story());
  const ProcessResult result = RunTern({"perplexity", "--file", text.path(), "--context", "32",
                                        "--save-logits", "/nonexistent/x.logits"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("/nonexistent/x.logits"));
}

}  // namespace
}  // namespace cli
