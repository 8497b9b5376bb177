#include "fabric/sim/account.h"

#include <algorithm>

namespace fabric::sim {
namespace {

constexpr uint64_t kTritsPerByte = 5;
constexpr uint64_t kResultBytes = 4;

// Weights of fabric_cost.
constexpr uint64_t kCostPerOp = 1;
constexpr uint64_t kCostPerRead = 5;
constexpr uint64_t kCostPerWrite = 8;
constexpr uint64_t kCostPerBroadcast = 2;
constexpr uint64_t kCostPerMiss = 6;

uint64_t RoundUpDivide(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

}  // namespace

DeviceCounters AccountOf(const FabricGeometry& geometry, const EnergyTable& energy, uint32_t rows,
                         uint32_t cols, uint64_t tokens, const kernels::ActivityCount& activity) {
  const uint64_t tiles = std::max(1U, geometry.tiles);
  const uint64_t lanes_per_tile = std::max(1U, geometry.lanes_per_tile);
  const uint64_t lanes = tiles * lanes_per_tile;
  const uint64_t row_rounds = RoundUpDivide(rows, lanes);
  const uint64_t tiles_used = std::min(tiles, RoundUpDivide(rows, lanes_per_tile));
  const uint64_t dispatch = tokens * geometry.dispatch_cycles;

  DeviceCounters c;
  c.projections = tokens;
  c.total_ops = tokens * rows * cols;
  c.active_ops = activity.active_ops;
  c.mem_reads = tokens * RoundUpDivide(uint64_t{rows} * cols, kTritsPerByte);
  c.mem_writes = tokens * rows * kResultBytes;
  c.broadcasts = tokens * cols * tiles_used;
  c.lanes_used = tokens * std::min<uint64_t>(rows, lanes);
  c.cycles_gated = tokens * row_rounds * cols + dispatch;
  c.cycles_column_skip = row_rounds * activity.active_columns + dispatch;
  c.fabric_cost = static_cast<double>(
      kCostPerOp * c.active_ops + kCostPerRead * c.mem_reads + kCostPerWrite * c.mem_writes +
      kCostPerBroadcast * c.broadcasts + kCostPerMiss * c.residency_misses);
  c.energy_picojoules = energy.add * static_cast<double>(c.active_ops) +
                        energy.skip * static_cast<double>(c.total_ops - c.active_ops) +
                        energy.sram_byte * static_cast<double>(c.mem_reads) +
                        energy.link_byte * static_cast<double>(c.broadcasts + c.mem_writes);
  return c;
}

void CounterBook::Add(const DeviceCounters& delta) noexcept {
  const std::lock_guard lock(mutex_);
  AddCounters(delta, &counters_);
}

void CounterBook::CountFault(Status status) noexcept {
  const std::lock_guard lock(mutex_);
  counters_.CountFault(FaultKindOf(status));
}

DeviceCounters CounterBook::Read() const noexcept {
  const std::lock_guard lock(mutex_);
  return counters_;
}

}  // namespace fabric::sim
