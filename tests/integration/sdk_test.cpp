// Clients in pinned versions work against the real server: OpenAI's for JavaScript (two major
// versions) and Python, Anthropic's, Vercel's AI SDK and LangChain. The scripts in
// tests/integration/sdk say what is checked.
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

// Runs `install` in the directory unless it was done with this list of versions. Tests run at the
// same time, so one installs for all. Empty, or why the clients are not there.
std::string InstallOnce(const fs::path& work, const fs::path& versions,
                        const std::string& install) {
  fs::create_directories(work);
  const std::string list = Quoted(versions.string());
  const Outcome run =
      Shell("cd " + Quoted(work.string()) + " && exec 9>lock && flock 9 && { cmp -s " + list +
            " installed || { " + install + " && cp " + list + " installed; }; }");
  return run.exit_code == 0 ? std::string() : "the clients did not install: " + run.output;
}

fs::path Scripts() { return fs::path(TERN_SOURCE_DIR) / "tests/integration/sdk"; }

std::string InstallNodeClients() {
  if (std::string_view(TERN_NODE).ends_with("NOTFOUND")) return "node is not installed";
  if (std::string_view(TERN_NPM).ends_with("NOTFOUND")) return "npm is not installed";
  return InstallOnce(TERN_SDK_WORK_DIR, Scripts() / "package-lock.json",
                     "cp " + Quoted(Scripts().string()) + "/package*.json . && " +
                         Quoted(TERN_NPM) + " ci --no-audit --no-fund --ignore-scripts");
}

std::string InstallPythonClients() {
  if (std::string_view(TERN_PYTHON).ends_with("NOTFOUND")) return "python3 is not installed";
  const fs::path versions = Scripts() / "requirements.txt";
  return InstallOnce(TERN_SDK_WORK_DIR "/python", versions,
                     Quoted(TERN_PYTHON) +
                         " -m venv venv && venv/bin/pip install --quiet "
                         "--disable-pip-version-check -r " +
                         Quoted(versions.string()));
}

// Runs `command` with the ports of an open server and of one that wants a key: sk-right, or sk-one,
// which may have one request at a time.
void RunClient(const std::string& command) {
  TestApp open;
  TestAppOptions options;
  options.server.api_keys = {{"tester", "sk-right"}, {"one", "sk-one", false, {.concurrent = 1}}};
  TestApp locked(options);
  const Outcome run =
      Shell(command + " " + std::to_string(open.port()) + " " + std::to_string(locked.port()));
  std::fputs(run.output.c_str(), stdout);
  EXPECT_EQ(run.exit_code, 0);
}

void RunNodeClient(const std::string& script, const std::string& client = "") {
  RunClient(Quoted(TERN_NODE) + " " + Quoted((Scripts() / script).string()) + " " +
            Quoted(TERN_SDK_WORK_DIR "/node_modules/" + client));
}

class OpenAiSdk : public ::testing::TestWithParam<std::string> {};

TEST_P(OpenAiSdk, WorksAgainstTheServer) {
  if (const std::string reason = InstallNodeClients(); !reason.empty()) GTEST_SKIP() << reason;
  RunNodeClient("sdk_test.mjs", GetParam());
}

TEST(AnthropicSdk, WorksAgainstTheServer) {
  if (const std::string reason = InstallNodeClients(); !reason.empty()) GTEST_SKIP() << reason;
  RunNodeClient("anthropic_test.mjs", "@anthropic-ai/sdk");
}

TEST(AiSdk, WorksAgainstTheServer) {
  if (const std::string reason = InstallNodeClients(); !reason.empty()) GTEST_SKIP() << reason;
  RunNodeClient("ai_sdk_test.mjs");
}

TEST(LangChainSdk, WorksAgainstTheServer) {
  if (const std::string reason = InstallNodeClients(); !reason.empty()) GTEST_SKIP() << reason;
  RunNodeClient("langchain_test.mjs");
}

TEST(PythonSdk, WorksAgainstTheServer) {
  if (const std::string reason = InstallPythonClients(); !reason.empty()) GTEST_SKIP() << reason;
  RunClient(Quoted(TERN_SDK_WORK_DIR "/python/venv/bin/python") + " " +
            Quoted((Scripts() / "openai_test.py").string()));
}

INSTANTIATE_TEST_SUITE_P(Versions, OpenAiSdk, ::testing::Values("openai6", "openai7"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace server
