#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace cli {

struct ProcessResult {
  int exit_code = -1;  // 128 + the signal when one ended it
  std::string out;
  std::string err;
};

// Runs the built tern with `arguments` and waits. `input` is its standard input; `environment`
// holds "NAME=value" beside what the test itself has.
ProcessResult RunTern(const std::vector<std::string>& arguments, const std::string& input = "",
                      const std::vector<std::string>& environment = {});

// A file in the test's temporary folder, removed with the object.
class ScratchFile {
 public:
  explicit ScratchFile(const std::string& suffix, const std::string& text = "");
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  ~ScratchFile();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A tern that runs in the background, its standard error in a file; killed with the object if still
// there.
class BackgroundTern {
 public:
  explicit BackgroundTern(const std::vector<std::string>& arguments);
  BackgroundTern(const BackgroundTern&) = delete;
  BackgroundTern& operator=(const BackgroundTern&) = delete;
  ~BackgroundTern();

  // Standard error so far.
  std::string Errors() const;
  // Waits until standard error holds `text`; false when the process ends or `seconds` pass first.
  bool WaitFor(const std::string& text, double seconds);
  void Signal(int signal);
  // Waits for the end; the exit code.
  int Wait();

 private:
  bool Ended();

  pid_t process_ = -1;
  int status_ = -1;
  bool reaped_ = false;
  ScratchFile errors_{"err"};
};

// A path under the shared test data, or "" when that is absent; tests then skip.
std::string SharedData(const std::string& name);

}  // namespace cli

// Skips the test, saying why, when the shared data is not there.
#define TERN_NEEDS_SHARED_DATA(name)                                                      \
  if (cli::SharedData(name).empty())                                                      \
  GTEST_SKIP() << "shared test data " << (name) << " is absent (TERN_TEST_DATA, default " \
               << "../shared/data)"
