#include "scheduler/engine_loop.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "scheduler/inbox.h"
#include "scheduler/step_executor.h"

namespace scheduler {
namespace {

// An idle loop wakes so often to show that it lives.
constexpr std::chrono::milliseconds kIdleBeat{500};

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Cancellation {
  RequestId request = 0;
  bool whole = true;  // else only `choice`
  uint32_t choice = 0;
  FinishReason reason = FinishReason::kCancelled;
};

// A runtime that is served.
struct Slot {
  explicit Slot(std::shared_ptr<ModelRuntime> served)
      : runtime(std::move(served)),
        inbox(runtime->options().scheduler),
        executor(runtime->scheduler(), runtime->runner(), Now, runtime->draft_source()) {}

  std::shared_ptr<ModelRuntime> runtime;
  Inbox inbox;
  StepExecutor executor;        // engine thread
  uint64_t ended_reported = 0;  // engine thread: of executor.ended()

  bool released = false;  // guarded by the loop's mutex

  std::mutex stats_mutex;
  LoopStats stats;
};

// What other threads ask of the engine thread beside requests.
struct Orders {
  std::vector<std::shared_ptr<Slot>> attach;
  std::vector<std::shared_ptr<Slot>> detach;
  std::vector<Cancellation> cancel;
  bool stop = false;
};

}  // namespace

struct EngineLoop::Impl {
  Impl() : thread([this] { Run(); }) {}

  void Run();
  Orders WaitForOrders();
  void Drain(Slot& slot);
  void Apply(const Cancellation& cancellation);
  bool Serve(Slot& slot);
  void Release(std::shared_ptr<Slot> slot);
  void Report(Slot& slot);
  std::shared_ptr<Slot> Find(const ModelRuntime* runtime) const;  // REQUIRES: mutex is held

  // Guarded by `mutex`.
  mutable std::mutex mutex;
  std::condition_variable wake;     // the engine thread: something to do
  std::condition_variable changed;  // others: requests ended, a slot was let go
  Orders orders;
  bool work = false;  // requests or orders came since the engine thread looked
  std::map<const ModelRuntime*, std::shared_ptr<Slot>> slots;  // that take requests
  uint64_t outstanding = 0;                                    // submitted and not ended
  bool draining = false;
  bool stopping = false;
  std::shared_ptr<const StepObserver> observer;

  // The engine thread's.
  std::vector<std::shared_ptr<Slot>> serving;
  bool busy = false;  // a runtime has requests

