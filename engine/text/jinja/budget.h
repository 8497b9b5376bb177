#pragma once

#include <chrono>
#include <cstdint>

#include "engine/text/chat_template.h"

namespace engine::text::jinja {

// What one rendering may still spend. Every method throws TemplateError when a limit is reached.
class Budget {
 public:
  explicit Budget(const TemplateLimits& limits);

  const TemplateLimits& limits() const { return limits_; }

  // Statements, expression nodes and elements of lists that were made.
  void Step(uint64_t count = 1) {
    steps_ += count;
    if (steps_ >= next_check_) CheckSteps();
  }
  // Bytes that were read (compared, searched): they cost time, but no memory.
  void Touch(uint64_t bytes) {
    touched_ += bytes;
    if (touched_ >= kBytesPerClockCheck) CheckTouched();
  }
  // REQUIRES to be called before a string of so many bytes is made.
  void Make(uint64_t bytes);
  // Throws when one string would be longer than the output may be.
  void CheckLength(uint64_t bytes) const;

 private:
  static constexpr uint64_t kStepsPerClockCheck = 1024;
  static constexpr uint64_t kBytesPerClockCheck = 1 << 20;

  void CheckSteps();
  void CheckTouched();
  void CheckClock() const;

  const TemplateLimits limits_;
  const std::chrono::steady_clock::time_point deadline_;
  uint64_t steps_ = 0;
  uint64_t next_check_ = 0;
  uint64_t touched_ = 0;
  uint64_t made_ = 0;
};

}  // namespace engine::text::jinja
