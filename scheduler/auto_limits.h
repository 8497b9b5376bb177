#pragma once

#include <cstdint>

#include "engine/engine_options.h"
#include "engine/model.h"
#include "fabric/cpu/isa.h"
#include "scheduler/scheduler_options.h"

namespace scheduler {

// What a step costs on this machine, as far as it is known before the first one.
struct StepCost {
  double macs_per_token = 0;   // int8 multiply-adds
  double macs_per_second = 0;  // of all threads together
  uint64_t kv_tokens = 0;      // positions that the KV pool will hold, about
};

StepCost EstimateStepCost(const engine::Model& model, const engine::EngineOptions& options,
                          fabric::Isa isa, int threads);

// Fills in the limits that are 0:
//
//   max_sequences     as many as decode in a quarter of a second, at 256 positions each in the pool
//   max_batch_tokens  a quarter of a second of prefill, and room for prompts beside all decodes
//   prefill_chunk     a quarter of a step, so that short prompts pass a long one
//
// A quarter of a second is the longest pause that a stream then sees; a chunk is still long enough
// that reading the weights once per step costs little.
SchedulerOptions WithAutomaticLimits(SchedulerOptions options, const StepCost& cost);

}  // namespace scheduler
