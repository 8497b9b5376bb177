#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "scheduler/scheduler.h"
#include "scheduler/scheduler_options.h"
#include "scheduler/sequence.h"

namespace scheduler {

// A request on its way to the engine thread.
struct Submission {
  Request request;
  double enqueued = 0;  // seconds on the loop's clock
};

// The bounded queue of one runtime between the threads that submit and the engine thread.
//
// Bound:   the requests here and those that wait in the scheduler are together at most
//          max_queued_requests, and their prompt tokens (once per choice) at most
//          max_queued_tokens; one request is taken however long it is when nothing waits. Of one
//          key, at most max_queued_per_key wait.
// Threads: Push() from any thread, the rest from the engine thread.
class Inbox {
 public:
  explicit Inbox(const SchedulerOptions& options)
      : max_requests_(options.max_queued_requests),
        max_tokens_(options.max_queued_tokens),
        max_per_key_(options.max_queued_per_key) {}

  AdmitResult Push(Submission submission);

  // Everything that was pushed, in order. It keeps counting as waiting until SetWaiting().
  std::vector<Submission> Drain();

  // What the scheduler still holds waiting. REQUIRES: everything drained was added to it.
  void SetWaiting(uint32_t requests, uint64_t tokens,
                  const std::unordered_map<std::string, uint32_t>& of_key = {});

 private:
  const uint32_t max_requests_;
  const uint64_t max_tokens_;
  const uint32_t max_per_key_;  // 0 = no bound

  std::mutex mutex_;
  std::vector<Submission> submissions_;
  uint64_t pushed_tokens_ = 0;     // of submissions_
  uint32_t waiting_requests_ = 0;  // drained and not started
  uint64_t waiting_tokens_ = 0;
  std::unordered_map<std::string, uint32_t> of_key_;  // requests, here and in the scheduler
};

}  // namespace scheduler
