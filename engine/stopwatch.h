#pragma once

#include <chrono>

#include "fabric/seconds_since.h"

namespace engine {

// Wall seconds since construction.
class Stopwatch {
 public:
  double Seconds() const { return fabric::SecondsSince(start_); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace engine
