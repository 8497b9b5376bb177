#include "server/event_queue.h"

#include <utility>

namespace server {

void EventQueue::OnEvent(scheduler::TokenEvent event) noexcept {
  const std::lock_guard lock(mutex_);
  events_.push_back(std::move(event));
  if (events_.size() == 1 && notify_) notify_();
}

std::vector<scheduler::TokenEvent> EventQueue::TakeAll() {
  const std::lock_guard lock(mutex_);
  return std::exchange(events_, {});
}

bool EventQueue::ready() const {
  const std::lock_guard lock(mutex_);
  return !events_.empty();
}

void EventQueue::SetNotify(std::function<void()> notify) {
  const std::lock_guard lock(mutex_);
  notify_ = std::move(notify);
}

}  // namespace server