  std::atomic<double> last_beat{Now()};
  std::thread thread;  // last: it uses all of the above
};

// The engine thread. Cancellations are taken from the orders before the inboxes are drained and
// applied after, so that one always finds the request that was submitted before it.
void EngineLoop::Impl::Run() {
  while (true) {
    Orders now = WaitForOrders();
    serving.insert(serving.end(), now.attach.begin(), now.attach.end());
    if (now.stop) break;
    for (const auto& slot : serving) Drain(*slot);
    for (const Cancellation& cancellation : now.cancel) Apply(cancellation);
    for (auto& slot : now.detach) Release(std::move(slot));

    busy = false;
    for (const auto& slot : serving) busy |= Serve(*slot);
  }
  while (!serving.empty()) Release(serving.back());
}

Orders EngineLoop::Impl::WaitForOrders() {
  std::unique_lock lock(mutex);
  while (!work && !busy) {
    last_beat = Now();
    wake.wait_for(lock, kIdleBeat);
  }
  work = false;
  Orders taken = std::exchange(orders, {});
  taken.stop = stopping;
  return taken;
}

void EngineLoop::Impl::Drain(Slot& slot) {
  for (Submission& submission : slot.inbox.Drain()) slot.executor.Accept(std::move(submission));
}

void EngineLoop::Impl::Apply(const Cancellation& cancellation) {
  for (const auto& slot : serving) {
    if (cancellation.whole) {
      slot->executor.Cancel(cancellation.request, cancellation.reason);
    } else {
      slot->executor.CancelChoice(cancellation.request, cancellation.choice, cancellation.reason);
    }
  }
}

// One step of one runtime. True when it still has requests.
bool EngineLoop::Impl::Serve(Slot& slot) {
  last_beat = Now();
  const bool stepped = slot.executor.Step();
  Report(slot);
  if (stepped) {
    std::shared_ptr<const StepObserver> tell;
    {
      const std::lock_guard lock(mutex);
      tell = observer;
    }
    if (tell) (*tell)(*slot.runtime, slot.executor.last_step(), slot.executor.last_rows());
  }
  return slot.executor.requests() > 0;
}

// Ends what the slot still has and lets go of it. REQUIRES: it takes no more submissions.
void EngineLoop::Impl::Release(std::shared_ptr<Slot> slot) {
  Drain(*slot);
  slot->executor.CancelAll(FinishReason::kCancelled);
  Report(*slot);
  std::erase(serving, slot);
  const std::lock_guard lock(mutex);
  slot->released = true;
  slot.reset();  // before Detach() can see `released`, so that its caller holds the last reference
  changed.notify_all();
}

// Publishes what the last step changed: the room in the queue, the figures, the ended requests.
void EngineLoop::Impl::Report(Slot& slot) {
  LoopStats stats;
  stats.scheduler = slot.runtime->scheduler().stats();
  stats.device = slot.runtime->runner().Counters();
  const StepTotals& totals = slot.executor.totals();
  stats.steps = totals.steps;
  stats.step_tokens = totals.tokens;
  stats.kv_bytes_read = totals.kv_bytes_read;
  stats.screened_positions = totals.screened_positions;
  stats.screen_fallbacks = totals.screen_fallbacks;
  stats.guard_trips = totals.guard_trips;
  stats.refined_rows = totals.refined_rows;
  stats.step_seconds = totals.seconds;
  stats.projection_seconds = totals.projection_seconds;
  stats.attention_seconds = totals.attention_seconds;
  stats.head_seconds = totals.head_seconds;
  stats.draft_seconds = totals.draft_seconds;
  slot.inbox.SetWaiting(stats.scheduler.queued_requests, stats.scheduler.waiting_tokens,
                        slot.runtime->scheduler().queued_of_key());
  {
    const std::lock_guard lock(slot.stats_mutex);
    slot.stats = stats;
  }
  const uint64_t ended = slot.executor.ended() - slot.ended_reported;
  if (ended == 0) return;
  slot.ended_reported += ended;
  const std::lock_guard lock(mutex);
  outstanding -= ended;
  changed.notify_all();
}

std::shared_ptr<Slot> EngineLoop::Impl::Find(const ModelRuntime* runtime) const {
  const auto it = slots.find(runtime);
  return it == slots.end() ? nullptr : it->second;
}

void AddCounters(const LoopStats& more, LoopStats* sum) {
  const SchedulerStats& policy = more.scheduler;
  sum->scheduler.preemptions += policy.preemptions;
  sum->scheduler.swapped_preemptions += policy.swapped_preemptions;
  sum->scheduler.prompt_tokens += policy.prompt_tokens;
  sum->scheduler.prefix_queries += policy.prefix_queries;
  sum->scheduler.prefix_hits += policy.prefix_hits;
  sum->scheduler.prefix_evictions += policy.prefix_evictions;
  sum->scheduler.generated_tokens += policy.generated_tokens;
  sum->scheduler.deadline_misses += policy.deadline_misses;
  sum->scheduler.drafts += policy.drafts;
  sum->scheduler.draft_tokens += policy.draft_tokens;
  sum->scheduler.accepted_draft_tokens += policy.accepted_draft_tokens;
  sum->scheduler.wrong_drafts += policy.wrong_drafts;
  fabric::AddCounters(more.device, &sum->device);
  sum->steps += more.steps;
  sum->step_tokens += more.step_tokens;
  sum->kv_bytes_read += more.kv_bytes_read;
  sum->screened_positions += more.screened_positions;
  sum->screen_fallbacks += more.screen_fallbacks;
  sum->guard_trips += more.guard_trips;
  sum->refined_rows += more.refined_rows;
  sum->step_seconds += more.step_seconds;
  sum->projection_seconds += more.projection_seconds;
  sum->attention_seconds += more.attention_seconds;
  sum->head_seconds += more.head_seconds;
  sum->draft_seconds += more.draft_seconds;
}

EngineLoop::EngineLoop() : impl_(std::make_unique<Impl>()) {}

EngineLoop::~EngineLoop() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->stopping = true;
    impl_->work = true;
  }
  impl_->wake.notify_one();
  impl_->thread.join();
}

