// The official OpenAI client for JavaScript, in two pinned versions, works against the real server:
// tests/integration/sdk/sdk_test.mjs says what is checked.
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
  const Outcome run = Shell("cd " + Quoted(work.string()) + " && exec 9>lock && flock 9 && " +
                            "{ test -e installed || { cp " + Quoted(source.string()) +
                            "/package*.json . && " + Quoted(TERN_NPM) +
                            " ci --no-audit --no-fund --ignore-scripts && touch installed; }; }");
  return run.exit_code == 0 ? std::string() : "npm ci failed: " + run.output;
}

class OpenAiSdk : public ::testing::TestWithParam<std::string> {};

TEST_P(OpenAiSdk, WorksAgainstTheServer) {
  if (const std::string reason = InstallClients(); !reason.empty()) GTEST_SKIP() << reason;
  TestApp open;
  TestAppOptions options;
  options.server.api_keys = {{"tester", "sk-right"}};
  TestApp locked(options);
  const std::string script = std::string(TERN_SOURCE_DIR) + "/tests/integration/sdk/sdk_test.mjs";
  const Outcome run = Shell(Quoted(TERN_NODE) + " " + Quoted(script) + " " +
                            Quoted(TERN_SDK_WORK_DIR "/node_modules/" + GetParam()) + " " +
                            std::to_string(open.port()) + " " + std::to_string(locked.port()));
  std::fputs(run.output.c_str(), stdout);
  EXPECT_EQ(run.exit_code, 0);
}

INSTANTIATE_TEST_SUITE_P(Versions, OpenAiSdk, ::testing::Values("openai6", "openai7"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace server
