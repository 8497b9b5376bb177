#include "tests/cli/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

namespace cli {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int ExitCode(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Files instead of pipes: no output is ever too long for a buffer that nobody reads.
pid_t Spawn(const std::vector<std::string>& arguments, const std::string& in,
            const std::string& out, const std::string& err,
            const std::vector<std::string>& environment) {
  std::vector<std::string> words = {TERN_BINARY};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<std::string> variables = environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    // A test sees only the options that it sets.
    if (std::string_view(*entry).starts_with("TERN_")) continue;
    variables.emplace_back(*entry);
  }
  std::vector<char*> envp;
  for (std::string& variable : variables) envp.push_back(variable.data());
  envp.push_back(nullptr);

  const pid_t process = fork();
  if (process != 0) return process;
  const int descriptors[] = {open(in.c_str(), O_RDONLY),
                             open(out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600),
                             open(err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600)};
  for (int i = 0; i < 3; ++i) dup2(descriptors[i], i);
  execve(TERN_BINARY, argv.data(), envp.data());
  _exit(127);
}

}  // namespace

ProcessResult RunTern(const std::vector<std::string>& arguments, const std::string& input,
                      const std::vector<std::string>& environment) {
  const ScratchFile in("in", input);
  const ScratchFile out("out");
  const ScratchFile err("err");
  const pid_t process = Spawn(arguments, in.path(), out.path(), err.path(), environment);
  int status = 0;
  waitpid(process, &status, 0);
  return {ExitCode(status), ReadAll(out.path()), ReadAll(err.path())};
}

BackgroundTern::BackgroundTern(const std::vector<std::string>& arguments) {
  process_ = Spawn(arguments, "/dev/null", "/dev/null", errors_.path(), {});
}

BackgroundTern::~BackgroundTern() {
  if (!Ended()) {
    kill(process_, SIGKILL);
    Wait();
  }
}

std::string BackgroundTern::Errors() const { return ReadAll(errors_.path()); }

bool BackgroundTern::Ended() {
  if (!reaped_) reaped_ = waitpid(process_, &status_, WNOHANG) == process_;
  return reaped_;
}

bool BackgroundTern::WaitFor(const std::string& text, double seconds) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (Errors().find(text) == std::string::npos) {
    if (Ended() || std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

void BackgroundTern::Signal(int signal) { kill(process_, signal); }

int BackgroundTern::Wait() {
  if (!reaped_) {
    waitpid(process_, &status_, 0);
    reaped_ = true;
  }
  return ExitCode(status_);
}

ScratchFile::ScratchFile(const std::string& suffix, const std::string& text) {
  static std::atomic<int> counter{0};
  path_ = testing::TempDir() + "tern_cli_" + std::to_string(getpid()) + "_" +
          std::to_string(counter++) + "." + suffix;
  std::ofstream(path_, std::ios::binary) << text;
}

ScratchFile::~ScratchFile() { unlink(path_.c_str()); }

std::string SharedData(const std::string& name) {
  const char* folder = std::getenv("TERN_TEST_DATA");
  const std::filesystem::path path =
      std::filesystem::path(folder != nullptr ? folder : TERN_SOURCE_DIR "/../shared/data") / name;
  return std::filesystem::exists(path) ? path.string() : "";
}

}  // namespace cli
