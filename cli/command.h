#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <stdexcept>

namespace cli {

// Bad usage that CLI11 can't see: main() prints it and exits with 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

inline constexpr int kSuccess = 0;
inline constexpr int kFailed = 1;
inline constexpr int kBadUsage = 2;

// What the chosen subcommand does once every flag is parsed; returns the exit code.
// Errors: throws; main() prints the sentence and exits with 1, or 2 for UsageError and ConfigError.
using Run = std::function<int()>;

// Each adds one subcommand to `root`, which sets *run when it is chosen. run outlives parsing.
void AddServe(CLI::App& root, Run* run);
void AddGenerate(CLI::App& root, Run* run);
void AddChat(CLI::App& root, Run* run);
void AddBench(CLI::App& root, Run* run);
void AddPerplexity(CLI::App& root, Run* run);
void AddCalibrate(CLI::App& root, Run* run);
void AddEval(CLI::App& root, Run* run);
void AddTokenize(CLI::App& root, Run* run);
void AddTemplate(CLI::App& root, Run* run);
void AddInspect(CLI::App& root, Run* run);
void AddQuantize(CLI::App& root, Run* run);
void AddSynth(CLI::App& root, Run* run);
void AddLoadTest(CLI::App& root, Run* run);
void AddDoctor(CLI::App& root, Run* run);
void AddHealth(CLI::App& root, Run* run);

}  // namespace cli
