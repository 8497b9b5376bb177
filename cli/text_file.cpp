#include "cli/text_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <system_error>

namespace cli {

std::string ReadTextFile(const std::string& path) {
  if (path == "-") return {std::istreambuf_iterator<char>(std::cin), {}};
  std::error_code unknown;  // opening it tells the rest
  if (std::filesystem::is_directory(path, unknown)) {
    throw std::runtime_error("Cannot read " + path + ": it is a folder.");
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) {
    throw std::runtime_error("Cannot read " + path + ": " + std::strerror(errno) + ".");
  }
  return text;
}

}  // namespace cli
