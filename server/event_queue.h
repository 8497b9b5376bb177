#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "scheduler/token_event.h"
#include "server/wake_source.h"

namespace server {

// Carries token events from the engine thread to whoever answers a request. A slow reader fills it
// and never blocks the engine.
//
// Bound:   max_bytes of events that wait; when more come, or there is no memory for one, the queue
//          breaks: it drops what it has and what still comes, and says why.
// Threads: OnEvent() on the engine thread, the rest by one thread at a time.
class EventQueue : public scheduler::TokenSink, public WakeSource {
 public:
  enum class Failure { kNone, kFull, kNoMemory };

  // max_bytes: 0 = as many as the request may produce: n * (max_tokens + 1) events per prompt.
  explicit EventQueue(uint64_t max_bytes = 0) : max_bytes_(max_bytes) {}

  void OnEvent(scheduler::TokenEvent event) noexcept override;

  // Everything that arrived since the last call, in order.
  std::vector<scheduler::TokenEvent> TakeAll();
  Failure failure() const;
  // There are events, or the queue broke.
  bool ready() const override;
  void SetNotify(std::function<void()> notify) override;
  // Called once when the queue breaks, on the engine thread, or here when it has broken already;
  // must not block.
  void SetOnFailure(std::function<void(Failure)> on_failure);

 private:
  void Keep(scheduler::TokenEvent event) noexcept;
  void Break(Failure failure) noexcept;
  void Notify() noexcept;

  const uint64_t max_bytes_;
  mutable std::mutex mutex_;
  std::vector<scheduler::TokenEvent> events_;
  uint64_t bytes_ = 0;  // of events_, about
  Failure failure_ = Failure::kNone;
  bool notified_ = false;  // since events_ were taken
  std::function<void()> notify_;
  std::function<void(Failure)> on_failure_;
};

}  // namespace server