RequestId EngineLoop::NextRequestId() {
  static std::atomic<RequestId> next{1};
  return next.fetch_add(1);
}

void EngineLoop::Attach(std::shared_ptr<ModelRuntime> runtime) {
  const auto slot = std::make_shared<Slot>(std::move(runtime));
  slot->stats.scheduler = slot->runtime->scheduler().stats();
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->slots[slot->runtime.get()] = slot;
    impl_->orders.attach.push_back(slot);
    impl_->work = true;
  }
  impl_->wake.notify_one();
}

void EngineLoop::Detach(const std::shared_ptr<ModelRuntime>& runtime) {
  std::unique_lock lock(impl_->mutex);
  const std::shared_ptr<Slot> slot = impl_->Find(runtime.get());
  if (!slot) return;
  impl_->slots.erase(runtime.get());
  impl_->orders.detach.push_back(slot);
  impl_->work = true;
  impl_->wake.notify_one();
  impl_->changed.wait(lock, [&] { return slot->released; });
}

AdmitResult EngineLoop::Submit(const std::shared_ptr<ModelRuntime>& runtime, Request request) {
  if (request.positions() > runtime->runner().context_length()) return AdmitResult::kPromptTooLong;
  {
    const std::lock_guard lock(impl_->mutex);
    const std::shared_ptr<Slot> slot = impl_->Find(runtime.get());
    if (impl_->draining || impl_->stopping || !slot) return AdmitResult::kDraining;
    const AdmitResult result = slot->inbox.Push({std::move(request), Now()});
    if (result != AdmitResult::kOk) return result;
    ++impl_->outstanding;
    impl_->work = true;
  }
  impl_->wake.notify_one();
  return AdmitResult::kOk;
}

void EngineLoop::Cancel(RequestId request, FinishReason reason) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->orders.cancel.push_back({request, true, 0, reason});
    impl_->work = true;
  }
  impl_->wake.notify_one();
}

void EngineLoop::CancelChoice(RequestId request, uint32_t choice, FinishReason reason) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->orders.cancel.push_back({request, false, choice, reason});
    impl_->work = true;
  }
  impl_->wake.notify_one();
}

void EngineLoop::BeginDrain() {
  const std::lock_guard lock(impl_->mutex);
  impl_->draining = true;
}

bool EngineLoop::draining() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->draining;
}

bool EngineLoop::WaitIdle(double seconds) {
  std::unique_lock lock(impl_->mutex);
  return impl_->changed.wait_for(lock, std::chrono::duration<double>(seconds),
                                 [this] { return impl_->outstanding == 0; });
}

double EngineLoop::HeartbeatAge() const { return Now() - impl_->last_beat; }

LoopStats EngineLoop::Stats(const ModelRuntime& runtime) const {
  std::shared_ptr<Slot> slot;
  {
    const std::lock_guard lock(impl_->mutex);
    slot = impl_->Find(&runtime);
  }
  if (!slot) return {};
  const std::lock_guard lock(slot->stats_mutex);
  return slot->stats;
}

void EngineLoop::SetStepObserver(StepObserver observer) {
  const std::lock_guard lock(impl_->mutex);
  impl_->observer = std::make_shared<const StepObserver>(std::move(observer));
}

}  // namespace scheduler
