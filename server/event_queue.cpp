#include "server/event_queue.h"

#include <exception>
#include <utility>

namespace server {
namespace {

uint64_t BytesOf(const scheduler::TokenEvent& event) {
  uint64_t bytes = sizeof event + event.error.size();
  bytes += event.top.size() * sizeof(engine::TokenLogprob);
  for (const scheduler::PromptLogprob& prompt : event.prompt_logprobs) {
    bytes += sizeof prompt + prompt.top.size() * sizeof(engine::TokenLogprob);
  }
  return bytes;
}

}  // namespace

void EventQueue::OnEvent(scheduler::TokenEvent event) noexcept {
  const std::lock_guard lock(mutex_);
  if (failure_ != Failure::kNone) return;
  Keep(std::move(event));
  Notify();
}

// One event is taken however large it is.
void EventQueue::Keep(scheduler::TokenEvent event) noexcept {
  const uint64_t bytes = BytesOf(event);
  if (max_bytes_ > 0 && !events_.empty() && bytes_ + bytes > max_bytes_) {
    return Break(Failure::kFull);
  }
  try {
    events_.push_back(std::move(event));
    bytes_ += bytes;
  } catch (const std::exception&) {
    Break(Failure::kNoMemory);
  }
}

void EventQueue::Break(Failure failure) noexcept {
  failure_ = failure;
  std::vector<scheduler::TokenEvent>().swap(events_);
  bytes_ = 0;
  notified_ = false;
  try {
    if (on_failure_) on_failure_(failure);
  } catch (const std::exception&) {
    // Then the request runs to its end, unheard.
  }
}

// A notification that fails for want of memory is made up for by the next event, and by whoever
// waits, who looks now and then.
void EventQueue::Notify() noexcept {
  if (notified_ || !notify_) return;
  try {
    notify_();
    notified_ = true;
  } catch (const std::exception&) {
  }
}

std::vector<scheduler::TokenEvent> EventQueue::TakeAll() {
  const std::lock_guard lock(mutex_);
  bytes_ = 0;
  notified_ = false;
  return std::exchange(events_, {});
}

EventQueue::Failure EventQueue::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

bool EventQueue::ready() const {
  const std::lock_guard lock(mutex_);
  return !events_.empty() || failure_ != Failure::kNone;
}

void EventQueue::SetNotify(std::function<void()> notify) {
  const std::lock_guard lock(mutex_);
  notify_ = std::move(notify);
  notified_ = false;
}

void EventQueue::SetOnFailure(std::function<void(Failure)> on_failure) {
  const std::lock_guard lock(mutex_);
  on_failure_ = std::move(on_failure);
  if (failure_ != Failure::kNone && on_failure_) on_failure_(failure_);
}

}  // namespace server
