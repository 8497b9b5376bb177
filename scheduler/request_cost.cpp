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

void ReadCost(const StepRunner& runner, uint64_t kv_bytes, double step_seconds,
              CostReading* reading) {
  const auto layers = runner.LayerActivities();
  reading->layers.assign(layers.begin(), layers.end());
  reading->device = runner.Counters();
  reading->kv_bytes = kv_bytes;
  reading->step_seconds = step_seconds;
}

void Charge(const CostReading& before, const CostReading& after, uint32_t tokens,
            uint32_t all_tokens, RequestCost* cost) {
  const double share = static_cast<double>(tokens) / all_tokens;
  const auto counted = [share](uint64_t from, uint64_t to) {
    return share * static_cast<double>(to - from);
  };
  const fabric::DeviceCounters& a = before.device;
  const fabric::DeviceCounters& b = after.device;
  const size_t layers = std::min(before.layers.size(), after.layers.size());
  if (cost->layers.size() < layers) cost->layers.resize(layers);
  cost->tokens += tokens;
  cost->bytes += counted(a.weight_bytes, b.weight_bytes) + counted(a.dense_bytes, b.dense_bytes) +
                 counted(before.kv_bytes, after.kv_bytes);
  cost->total_ops += counted(a.total_ops, b.total_ops);
  cost->active_ops += counted(a.active_ops, b.active_ops);
  cost->fabric_seconds += share * (b.fabric_seconds - a.fabric_seconds);
  cost->step_seconds += share * (after.step_seconds - before.step_seconds);
  cost->energy_picojoules += share * (b.energy_picojoules - a.energy_picojoules);
  for (size_t i = 0; i < layers; ++i) {
    cost->layers[i].total_ops += counted(before.layers[i].total_ops, after.layers[i].total_ops);
    cost->layers[i].active_ops += counted(before.layers[i].active_ops, after.layers[i].active_ops);
  }
}

}  // namespace scheduler
