#pragma once

#include <string>

#include "config/config.h"

namespace cli {

// The model that Tern brings along: models/ or share/tern/models near the binary, or models/ of the
// source tree that it was built in.
// Errors: std::runtime_error listing where it looked.
std::string BundledModelPath();

// `flag` when given, else the first configured model, else the bundled one.
std::string ChooseModelPath(const std::string& flag, const config::Config& config);

}  // namespace cli
