#include "engine/text/jinja/budget.h"

#include <algorithm>

#include "engine/text/jinja/datum.h"

namespace engine::text::jinja {
namespace {

// Strings made on the way may together be so many times the output limit: nothing bounds how many
// of them a template keeps in lists.
constexpr uint64_t kMadePerOutput = 16;

}  // namespace

Budget::Budget(const TemplateLimits& limits)
    : limits_(limits),
      deadline_(std::chrono::steady_clock::now() + std::chrono::milliseconds(limits.milliseconds)) {
}

void Budget::CheckSteps() {
  if (steps_ > limits_.steps) {
    throw RenderError("the template takes more than " + std::to_string(limits_.steps) + " steps");
  }
  CheckClock();
  next_check_ = std::min(steps_ + kStepsPerClockCheck, limits_.steps + 1);
}

void Budget::CheckTouched() {
  touched_ = 0;
  CheckClock();
}

void Budget::CheckClock() const {
  if (std::chrono::steady_clock::now() > deadline_) {
    throw RenderError("the template takes longer than " + std::to_string(limits_.milliseconds) +
                      " ms");
  }
}

void Budget::Make(uint64_t bytes) {
  CheckLength(bytes);
  made_ += bytes;
  if (made_ > kMadePerOutput * limits_.output_bytes) {
    throw RenderError("the template makes too much text");
  }
  Touch(bytes);
}

void Budget::CheckLength(uint64_t bytes) const {
  if (bytes > limits_.output_bytes) {
    throw RenderError("a text would be longer than " + std::to_string(limits_.output_bytes) +
                      " bytes");
  }
}

}  // namespace engine::text::jinja
