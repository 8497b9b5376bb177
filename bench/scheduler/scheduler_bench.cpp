// What the scheduler itself costs per step, with an engine that costs nothing: Plan and Commit
// beside a full house of decodes, a deep queue, and many choices of one prompt.

#include <benchmark/benchmark.h>

#include <memory>

#include "scheduler/scheduler.h"

namespace scheduler {
namespace {

constexpr uint32_t kContext = 4096;

std::unique_ptr<Scheduler> MakeScheduler(const SchedulerOptions& options, uint32_t kv_blocks) {
  engine::KvGeometry geometry;
  geometry.block_size = 16;
  return std::make_unique<Scheduler>(options, geometry, kv_blocks, kContext);
}

Request MakeRequest(RequestId id, uint32_t prompt, uint32_t choices) {
  Request request;
  request.id = id;
  request.prompt.assign(prompt, 1);
  request.choices = choices;
  return request;
}

void RunStep(Scheduler& scheduler) {
  const StepPlan plan = scheduler.Plan(0);
  StepResult result;
  result.rows.resize(plan.rows.size());
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    if (plan.rows[i].samples) result.rows[i].accepted = {2};
  }
  scheduler.Commit(plan, result, 0);
  scheduler.TakeFinished();
}

// range(0) sequences decode; when they reach the end of the context they are replaced.
void DecodeStep(benchmark::State& state) {
  const auto sequences = static_cast<uint32_t>(state.range(0));
  SchedulerOptions options;
  options.max_sequences = sequences;
  options.max_queued_requests = sequences;
  const auto scheduler = MakeScheduler(options, sequences * kContext / 16);
  RequestId next = 1;
  for (auto _ : state) {
    while (scheduler->stats().running + scheduler->stats().waiting < sequences) {
      scheduler->Add(MakeRequest(next++, 16, 1), 0);
    }
    RunStep(*scheduler);
  }
  state.counters["per_sequence"] = benchmark::Counter(
      sequences, benchmark::Counter::kIsIterationInvariantRate | benchmark::Counter::kInvert);
}
BENCHMARK(DecodeStep)->Arg(1)->Arg(16)->Arg(64)->Arg(256);

// One sequence decodes while range(0) requests wait for its place.
void DecodeStepBesideAQueue(benchmark::State& state) {
  const auto waiting = static_cast<uint32_t>(state.range(0));
  SchedulerOptions options;
  options.max_sequences = 1;
  options.max_queued_requests = waiting + 1;
  const auto scheduler = MakeScheduler(options, kContext / 16);
  RequestId next = 1;
  for (auto _ : state) {
    while (scheduler->stats().running + scheduler->stats().waiting <= waiting) {
      scheduler->Add(MakeRequest(next++, 16, 1), 0);
    }
    RunStep(*scheduler);
  }
}
BENCHMARK(DecodeStepBesideAQueue)->Arg(0)->Arg(256)->Arg(4096);

// A prompt of 1000 tokens with range(0) choices, from Add to the first token of every choice.
void ForkChoices(benchmark::State& state) {
  const auto choices = static_cast<uint32_t>(state.range(0));
  SchedulerOptions options;
  options.max_sequences = 128;
  const auto scheduler = MakeScheduler(options, 4096);
  RequestId next = 1;
  for (auto _ : state) {
    const RequestId id = next++;
    scheduler->Add(MakeRequest(id, 1000, choices), 0);
    do {
      RunStep(*scheduler);
    } while (scheduler->stats().waiting > 0);
    scheduler->Cancel(id, FinishReason::kCancelled);
    scheduler->TakeFinished();
  }
}
BENCHMARK(ForkChoices)->Arg(1)->Arg(8)->Arg(128);

}  // namespace
}  // namespace scheduler
