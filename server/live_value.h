#pragma once

#include <atomic>

namespace server {

// A number that may be replaced while others read it. Copies as its value does.
//
// Threads: any.
template <typename T>
class LiveValue {
 public:
  LiveValue(T value = {}) : value_(value) {}
  LiveValue(const LiveValue& other) : value_(other.value_.load()) {}
  LiveValue& operator=(const LiveValue& other) {
    value_ = other.value_.load();
    return *this;
  }
  operator T() const { return value_; }

 private:
  std::atomic<T> value_;
};

}  // namespace server
