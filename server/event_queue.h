#pragma once

#include <functional>
#include <mutex>
#include <vector>

#include "scheduler/token_event.h"
#include "server/wake_source.h"

namespace server {

// Carries token events from the engine thread to the coroutine of a request. Bounded by what the
// request may produce: n * (max_tokens + 1) events per prompt. A slow reader fills it and never
// blocks the engine.
//
// Threads: OnEvent() on the engine thread, the rest on the request's strand.
class EventQueue : public scheduler::TokenSink, public WakeSource {
 public:
  void OnEvent(scheduler::TokenEvent event) noexcept override;

  // Everything that arrived since the last call, in order.
  std::vector<scheduler::TokenEvent> TakeAll();
  // There are events.
  bool ready() const override;
  void SetNotify(std::function<void()> notify) override;

 private:
  mutable std::mutex mutex_;
  std::vector<scheduler::TokenEvent> events_;
  std::function<void()> notify_;
};

}  // namespace server
