#pragma once

#include <CLI/CLI.hpp>
#include <deque>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "config/config.h"

namespace cli {

// Some of config::Options() as flags of a subcommand, and --config.
//
// Lifetime: lives until the subcommand has run; CLI11 writes into it while parsing.
class ConfigFlags {
 public:
  ConfigFlags() = default;
  ConfigFlags(const ConfigFlags&) = delete;
  ConfigFlags& operator=(const ConfigFlags&) = delete;

  // parts: sections ("engine") and options ("scheduler.speculate"). A flag that the command has
  // already stays the command's.
  void AddTo(CLI::App& command, std::initializer_list<std::string_view> parts);
  // Of --config; empty when not given.
  const std::string& file() const { return file_; }

  // Merges defaults, --config file, environment and the flags that were given.
  // Errors: config::ConfigError.
  // default_model: see config::Inputs.
  config::Loaded Load(std::function<std::string()> default_model = {}) const;

 private:
  void Add(CLI::App& command, const config::OptionInfo& info);

  std::string file_;
  // A deque: CLI11 keeps pointers to the values.
  std::deque<config::FlagValue> values_;
};

}  // namespace cli
