#include "scheduler/request_cost.h"

#include <algorithm>

namespace scheduler {

void AddCost(const RequestCost& b, RequestCost* a) {
  a->tokens += b.tokens;
  a->bytes += b.bytes;
  a->total_ops += b.total_ops;
  a->active_ops += b.active_ops;
  a->fabric_seconds += b.fabric_seconds;
  a->step_seconds += b.step_seconds;
  a->energy_picojoules += b.energy_picojoules;
  a->layers.resize(std::max(a->layers.size(), b.layers.size()));
  for (size_t i = 0; i < b.layers.size(); ++i) {
    a->layers[i].total_ops += b.layers[i].total_ops;
    a->layers[i].active_ops += b.layers[i].active_ops;
  }
}

CostReading ReadCost(const StepRunner& runner, uint64_t kv_bytes, double step_seconds) {
  const auto layers = runner.LayerActivities();
  return {.device = runner.Counters(),
          .layers = {layers.begin(), layers.end()},
          .kv_bytes = kv_bytes,
          .step_seconds = step_seconds};
}

void Charge(const CostReading& before, const CostReading& after, uint32_t tokens,
            uint32_t all_tokens, RequestCost* cost) {
  const double share = static_cast<double>(tokens) / all_tokens;
  const auto counted = [share](uint64_t from, uint64_t to) {
    return share * static_cast<double>(to - from);
  };
  const fabric::DeviceCounters& a = before.device;
  const fabric::DeviceCounters& b = after.device;
  RequestCost part;
  part.tokens = tokens;
  part.bytes = counted(a.weight_bytes, b.weight_bytes) + counted(a.dense_bytes, b.dense_bytes) +
               counted(before.kv_bytes, after.kv_bytes);
  part.total_ops = counted(a.total_ops, b.total_ops);
  part.active_ops = counted(a.active_ops, b.active_ops);
  part.fabric_seconds = share * (b.fabric_seconds - a.fabric_seconds);
  part.step_seconds = share * (after.step_seconds - before.step_seconds);
  part.energy_picojoules = share * (b.energy_picojoules - a.energy_picojoules);
  part.layers.resize(std::min(before.layers.size(), after.layers.size()));
  for (size_t i = 0; i < part.layers.size(); ++i) {
    part.layers[i].total_ops = counted(before.layers[i].total_ops, after.layers[i].total_ops);
    part.layers[i].active_ops = counted(before.layers[i].active_ops, after.layers[i].active_ops);
  }
  AddCost(part, cost);
}

}  // namespace scheduler
