#include "fabric/device.h"

#include <stdexcept>

#include "fabric/kernels/kernel_table.h"
#include "fabric/sim/sim_device.h"

namespace fabric {

void AddCounters(const DeviceCounters& b, DeviceCounters* a) {
  a->projections += b.projections;
  a->total_ops += b.total_ops;
  a->active_ops += b.active_ops;
  a->weight_bytes += b.weight_bytes;
  a->mem_reads += b.mem_reads;
  a->mem_writes += b.mem_writes;
  a->broadcasts += b.broadcasts;
  a->residency_misses += b.residency_misses;
  a->lanes_used += b.lanes_used;
  a->cycles_gated += b.cycles_gated;
  a->cycles_column_skip += b.cycles_column_skip;
  a->fabric_cost += b.fabric_cost;
  a->energy_picojoules += b.energy_picojoules;
  a->fabric_seconds += b.fabric_seconds;
  a->host_seconds += b.host_seconds;
  a->dense_bytes += b.dense_bytes;
  a->faults += b.faults;
}

Status Execute(Device& device, std::span<const ProjectionOp> ops) noexcept {
  Ticket ticket = 0;
  const Status status = device.Submit(ops, &ticket);
  return status == Status::kOk ? device.Wait(ticket) : status;
}

std::unique_ptr<Device> CreateDevice(const FabricOptions& options, WorkerTeam& team) {
  if (options.device == "sim") {
    return std::make_unique<sim::SimDevice>("sim", options, kernels::ActiveKernels(), &team);
  }
  if (options.device == "reference") {
    return std::make_unique<sim::SimDevice>("reference", options,
                                            kernels::SupportedKernels().back(), nullptr);
  }
  throw std::invalid_argument("The fabric device \"" + options.device +
                              "\" is not known; choose reference or sim.");
}

}  // namespace fabric
