#pragma once

#include <initializer_list>
#include <string>

namespace cli {

// Tells before a long work what would fail or destroy something after it: an output in a folder
// that is not there, a folder, a device, or one of the inputs that the output would replace.
//
// Errors: UsageError; std::runtime_error when the folder is not there.
void CheckOutputFile(const std::string& path, std::initializer_list<std::string> inputs);

}  // namespace cli
