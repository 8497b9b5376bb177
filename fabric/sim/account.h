#pragma once

#include <cstdint>
#include <mutex>

#include "fabric/device.h"
#include "fabric/kernels/ternary_tile.h"

namespace fabric::sim {

// What one ternary projection of one or more tokens costs on the modelled fabric, summed over the
// tokens. docs/fabric.md has the formulas.
//
// activity: summed over the tokens.
DeviceCounters AccountOf(const FabricGeometry& geometry, const EnergyTable& energy, uint32_t rows,
                         uint32_t cols, uint64_t tokens, const kernels::ActivityCount& activity);

// Counters that one thread adds to and any thread reads.
class CounterBook {
 public:
  void Add(const DeviceCounters& delta) noexcept;
  void CountFault(Status status) noexcept;
  DeviceCounters Read() const noexcept;

 private:
  mutable std::mutex mutex_;
  DeviceCounters counters_;
};

}  // namespace fabric::sim
