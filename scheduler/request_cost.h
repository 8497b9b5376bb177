#pragma once

#include <cstdint>
#include <vector>

#include "engine/batch.h"
#include "fabric/device.h"
#include "scheduler/step_runner.h"

namespace scheduler {

// What one choice of a request has cost so far. A step computes many rows at once, and its figures
// are shared out among them by tokens: shares of a step sum to the step.
struct RequestCost {
  struct Layer {
    double total_ops = 0;
    double active_ops = 0;
  };

  double tokens = 0;  // computed in steps: prompt, generated, and recomputed ones
  double bytes = 0;   // ternary and dense weights streamed, K and V read
  double total_ops = 0;
  double active_ops = 0;
  double fabric_seconds = 0;
  double step_seconds = 0;
  double energy_picojoules = 0;
  std::vector<Layer> layers;  // multiply-adds of each layer's ternary projections
};

// a += b; layers by index.
void AddCost(const RequestCost& b, RequestCost* a);

// What a runtime has counted at some moment.
struct CostReading {
  fabric::DeviceCounters device;
  std::vector<engine::LayerActivity> layers;
  uint64_t kv_bytes = 0;
  double step_seconds = 0;
};

// Errors: std::bad_alloc when *reading grows.
void ReadCost(const StepRunner& runner, uint64_t kv_bytes, double step_seconds,
              CostReading* reading);

// Adds to *cost what was counted from `before` to `after`, for a row of `tokens` of the
// `all_tokens` that were computed meanwhile. REQUIRES: all_tokens > 0.
void Charge(const CostReading& before, const CostReading& after, uint32_t tokens,
            uint32_t all_tokens, RequestCost* cost);

}  // namespace scheduler
