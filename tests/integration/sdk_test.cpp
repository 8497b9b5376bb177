// Clients in pinned versions work against the real server: OpenAI's for JavaScript (two major
// versions) and Python, Anthropic's, Vercel's AI SDK and LangChain. The scripts in
// tests/integration/sdk say what is checked. What the documentation says for curl works as it
// stands.
#include <gmock/gmock.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

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

// The commands of a page's examples, from a heading on: indented blocks that begin with curl.
std::vector<std::string> CurlExamples(const std::string& page, const std::string& heading) {
  std::ifstream file(fs::path(TERN_SOURCE_DIR) / "docs" / page);
  std::vector<std::string> blocks;
  bool reached = false;
  bool in_block = false;
  for (std::string line; std::getline(file, line);) {
    reached = reached || line == heading;
    const bool indented = reached && line.starts_with("    ");
    const bool begins = indented && !in_block && line.starts_with("    curl ");
    if (begins) blocks.emplace_back();
    in_block = begins || (in_block && indented);
    if (in_block) blocks.back() += line + "\n";
  }
  return blocks;
}

std::string WithPort(std::string text, uint16_t port) {
  for (const std::string host : {"localhost:8080", "127.0.0.1:8080"}) {
    for (size_t at; (at = text.find(host)) != std::string::npos;) {
      text.replace(at, host.size(), "127.0.0.1:" + std::to_string(port));
    }
  }
  return text;
}

TEST(Curl, ExamplesOfTheDocumentationWork) {
  const TestApp app;
  std::vector<std::string> examples = CurlExamples("api.md", "## Examples");
  EXPECT_GE(examples.size(), 9U);
  for (const auto& [page, heading] : {std::pair("tools.md", "# Tools and thoughts"),
                                      std::pair("structured_output.md", "# Structured output")}) {
    const std::vector<std::string> more = CurlExamples(page, heading);
    EXPECT_EQ(more.size(), 1U) << page;
    examples.insert(examples.end(), more.begin(), more.end());
  }
  const std::string script = WithPort(
      "set -e; U=http://127.0.0.1:8080; H='Content-Type: application/json'; NAME=demo\n"
      "curl() { command curl --silent --show-error --fail-with-body \"$@\"; echo; }\n",
      app.port());
  for (std::string example : examples) {
    const size_t name = example.find("/NAME");
    if (name != std::string::npos) example.replace(name, 5, "/$NAME");
    const fs::path path =
        fs::path(::testing::TempDir()) / ("tern-curl-" + std::to_string(getpid()));
    std::ofstream(path) << script << WithPort(example, app.port());
    const Outcome run = Shell("sh " + Quoted(path.string()));
    fs::remove(path);
    if (example.find("/infill") != std::string::npos) {
      // The demo model has no tokens for it, so this is where the block ends.
      EXPECT_THAT(run.output, ::testing::HasSubstr("unsupported_parameter")) << example;
    } else {
      EXPECT_EQ(run.exit_code, 0) << example << run.output;
      EXPECT_THAT(run.output, ::testing::HasSubstr("{")) << example;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Versions, OpenAiSdk, ::testing::Values("openai6", "openai7"),
                         [](const auto& param) { return param.param; });

}  // namespace
}  // namespace server
