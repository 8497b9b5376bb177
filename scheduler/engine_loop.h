#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "engine/batch.h"
#include "fabric/device.h"
#include "scheduler/model_runtime.h"
#include "scheduler/scheduler.h"
#include "scheduler/token_event.h"

namespace scheduler {

// Cumulative figures and current state of one runtime, copied by value for /metrics and /health.
struct LoopStats {
  SchedulerStats scheduler;
  fabric::DeviceCounters device;
  uint64_t steps = 0;
  uint64_t step_tokens = 0;  // tokens computed in steps
  uint64_t kv_bytes_read = 0;
  uint64_t screened_positions = 0;
  uint64_t screen_fallbacks = 0;
  uint64_t guard_trips = 0;
  uint64_t refined_rows = 0;
  double step_seconds = 0;
  double projection_seconds = 0;
  double attention_seconds = 0;
  double head_seconds = 0;
  double draft_seconds = 0;  // in a model that drafts, beside step_seconds
};

// Adds what `more` has counted; the state of now (what runs, what waits, blocks) stays that of sum.
void AddCounters(const LoopStats& more, LoopStats* sum);

// The heart: one thread that drains the inbox and, for each runtime in turn, plans, steps, samples,
// commits and publishes.
//
// Threads: every public function from any thread. Sinks are called on the engine thread.
// Order:   a request's events arrive in order; each choice gets exactly one `finished` event, also
//          when it is cancelled, fails, or the loop stops.
class EngineLoop {
 public:
  EngineLoop();
  // Cancels what is left and joins.
  ~EngineLoop();

  static RequestId NextRequestId();

  // From now on the runtime is served. Detach() cancels its requests, waits until the engine thread
  // has let go of it and drops the loop's reference; callers may still hold theirs.
  void Attach(std::shared_ptr<ModelRuntime> runtime);
  void Detach(const std::shared_ptr<ModelRuntime>& runtime);

  // Hands a request over. kOk means that its sink will hear from it; anything else that it will
  // not. Bounded: the inbox and the scheduler's queue together hold max_queued_requests.
  AdmitResult Submit(const std::shared_ptr<ModelRuntime>& runtime, Request request);
  // Takes effect within one step; a finished or unknown id is ignored.
  void Cancel(RequestId request, FinishReason reason = FinishReason::kCancelled);
  void CancelChoice(RequestId request, uint32_t choice, FinishReason reason);

  // Refuses new requests (kDraining) and lets the accepted ones finish.
  void BeginDrain();
  bool draining() const;
  // True when nothing runs or waits any more, false after `seconds`.
  bool WaitIdle(double seconds);

  // Seconds since the thread last went round; a step that hangs makes it grow.
  double HeartbeatAge() const;
  LoopStats Stats(const ModelRuntime& runtime) const;
  // Called on the engine thread after each Commit (histograms of step sizes).
  using StepObserver =
      std::function<void(const ModelRuntime&, const engine::StepStats&, uint32_t rows)>;
  void SetStepObserver(StepObserver observer);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace scheduler
