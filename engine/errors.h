#pragma once

#include <stdexcept>

namespace engine {

// A model that this engine cannot run, or a request that a model cannot serve. One sentence naming
// what was expected and found.
class ModelError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace engine
