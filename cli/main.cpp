#include <algorithm>
#include <cstdio>
#include <exception>
#include <iostream>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "config/config.h"
#include "fabric/cpu/isa.h"

namespace cli {
namespace {

constexpr const char* kDescription =
    "Tern serves ternary language models: weights in {-1, 0, +1}, as in BitNet b1.58.";

constexpr const char* kProgramExamples =
    "Examples:\n"
    "  tern serve                                     the bundled model on http://127.0.0.1:8080\n"
    "  tern serve --model model.gguf --port 9000\n"
    "  tern chat --model model.gguf                   talk to a model on the terminal\n"
    "  tern generate --prompt \"Once upon a time\" --max-tokens 64\n"
    "  tern doctor --model model.gguf                 what this machine can do, and what hinders "
    "it\n"
    "  tern bench --model model.gguf -p 256 -n 48     tokens per second, and what limits them\n"
    "\n"
    "Every option of `tern serve` can also come from a TOML file (--config) or the environment\n"
    "(TERN_<SECTION>_<NAME>). `tern COMMAND --help` shows each command's options and examples.\n"
    "Exit codes: 0 ok, 1 failed, 2 bad usage.";

void PrintError(const std::exception& error) { std::cerr << "tern: " << error.what() << "\n"; }

// An argument that stands where a command belongs and is none; empty when there is none such.
std::string UnknownCommand(const CLI::App& app, int argc, char** argv) {
  if (argc < 2 || argv[1][0] == '-') return {};
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  const bool known = std::any_of(commands.begin(), commands.end(), [&](const CLI::App* command) {
    return command->get_name() == argv[1];
  });
  return known ? std::string() : argv[1];
}

std::string CommandNames(const CLI::App& app) {
  std::string names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    names += (names.empty() ? "" : ", ") + command->get_name();
  }
  return names;
}

// Single characters to insert, drop or replace before one text is the other (Levenshtein).
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t changed = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({changed, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// A command's option that a misspelt one may have meant, "" when none is close.
std::string ClosestOption(const CLI::App& command, const std::string& given) {
  std::string closest;
  size_t least = 3;
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      const size_t distance = EditDistance(name, given);
      if (distance >= least || distance >= name.size()) continue;
      least = distance;
      closest = "--" + name;
    }
  }
  return closest;
}

// What a command did not understand: the first option that it does not have, else the first
// argument that is left.
std::string UnexpectedArgument(const CLI::App& command, const std::vector<std::string>& left) {
  const auto option = std::find_if(left.begin(), left.end(), [](const std::string& argument) {
    return argument.size() > 1 && argument[0] == '-';
  });
  if (option == left.end()) {
    return "did not expect \"" + left.front() + "\": every value follows its option.";
  }
  const std::string name = option->substr(0, option->find('='));
  const size_t dashes = std::min(name.find_first_not_of('-'), name.size());
  const std::string closest = ClosestOption(command, name.substr(dashes));
  return "has no option " + name + "." + (closest.empty() ? "" : " Did you mean " + closest + "?");
}

// CLI11 prints help and version itself; what is wrong with the arguments is one sentence for us.
int ExitOfParse(const CLI::App& app, const CLI::ParseError& error) {
  if (error.get_exit_code() == 0) return app.exit(error);
  const std::vector<CLI::App*> chosen = app.get_subcommands();
  const CLI::App& command = chosen.empty() ? app : *chosen.front();
  const std::string name = chosen.empty() ? "tern" : "tern " + command.get_name();
  const std::vector<std::string> left = app.remaining(true);
  if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr && !left.empty()) {
    std::cerr << name << " " << UnexpectedArgument(command, left) << "\n";
  } else {
    std::cerr << "tern: " << error.what() << "\n";
  }
  std::cerr << "Try `" << name << " --help`.\n";
  return kBadUsage;
}

// The choice of kernels is made here, where a wrong TERN_FORCE_ISA can be told to the user.
void CheckForcedIsa() {
  try {
    fabric::ActiveIsa();
  } catch (const std::runtime_error& error) {
    throw UsageError(error.what());
  }
}

int Main(int argc, char** argv) {
  CLI::App app(kDescription, "tern");
  app.footer(kProgramExamples);
  app.set_version_flag("--version", "tern " TERN_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);

  Run run;
  AddServe(app, &run);
  AddChat(app, &run);
  AddGenerate(app, &run);
  AddBench(app, &run);
  AddPerplexity(app, &run);
  AddCalibrate(app, &run);
  AddEval(app, &run);
  AddInspect(app, &run);
  AddTokenize(app, &run);
  AddTemplate(app, &run);
  AddQuantize(app, &run);
  AddSynth(app, &run);
  AddLoadTest(app, &run);
  AddDoctor(app, &run);
  AddHealth(app, &run);

  if (const std::string unknown = UnknownCommand(app, argc, argv); unknown == "help") {
    std::cout << app.help();
    return kSuccess;
  } else if (!unknown.empty()) {
    std::cerr << "tern: There is no command \"" << unknown << "\"; the commands are "
              << CommandNames(app) << ".\n";
    return kBadUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return ExitOfParse(app, error);
  }
  try {
    CheckForcedIsa();
    const int code = run();
    // An earlier flush may have failed: the stream remembers it.
    if (std::cout.flush() && std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
    throw std::runtime_error("Not all results could be written to standard output.");
  } catch (const UsageError& error) {
    PrintError(error);
    return kBadUsage;
  } catch (const config::ConfigError& error) {
    PrintError(error);
    return kBadUsage;
  } catch (const std::bad_alloc&) {
    std::cerr << "tern: not enough memory.\n";
    return kFailed;
  } catch (const std::exception& error) {
    PrintError(error);
    return kFailed;
  }
}

}  // namespace
}  // namespace cli

int main(int argc, char** argv) { return cli::Main(argc, argv); }
