#include "scheduler/inbox.h"

#include <utility>

namespace scheduler {

AdmitResult Inbox::Push(Submission submission) {
  const uint64_t tokens =
      uint64_t{submission.request.prompt.size()} * uint64_t{submission.request.choices};
  const std::lock_guard lock(mutex_);
  const uint64_t requests = submissions_.size() + waiting_requests_;
  if (requests >= max_requests_) return AdmitResult::kQueueFull;
  if (requests > 0 && pushed_tokens_ + waiting_tokens_ + tokens > max_tokens_) {
    return AdmitResult::kQueueFull;
  }
  if (max_per_key_ > 0) {
    uint32_t& of_key = of_key_[submission.request.tenant];
    if (of_key >= max_per_key_) return AdmitResult::kKeyQueueFull;
    ++of_key;
  }
  submissions_.push_back(std::move(submission));
  pushed_tokens_ += tokens;
  return AdmitResult::kOk;
}

std::vector<Submission> Inbox::Drain() {
  const std::lock_guard lock(mutex_);
  waiting_requests_ += static_cast<uint32_t>(submissions_.size());
  waiting_tokens_ += std::exchange(pushed_tokens_, 0);
  return std::exchange(submissions_, {});
}

void Inbox::SetWaiting(uint32_t requests, uint64_t tokens,
                       const std::unordered_map<std::string, uint32_t>& of_key) {
  const std::lock_guard lock(mutex_);
  waiting_requests_ = requests;
  waiting_tokens_ = tokens;
  if (max_per_key_ == 0) return;
  of_key_ = of_key;
  for (const Submission& submission : submissions_) ++of_key_[submission.request.tenant];
}

}  // namespace scheduler
