#pragma once

#include <cstdint>
#include <mutex>

#include "server/http_types.h"

namespace server {

// How long the queue of a model takes, from the rate at which its requests end.
//
// Threads: any.
class QueueEstimate {
 public:
  // One request has ended, however.
  void OnEnded(Clock::time_point now);

  // When somebody who was turned away should come again: when half of the waiting requests will
  // have had their turn. 1 to 60 s.
  int RetryAfterSeconds(uint32_t waiting, Clock::time_point now) const;

 private:
  // Requests per second, the last half minute counting most; 0 before the first one.
  double Rate(Clock::time_point now) const;

  mutable std::mutex mutex_;
  bool begun_ = false;
  Clock::time_point begin_;
  Clock::time_point last_;
  double count_ = 0;  // of endings, each worth less with age
};

}  // namespace server
