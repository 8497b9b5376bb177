#pragma once

#include <string>

namespace cli {

// The whole file; "-" is standard input. Errors: std::runtime_error naming path and reason.
std::string ReadTextFile(const std::string& path);

}  // namespace cli
