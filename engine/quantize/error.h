#pragma once

#include <stdexcept>

namespace engine::quantize {

// What was asked cannot be done with this file. One sentence: what was expected, what was found,
// and what to do instead.
class QuantizeError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace engine::quantize
