#include "cli/output_file.h"

#include <filesystem>
#include <stdexcept>
#include <system_error>

#include "cli/command.h"

namespace cli {

namespace fs = std::filesystem;

void CheckOutputFile(const std::string& path, std::initializer_list<std::string> inputs) {
  std::error_code error;
  for (const std::string& input : inputs) {
    if (fs::equivalent(input, path, error)) {
      throw UsageError("The output is the input file " + input + ": choose another name.");
    }
  }
  if (fs::is_directory(path, error)) throw UsageError(path + " is a folder: name a file.");
  if (fs::exists(path, error) && !fs::is_regular_file(path, error)) {
    throw UsageError(path + " is a device or the like: name a file.");
  }
  const fs::path folder = fs::path(path).parent_path();
  if (!folder.empty() && !fs::is_directory(folder, error)) {
    throw std::runtime_error("Cannot write " + path + ": there is no folder " + folder.string() +
                             ".");
  }
}

}  // namespace cli
