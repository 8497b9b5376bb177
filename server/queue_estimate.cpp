#include "server/queue_estimate.h"

#include <algorithm>
#include <cmath>

namespace server {
namespace {

constexpr double kMemorySeconds = 30;
constexpr double kShortest = 1;
constexpr double kLongest = 60;
// Before any request has ended.
constexpr int kUnknown = 5;

double Seconds(Clock::time_point from, Clock::time_point to) {
  return std::max(0.0, std::chrono::duration<double>(to - from).count());
}

}  // namespace

void QueueEstimate::OnEnded(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  if (!begun_) {
    begun_ = true;
    begin_ = last_ = now;
  }
  count_ = count_ * std::exp(-Seconds(last_, now) / kMemorySeconds) + 1;
  last_ = now;
}

// The endings that are still remembered over the time that is still remembered.
double QueueEstimate::Rate(Clock::time_point now) const {
  if (!begun_) return 0;
  const double age = Seconds(begin_, now);
  const double remembered = kMemorySeconds * (1 - std::exp(-age / kMemorySeconds));
  const double count = count_ * std::exp(-Seconds(last_, now) / kMemorySeconds);
  return count / std::max(remembered, kShortest);
}

int QueueEstimate::RetryAfterSeconds(uint32_t waiting, Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  const double rate = Rate(now);
  if (rate <= 0) return kUnknown;
  return static_cast<int>(std::ceil(std::clamp(waiting / 2.0 / rate, kShortest, kLongest)));
}

}  // namespace server
