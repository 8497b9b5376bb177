// Property: a command that a signal ends leaves nothing half-written behind, and ends by that
// signal; a load test reports what it has.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>

#include "tests/cli/process.h"

namespace cli {
namespace {

namespace fs = std::filesystem;

bool WaitUntil(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

std::string Words(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += "Once upon a time there was a bird. ";
  return text;
}

// A path in the test's folder at which there is nothing.
std::string FreshPath(const std::string& suffix) {
  const ScratchFile file(suffix);
  return file.path();
}

TEST(Interrupted, SynthLeavesNoPartialModel) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const std::string output = FreshPath("gguf");
    const std::string partial = output + ".partial";
    BackgroundTern synth({"synth", "--shape", "2b", "-o", output});
    ASSERT_TRUE(WaitUntil([&] { return fs::exists(partial); })) << synth.Errors();
    synth.Signal(signal);
    EXPECT_EQ(synth.Wait(), 128 + signal);
    EXPECT_FALSE(fs::exists(partial));
    EXPECT_FALSE(fs::exists(output));
  }
}

TEST(Interrupted, PerplexityLeavesNoPartialLogits) {
  const ScratchFile text("txt", Words(20000));
  const std::string output = FreshPath("logits");
  const std::string partial = output + ".partial";
  BackgroundTern perplexity({"perplexity", "--file", text.path(), "--save-logits", output});
  ASSERT_TRUE(WaitUntil([&] { return fs::exists(partial); })) << perplexity.Errors();
  perplexity.Signal(SIGTERM);
  EXPECT_EQ(perplexity.Wait(), 128 + SIGTERM);
  EXPECT_FALSE(fs::exists(partial));
  EXPECT_FALSE(fs::exists(output));
}

TEST(Interrupted, EvalLeavesNoPartialSamples) {
  std::string questions;
  for (int i = 0; i < 20000; ++i) {
    questions += R"({"query": "I like", "choices": ["it.", "zebras and zoology"], "gold": 0})";
    questions += "\n";
  }
  const ScratchFile task("jsonl", questions);
  const std::string output = FreshPath("samples");
  const std::string partial = output + ".partial";
  BackgroundTern eval({"eval", task.path(), "--samples", output});
  ASSERT_TRUE(WaitUntil([&] { return fs::exists(partial); })) << eval.Errors();
  eval.Signal(SIGINT);
  EXPECT_EQ(eval.Wait(), 128 + SIGINT);
  EXPECT_FALSE(fs::exists(partial));
  EXPECT_FALSE(fs::exists(output));
}

TEST(Interrupted, BenchLeavesNoSyntheticModel) {
  const std::string folder = FreshPath("tmp");
  fs::create_directory(folder);
  setenv("TMPDIR", folder.c_str(), 1);
  BackgroundTern bench({"bench", "--shape", "2b"});
  unsetenv("TMPDIR");
  // Its log lies there, too.
  const auto models = [&] {
    return std::count_if(fs::directory_iterator(folder), {},
                         [](const auto& entry) { return entry.is_directory(); });
  };
  ASSERT_TRUE(WaitUntil([&] { return models() == 1; })) << bench.Errors();
  ASSERT_TRUE(bench.WaitFor("writing a synthetic model to " + folder, 60));
  bench.Signal(SIGINT);
  EXPECT_EQ(bench.Wait(), 128 + SIGINT);
  EXPECT_EQ(models(), 0);
  fs::remove_all(folder);
}

TEST(Interrupted, LoadTestReportsWhatItHasAndFails) {
  const ScratchFile model("gguf");
  ASSERT_EQ(RunTern({"synth", "--shape", "tiny", "-o", model.path()}).exit_code, 0);
  for (const int signal : {SIGINT, SIGTERM}) {
    BackgroundTern server({"serve", "--model", model.path(), "--port", "0", "--kv-bytes", "16MiB"});
    ASSERT_TRUE(server.WaitFor("curl http://127.0.0.1:", 120)) << server.Errors();
    const std::string log = server.Errors();
    const size_t url = log.find("http://127.0.0.1:");
    const ScratchFile report("md");
    BackgroundTern load({"loadtest", "--url",
                         log.substr(url, log.find_first_of(" /\n", url + 7) - url), "--duration",
                         "3600", "--warmup", "0", "--markdown", report.path()});
    EXPECT_TRUE(server.WaitFor("/v1/chat/completions\" status=200", 120))
        << load.Errors() << server.Errors();
    load.Signal(signal);
    EXPECT_EQ(load.Wait(), 1) << load.Errors();
    std::ifstream file(report.path());
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    EXPECT_THAT(text, testing::HasSubstr("| interrupted | yes"));
    EXPECT_THAT(text, testing::HasSubstr("| completed / requests | "));
  }
}

// What the caller chose to ignore stays ignored: `nohup tern synth` outlives its terminal.
TEST(Interrupted, AnIgnoredHangUpIsStillIgnored) {
  const std::string output = FreshPath("gguf");
  std::signal(SIGHUP, SIG_IGN);
  BackgroundTern synth({"synth", "--shape", "tiny", "-o", output});
  std::signal(SIGHUP, SIG_DFL);
  while (!fs::exists(output)) {
    synth.Signal(SIGHUP);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(synth.Wait(), 0);
  fs::remove(output);
}

}  // namespace
}  // namespace cli
