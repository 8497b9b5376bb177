#pragma once

#include <stdexcept>

namespace gguf {

// A file that cannot be loaded. The message is one sentence naming what was expected and found.
class FormatError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace gguf
