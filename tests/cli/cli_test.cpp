// Property: every subcommand keeps the contract of docs/cli.md: results on stdout (one JSON object
// per line with --json), everything else on stderr, exit codes 0, 1 and 2, errors in one sentence.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/cli/process.h"

namespace cli {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

// A tiny model of our own, made once: no test here needs the shared data.
class Cli : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    model_ = new ScratchFile("gguf");
    const ProcessResult made =
        RunTern({"synth", "--shape", "tiny", "--type", "TQ2_0", "-o", model_->path()});
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }
  static std::string Model() { return model_->path(); }

  static ScratchFile* model_;
};

ScratchFile* Cli::model_ = nullptr;

int Lines(const std::string& text) {
  return static_cast<int>(std::count(text.begin(), text.end(), '\n'));
}

TEST_F(Cli, NoSubcommandIsBadUsage) {
  const ProcessResult result = RunTern({});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.out, "");
}

TEST_F(Cli, UnknownCommandIsNamedAmongTheKnownOnes) {
  const ProcessResult result = RunTern({"srve", "--port", "1"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("\"srve\""));
  EXPECT_THAT(result.err, HasSubstr("serve, chat"));
  EXPECT_EQ(RunTern({"help"}).out, RunTern({"--help"}).out);
}

TEST_F(Cli, TokenLimitOutsideItsRangeNamesTheRange) {
  const ProcessResult result = RunTern({"generate", "--prompt", "x", "--max-tokens", "-1"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_LT(result.err.size(), 200U) << result.err;
}

TEST_F(Cli, UnknownFlagIsBadUsage) {
  const ProcessResult result = RunTern({"generate", "--no-such-flag"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("--no-such-flag"));
}

TEST_F(Cli, HelpTeachesWithExamples) {
  for (const char* command : {"serve", "chat", "generate", "bench", "perplexity", "inspect", "eval",
                              "tokenize", "template", "synth", "quantize", "calibrate", "health"}) {
    const ProcessResult result = RunTern({command, "--help"});
    EXPECT_EQ(result.exit_code, 0) << command;
    EXPECT_THAT(result.out, HasSubstr("Examples:")) << command;
  }
  EXPECT_THAT(RunTern({"--help"}).out, HasSubstr("Exit codes"));
}

TEST_F(Cli, VersionGoesToStandardOutput) {
  const ProcessResult result = RunTern({"--version"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, StartsWith("tern "));
}

TEST_F(Cli, MissingModelFileFailsWithOneSentence) {
  const ProcessResult result =
      RunTern({"generate", "--model", "/nonexistent.gguf", "--prompt", "x"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(Lines(result.err), 1) << result.err;
  EXPECT_THAT(result.err, HasSubstr("/nonexistent.gguf"));
}

TEST_F(Cli, ConfigErrorIsBadUsageAndNamesTheVariable) {
  const ProcessResult result =
      RunTern({"generate", "--model", Model(), "--prompt", "x"}, "", {"TERN_ENGINE_KV_TYPE=q3"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("TERN_ENGINE_KV_TYPE must be one of"));
}

TEST_F(Cli, GenerateJsonHasEveryField) {
  const ProcessResult result =
      RunTern({"generate", "--model", Model(), "--prompt", "hello", "--max-tokens", "5",
               "--temperature", "0", "--ignore-eos", "--logprobs", "3", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(Lines(result.out), 1);
  const json answer = json::parse(result.out);
  EXPECT_EQ(answer["prompt_tokens"][0], 1);
  ASSERT_EQ(answer["tokens"].size(), 5U);
  EXPECT_EQ(answer["finish_reason"], "length");
  ASSERT_EQ(answer["logprobs"].size(), 5U);
  for (size_t i = 0; i < 5; ++i) {
    const json& entry = answer["logprobs"][i];
    EXPECT_EQ(entry["token"], answer["tokens"][i]);
    ASSERT_EQ(entry["top"].size(), 3U);
    // Greedy: what was taken is the best, and the best come first.
    EXPECT_EQ(entry["top"][0]["token"], entry["token"]);
    EXPECT_EQ(entry["top"][0]["logprob"], entry["logprob"]);
    EXPECT_GE(entry["top"][0]["logprob"], entry["top"][1]["logprob"]);
  }
  EXPECT_TRUE(answer["text"].is_string());
  EXPECT_GT(answer["timings"]["prompt_tokens_per_second"], 0.0);
}

TEST_F(Cli, GreedyIsTheSameForAnyThreadsAndBatchLimit) {
  const std::vector<std::string> base = {
      "generate",      "--model", Model(),        "--prompt",   "hello there", "--max-tokens", "24",
      "--temperature", "0",       "--ignore-eos", "--logprobs", "2",           "--json"};
  const json reference = json::parse(RunTern(base).out);
  for (const std::vector<std::string>& extra : std::vector<std::vector<std::string>>{
           {"-t", "1"}, {"-t", "3"}, {"--fabric-layout", "pt5"}}) {
    std::vector<std::string> arguments = base;
    arguments.insert(arguments.end(), extra.begin(), extra.end());
    const json other = json::parse(RunTern(arguments).out);
    EXPECT_EQ(other["tokens"], reference["tokens"]) << extra[0];
    EXPECT_EQ(other["logprobs"], reference["logprobs"]) << extra[0];
  }
}

TEST_F(Cli, ForcedTokensGiveTheLogprobsOfGreedyOnItsOwnPath) {
  const std::vector<std::string> base = {"generate",  "--model",    Model(), "--prompt-tokens",
                                         "1,300,301", "--logprobs", "4",     "--json"};
  std::vector<std::string> greedy = base;
  greedy.insert(greedy.end(), {"--temperature", "0", "--max-tokens", "8", "--ignore-eos"});
  const json free = json::parse(RunTern(greedy).out);
  EXPECT_EQ(free["prompt_tokens"], json({1, 300, 301}));
  std::string ids;
  for (const json& token : free["tokens"]) {
    if (!ids.empty()) ids += ',';
    ids += token.dump();
  }
  std::vector<std::string> forced = base;
  forced.insert(forced.end(), {"--force-tokens", ids});
  const json answer = json::parse(RunTern(forced).out);
  EXPECT_EQ(answer["tokens"], free["tokens"]);
  EXPECT_EQ(answer["logprobs"], free["logprobs"]);
}

TEST_F(Cli, SeedDecidesTheSample) {
  const auto sample = [&](const std::string& seed) {
    return json::parse(RunTern({"generate", "--model", Model(), "--prompt", "x", "--max-tokens",
                                "16", "--ignore-eos", "--seed", seed, "--json"})
                           .out)["tokens"];
  };
  EXPECT_EQ(sample("7"), sample("7"));
  EXPECT_NE(sample("7"), sample("8"));
}

TEST_F(Cli, GenerateStreamsPlainText) {
  const ProcessResult result = RunTern(
      {"generate", "--model", Model(), "--prompt", "x", "--max-tokens", "4", "--ignore-eos"});
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
  EXPECT_TRUE(result.out.ends_with("\n"));
}

TEST_F(Cli, FlagsWithoutEffectAreBadUsage) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"generate", "--prompt", "x", "--logprobs", "2"}, "--logprobs requires --json"},
      {{"generate", "--prompt", "x", "--system", "y"}, "--system requires --chat"},
      {{"bench", "--replay-free"}, "--replay-free requires --replay"},
      {{"bench", "--embedding-type", "F16"}, "--embedding-type requires --shape"}};
  for (const auto& [arguments, sentence] : cases) {
    const ProcessResult result = RunTern(arguments);
    EXPECT_EQ(result.exit_code, 2) << sentence;
    EXPECT_EQ(result.out, "");
    EXPECT_THAT(result.err, StartsWith("tern: " + sentence + "\n"));
  }
}

TEST_F(Cli, BadTokenListIsBadUsage) {
  for (const char* list : {"1,,2", "1,", "x", "-1", "99999999", "1 2"}) {
    const ProcessResult result =
        RunTern({"generate", "--model", Model(), "--prompt-tokens", list, "--json"});
    EXPECT_EQ(result.exit_code, 2) << list;
    EXPECT_THAT(result.err, HasSubstr("--prompt-tokens")) << list;
  }
}

TEST_F(Cli, SamplingOutsideItsRangeIsBadUsage) {
  const ProcessResult result =
      RunTern({"generate", "--model", Model(), "--prompt", "x", "--temperature", "3"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("temperature"));
}

TEST_F(Cli, PromptLongerThanTheContextIsRefused) {
  const ProcessResult result = RunTern(
      {"generate", "--model", Model(), "--context-length", "4", "--prompt-tokens", "1,2,3,4,5"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("5 tokens"));
}

TEST_F(Cli, PerplexityOfUniformModelIsFinite) {
  std::string text;
  for (int i = 0; i < 600; ++i) text += "word ";
  const ScratchFile file("txt", text + "\n");
  const ProcessResult result = RunTern(
      {"perplexity", "--model", Model(), "--file", file.path(), "--context", "64", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json score = json::parse(result.out);
  // Positions 32 .. 62 of each chunk.
  EXPECT_EQ(score["tokens_scored"].get<int>(), score["chunks"].get<int>() * 31);
  EXPECT_GT(score["perplexity"], 1.0);
  EXPECT_GT(score["stderr"], 0.0);
  EXPECT_THAT(result.err, HasSubstr("chunk 1 of"));
}

TEST_F(Cli, PerplexityOfTooShortATextFails) {
  const ScratchFile file("txt", "short");
  const ProcessResult result =
      RunTern({"perplexity", "--model", Model(), "--file", file.path(), "--json"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("one chunk needs 512"));
}

TEST_F(Cli, BenchPrintsOneLinePerResult) {
  const ProcessResult result =
      RunTern({"bench", "--model", Model(), "-p", "16", "-n", "4", "-r", "2", "--batch", "1,3",
               "--depth", "0,8", "-t", "1", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(Lines(result.out), 8);
  std::istringstream lines(result.out);
  for (std::string line; std::getline(lines, line);) {
    const json entry = json::parse(line);
    EXPECT_TRUE(entry["test"] == "pp16" || entry["test"] == "tg4");
    EXPECT_EQ(entry["threads"], 1);
    EXPECT_LE(entry["tokens_per_second"]["min"], entry["tokens_per_second"]["median"]);
    EXPECT_LE(entry["tokens_per_second"]["median"], entry["tokens_per_second"]["max"]);
    EXPECT_GT(entry["bytes_per_token"], 0.0);
    EXPECT_GT(entry["limit_tokens_per_second"], 0.0);
    EXPECT_TRUE(entry["limit"] == "memory" || entry["limit"] == "compute");
  }
}

TEST_F(Cli, BenchOfASyntheticShapeNeedsNoFile) {
  const ProcessResult result =
      RunTern({"bench", "--shape", "tiny", "--format", "tq1_0", "-p", "8", "-n", "2", "-r", "1"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("pp8"));
  EXPECT_EQ(RunTern({"bench", "--shape", "huge"}).exit_code, 2);
}

TEST_F(Cli, InspectReportsTensorsAndMemory) {
  const ProcessResult result = RunTern({"inspect", Model(), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(report["metadata"]["general.architecture"], "bitnet-b1.58");
  EXPECT_EQ(report["tensors"].size(), 2U + 2U * 11U);
  EXPECT_NEAR(report["zero_rate"].get<double>(), 0.42, 0.01);
  EXPECT_GT(report["run"]["memory"]["weights_bytes"], 0);
  EXPECT_EQ(report["run"]["activation"], "int8 per token");
  EXPECT_THAT(RunTern({"inspect", Model()}).out, HasSubstr("blk.0.attn_q.weight"));
}

TEST_F(Cli, InspectSaysWhereEachMatrixRunsAndWhy) {
  const ProcessResult result =
      RunTern({"inspect", Model(), "--fabric", "--fabric-layers", "0", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json run = json::parse(result.out)["run"];
  size_t on_fabric = 0;
  for (const json& placement : run["placements"]) {
    if (!placement.contains("reason")) continue;
    const std::string name = placement["name"];
    EXPECT_EQ(placement["runs_on"], name.starts_with("blk.0.") ? "fabric" : "host") << name;
    on_fabric += name.starts_with("blk.0.") ? 1U : 0U;
    if (name.starts_with("blk.1.")) {
      EXPECT_EQ(placement["reason"], "layer 1 is not in --fabric-layers 0");
    }
  }
  EXPECT_EQ(on_fabric, 7U);
  EXPECT_EQ(run["fabric"]["frames"], on_fabric);
  EXPECT_THAT(RunTern({"inspect", Model(), "--fabric"}).out, HasSubstr("its weights are trits"));
  EXPECT_EQ(RunTern({"inspect", Model(), "--fabric", "--no-load"}).exit_code, 2);
  EXPECT_EQ(RunTern({"inspect", Model(), "--fabric-planes", "9"}).exit_code, 2);
}

TEST_F(Cli, InspectSaysWhatOfABoundedPoolIsInItBeforeTheFirstToken) {
  const auto inspect = [](const char* device) {
    const ProcessResult result = RunTern({"inspect", Model(), "--json", "--fabric-layout", "2bit",
                                          "--fabric-pool", "160KiB", "--fabric-device", device});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out)["run"];
  };
  const json sim = inspect("sim");
  uint64_t in_pool = 0;
  uint64_t outside = 0;
  uint64_t bytes = 0;
  for (const json& placement : sim["placements"]) {
    if (placement["runs_on"] != "fabric") continue;
    const json& residency = placement["residency"];
    EXPECT_EQ(residency["on_device"], 0);
    EXPECT_EQ(residency["pinned"], 0);
    EXPECT_EQ(residency["in_pool"].get<int>() + residency["outside"].get<int>(), 1);
    in_pool += residency["in_pool"].get<uint64_t>();
    outside += residency["outside"].get<uint64_t>();
    if (residency["in_pool"] == 1) bytes += placement["resident_bytes"].get<uint64_t>();
  }
  EXPECT_GT(in_pool, 0U);
  EXPECT_GT(outside, 0U);
  EXPECT_EQ(in_pool + outside, 14U);
  EXPECT_LE(bytes, 160U * 1024);
  EXPECT_EQ(sim["fabric"]["matrices_in_pool"], in_pool);
  EXPECT_EQ(sim["fabric"]["matrices_outside"], outside);
  EXPECT_EQ(inspect("ioctl")["fabric"], sim["fabric"]) << "each device has its pool";

  const std::string table =
      RunTern({"inspect", Model(), "--fabric", "--fabric-pool", "160KiB"}).out;
  EXPECT_THAT(table, HasSubstr(" pool "));
  EXPECT_THAT(table, HasSubstr(" outside "));
  EXPECT_THAT(table, HasSubstr("before the first token it holds"));
  EXPECT_THAT(RunTern({"inspect", Model(), "--fabric"}).out, HasSubstr(" device "));
}

TEST_F(Cli, CalibrateWritesWhatWeighsTheErrorOfPlanes) {
  const ScratchFile quantised("gguf");
  const ScratchFile importance("gguf");
  std::string words;
  for (int i = 0; i < 200; ++i) words += "the cat sat on mat number " + std::to_string(i) + ". ";
  const ScratchFile text("txt", words);
  ASSERT_EQ(RunTern({"quantize", Model(), quantised.path(), "--type", "Q6_K", "--force"}).exit_code,
            0);
  const ProcessResult made = RunTern({"calibrate", quantised.path(), "--file", text.path(), "-o",
                                      importance.path(), "--context", "64", "--chunks", "2"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(made.out, HasSubstr("14 tensors, 128 tokens"));
  const auto inspect = [&](const std::string& calibration) {
    const ProcessResult result = RunTern({"inspect", quantised.path(), "--json", "--fabric-planes",
                                          "2", "--fabric-calibration", calibration});
    EXPECT_EQ(result.exit_code, 0) << result.err;
    return json::parse(result.out);
  };
  const json with = inspect(importance.path());
  const json without = inspect("");
  size_t different = 0;
  for (size_t i = 0; i < with["run"]["placements"].size(); ++i) {
    const json& placement = with["run"]["placements"][i];
    if (placement["runs_on"] != "fabric") continue;
    EXPECT_THAT(placement["reason"].get<std::string>(), HasSubstr("(by its calibration)"));
    const json& plain = without["run"]["placements"][i];
    different += placement["estimated_error"] != plain["estimated_error"] ? 1 : 0;
  }
  EXPECT_GT(different, 7U);
  // No fault of the model, so nothing is told of that.
  const ProcessResult other =
      RunTern({"inspect", quantised.path(), "--json", "--fabric-calibration", quantised.path()});
  EXPECT_EQ(other.exit_code, 1);
  EXPECT_EQ(other.out, "");
  EXPECT_THAT(other.err, HasSubstr("is no importance matrix"));
  EXPECT_EQ(RunTern({"calibrate", quantised.path(), "-o", importance.path()}).exit_code, 2);
}

TEST_F(Cli, TokenizeGivesOneLinePerText) {
  const ProcessResult plain = RunTern({"tokenize", "--model", Model(), "--text", "a b"});
  ASSERT_EQ(plain.exit_code, 0) << plain.err;
  EXPECT_EQ(Lines(plain.out), 1);
  EXPECT_THAT(RunTern({"tokenize", "--model", Model(), "--text", "a b", "--add-special"}).out,
              StartsWith("1 "));
  const ScratchFile cases("inp", "a\n__ggml_vocab_test__\n\n__ggml_vocab_test__\n");
  EXPECT_EQ(Lines(RunTern({"tokenize", "--model", Model(), "--cases", cases.path()}).out), 2);
  const ScratchFile open("inp", "a\n__ggml_vocab_test__\nb");
  EXPECT_EQ(RunTern({"tokenize", "--model", Model(), "--cases", open.path()}).exit_code, 1);
}

TEST_F(Cli, TemplatePrintsTheRenderingAndNothingElse) {
  const ScratchFile source("jinja",
                           "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}");
  const std::string input = R"({"messages":[{"role":"user","content":"hi"}]})";
  const ProcessResult result =
      RunTern({"template", "--file", source.path(), "--input", "-"}, input);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "[user] hi");
  EXPECT_EQ(result.err, "");
}

TEST_F(Cli, TemplateThatRaisesFailsWithItsOwnMessage) {
  const ScratchFile source("jinja", "before{{ raise_exception('Roles must alternate!') }}");
  const ProcessResult result = RunTern({"template", "--file", source.path(), "--input", "-"}, "{}");
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err, "Roles must alternate!\n");
}

TEST_F(Cli, TemplateSaysWhereItsInputIsNoJson) {
  const ScratchFile source("jinja", "{{ x }}");
  const ScratchFile input("json", "{\n \"x\": yes}");
  const ProcessResult result =
      RunTern({"template", "--file", source.path(), "--input", input.path()});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr(input.path() + " is no JSON: parse error at line 2, column 7"));
  EXPECT_THAT(RunTern({"template", "--file", source.path(), "--input", "-"}, "").err,
              HasSubstr("Standard input is no JSON: "));
}

TEST_F(Cli, TemplateTimeCanBeFixed) {
  const ScratchFile source("jinja", "{{ strftime_now('%Y-%m-%d') }}");
  EXPECT_EQ(
      RunTern({"template", "--file", source.path(), "--input", "-", "--now", "86400"}, "{}").out,
      "1970-01-02");
}

TEST_F(Cli, ChatAnswersEachLine) {
  const ProcessResult result =
      RunTern({"chat", "--model", Model(), "--max-tokens", "3", "--temperature", "0"},
              "hello\n/reset\nhello\n/exit\n");
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const size_t half = result.out.size() / 2;
  // The same message to an empty conversation twice: the same answer twice.
  EXPECT_EQ(result.out.substr(0, half), result.out.substr(half));
}

TEST_F(Cli, HealthFailsWhenNothingListens) {
  const ProcessResult result = RunTern({"health", "--url", "http://127.0.0.1:1/health"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_EQ(RunTern({"health", "--url", "ftp://x"}).exit_code, 2);
}

// Whatever way a command prints: by C++ streams, by printf, all at the end or line by line.
TEST_F(Cli, ResultsThatCannotBeWrittenFailTheCommand) {
  for (const std::string& arguments :
       {"bench -p 8 -n 2 -r 1 --model " + Model(), "quantize --dry-run " + Model(),
        "inspect " + Model(), "tokenize --text x --model " + Model()}) {
    const std::string command =
        std::string(TERN_BINARY) + " " + arguments + " > /dev/full 2> /dev/null";
    EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1) << arguments;
  }
}

// One that is smaller than a line of memory is a pool, too, not none.
TEST_F(Cli, ATinyPoolIsToldWhatIsEnough) {
  const ProcessResult result =
      RunTern({"generate", "--model", Model(), "-p", "x", "--fabric-pool", "1"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("give --fabric-pool at least"));
}

TEST_F(Cli, PrefixCacheFileInNoFolderIsToldAtTheStart) {
  const ProcessResult result =
      RunTern({"serve", "--model", Model(), "--port", "0", "--prefix-cache-file", "/nope/x"});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_THAT(result.err, HasSubstr("there is no folder /nope"));
}

TEST_F(Cli, DoctorLooksAtNoMachineThatIsNotThere) {
  const ProcessResult result = RunTern({"doctor", "--no-measure", "--root", "/nonexistent"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("/nonexistent"));
}

TEST_F(Cli, WrongForcedIsaIsTold) {
  const ProcessResult result =
      RunTern({"tokenize", "--model", Model(), "--text", "x"}, "", {"TERN_FORCE_ISA=quantum"});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("quantum"));
}

}  // namespace
}  // namespace cli
