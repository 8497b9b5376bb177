// The official clients for JavaScript, OpenAI's in two pinned versions and Anthropic's, work
// against the real server: tests/integration/sdk/*.mjs say what is checked.
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>

#include "tests/integration/test_app.h"

namespace server {
namespace {

namespace fs = std::filesystem;

struct Outcome {
  int exit_code = -1;
  std::string output;
};

Outcome Shell(const std::string& command) {
  Outcome run;
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return run;
  char bytes[4096];
  while (const size_t count = std::fread(bytes, 1, sizeof bytes, pipe)) {
    run.output.append(bytes, count);
  }
  const int status = ::pclose(pipe);
  run.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return run;
}

std::string Quoted(const std::string& text) { return std::string("'") + text + "'"; }

// Empty, or why the client is not there.
std::string InstallClients() {
  if (std::string_view(TERN_NODE).ends_with("NOTFOUND")) return "node is not installed";
  const fs::path work = TERN_SDK_WORK_DIR;
  if (std::string_view(TERN_NPM).ends_with("NOTFOUND")) return "npm is not installed";
  const fs::path source = fs::path(TERN_SOURCE_DIR) / "tests/integration/sdk";
  fs::create_directories(work);
  // The versions are tested by processes that run at the same time, so one installs for both.
  const std::string lock = Quoted((source / "package-lock.json").string());
  const Outcome run = Shell(
      "cd " + Quoted(work.string()) + " && exec 9>lock && flock 9 && " + "{ cmp -s " + lock +
      " installed || { cp " + Quoted(source.string()) + "/package*.json . && " + Quoted(TERN_NPM) +
      " ci --no-audit --no-fund --ignore-scripts && cp " + lock + " installed; }; }");
  return run.exit_code == 0 ? std::string() : "npm ci failed: " + run.output;
}

// Runs a script with the client of a directory against an open server and one that wants a key.
void RunScript(const std::string& script, const std::string& client) {
  TestApp open;
  TestAppOptions options;
  options.server.api_keys = {{"tester", "sk-right"}};
  TestApp locked(options);
  const std::string path = std::string(TERN_SOURCE_DIR) + "/tests/integration/sdk/" + script;
  const Outcome run = Shell(Quoted(TERN_NODE) + " " + Quoted(path) + " " +
                            Quoted(TERN_SDK_WORK_DIR "/node_modules/" + client) + " " +
                            std::to_string(open.port()) + " " + std::to_string(locked.port()));
  std::fputs(run.output.c_str(), stdout);
  EXPECT_EQ(run.exit_code, 0);
}

class OpenAiSdk : public ::testing::TestWithParam<std::string> {};

TEST_P(OpenAiSdk, WorksAgainstTheServer) {
  if (const std::string reason = InstallClients(); !reason.empty()) GTEST_SKIP() << reason;
  RunScript("sdk_test.mjs", GetParam());
}

TEST(AnthropicSdk, WorksAgainstTheServer) {
  if (const std::string reason = InstallClients(); !reason.empty()) GTEST_SKIP() << reason;
  RunScript("anthropic_test.mjs", "@anthropic-ai/sdk");
}

INSTANTIATE_TEST_SUITE_P(Versions, OpenAiSdk, ::testing::Values("openai6", "openai7"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace server
