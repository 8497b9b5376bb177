#pragma once

#include <chrono>
#include <functional>
#include <thread>

namespace support {

// Waits until the condition holds; false when it still does not after half a minute.
inline bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 6000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

}  // namespace support
