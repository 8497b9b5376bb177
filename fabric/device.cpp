#include "fabric/device.h"

#include <cmath>
#include <numeric>
#include <stdexcept>
#include <utility>

#include "fabric/driver/ioctl_device.h"
#include "fabric/driver/mock_driver.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/multi_device.h"
#include "fabric/queued_device.h"
#include "fabric/residency/resident_device.h"
#include "fabric/shadow_device.h"
#include "fabric/sim/sim_device.h"
#include "fabric/stub_device.h"
#include "fabric/supervised_device.h"
#include "fabric/trace_device.h"

namespace fabric {
namespace {

// Of the mock: more than any model, less than what sums of sizes could wrap.
constexpr uint64_t kMockMemoryBytes = uint64_t{1} << 40;

using sim::SimDevice;

const kernels::KernelTable& KernelsOf(std::string_view device) {
  return IsaOf(device) == Isa::kScalar ? kernels::SupportedKernels().back()
                                       : kernels::ActiveKernels();
}

std::unique_ptr<SimDevice> MakeReference(const FabricOptions& options) {
  return std::make_unique<SimDevice>("reference", options, kernels::SupportedKernels().back(),
                                     nullptr);
}

std::unique_ptr<SimDevice> MakeSim(const FabricOptions& options, WorkerTeam& team) {
  return std::make_unique<SimDevice>("sim", options, kernels::ActiveKernels(), &team);
}

// `device` behind a pool, if there is to be one.
std::unique_ptr<Device> Bounded(std::unique_ptr<Device> device, const FabricOptions& options,
                                const kernels::KernelTable& kernels) {
  if (options.pool_bytes == 0) return device;
  return std::make_unique<residency::ResidentDevice>(std::move(device), options, kernels);
}

std::unique_ptr<Device> MakeUnqueued(const FabricOptions& options, WorkerTeam& team) {
  FabricOptions host = options;
  host.account = false;
  const kernels::KernelTable& kernels = KernelsOf(options.device);
  if (options.device == "sim") return Bounded(MakeSim(options, team), options, kernels);
  if (options.device == "reference") return Bounded(MakeReference(options), options, kernels);
  if (options.device == "stub") {
    return std::make_unique<SupervisedDevice>(
        Bounded(std::make_unique<StubDevice>(options), options, kernels), MakeReference(host),
        kernels, options.check_rate);
  }
  if (options.device == "ioctl") {
    auto driver = std::make_unique<driver::MockDriver>(options, kMockMemoryBytes, team);
    auto device = std::make_unique<driver::IoctlDevice>(std::move(driver), options.watchdog_ms);
    return std::make_unique<SupervisedDevice>(Bounded(std::move(device), options, kernels),
                                              MakeSim(host, team), kernels, options.check_rate);
  }
  throw std::invalid_argument("The fabric device \"" + options.device +
                              "\" is not known; choose reference, sim, stub or ioctl.");
}

std::unique_ptr<Device> MakeDevice(const FabricOptions& options, WorkerTeam& team) {
  std::unique_ptr<Device> device = MakeUnqueued(options, team);
  if (options.queue_depth == 0) return device;
  return std::make_unique<QueuedDevice>(std::move(device), options.queue_depth);
}

// `first` and as many more like it as make options.devices.
std::unique_ptr<Device> MakeSeveral(std::unique_ptr<Device> first, const FabricOptions& options,
                                    WorkerTeam& team) {
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(std::move(first));
  while (devices.size() < options.devices) devices.push_back(MakeDevice(options, team));
  return std::make_unique<MultiDevice>(std::move(devices), options.split,
                                       KernelsOf(options.device));
}

}  // namespace

std::string_view FaultKindName(FaultKind kind) {
  constexpr std::string_view kNames[kFaultKinds] = {"refused", "memory",  "timeout",
                                                    "busy",    "corrupt", "disconnected"};
  return kNames[static_cast<size_t>(kind)];
}

FaultKind FaultKindOf(Status status) {
  switch (status) {
    case Status::kErrNoMem:
      return FaultKind::kMemory;
    case Status::kErrTimeout:
      return FaultKind::kTimeout;
    case Status::kErrBusy:
      return FaultKind::kBusy;
    case Status::kErrGone:
      return FaultKind::kDisconnected;
    default:
      return FaultKind::kRefused;
  }
}

uint64_t DeviceCounters::TotalFaults() const {
  return std::accumulate(faults.begin(), faults.end(), uint64_t{0});
}

double DeviceCounters::ShadowError() const {
  return shadow_squared_norm == 0 ? 0.0 : std::sqrt(shadow_squared_error / shadow_squared_norm);
}

void AddCounters(const DeviceCounters& b, DeviceCounters* a) {
  a->projections += b.projections;
  a->total_ops += b.total_ops;
  a->active_ops += b.active_ops;
  a->weight_bytes += b.weight_bytes;
  a->mem_reads += b.mem_reads;
  a->mem_writes += b.mem_writes;
  a->broadcasts += b.broadcasts;
  a->residency_hits += b.residency_hits;
  a->residency_misses += b.residency_misses;
  a->evictions += b.evictions;
  a->prefetches_used += b.prefetches_used;
  a->prefetches_wasted += b.prefetches_wasted;
  a->fetched_bytes += b.fetched_bytes;
  a->fetch_seconds += b.fetch_seconds;
  a->fetch_wait_seconds += b.fetch_wait_seconds;
  a->queue_busy_seconds += b.queue_busy_seconds;
  a->queue_wait_seconds += b.queue_wait_seconds;
  a->lanes_used += b.lanes_used;
  a->cycles_gated += b.cycles_gated;
  a->cycles_column_skip += b.cycles_column_skip;
  a->fabric_cost += b.fabric_cost;
  a->energy_picojoules += b.energy_picojoules;
  a->fabric_seconds += b.fabric_seconds;
  a->host_seconds += b.host_seconds;
  a->dense_bytes += b.dense_bytes;
  for (size_t kind = 0; kind < kFaultKinds; ++kind) a->faults[kind] += b.faults[kind];
  a->host_fallbacks += b.host_fallbacks;
  a->shadow_rows += b.shadow_rows;
  a->shadow_differing_rows += b.shadow_differing_rows;
  a->shadow_squared_error += b.shadow_squared_error;
  a->shadow_squared_norm += b.shadow_squared_norm;
}

Isa IsaOf(std::string_view device) noexcept {
  return device == "reference" || device == "stub" ? Isa::kScalar : ActiveIsa();
}

Status Execute(Device& device, std::span<const ProjectionOp> ops) noexcept {
  Ticket ticket = 0;
  const Status status = device.Submit(ops, &ticket);
  return status == Status::kOk ? device.Wait(ticket) : status;
}

std::unique_ptr<Device> CreateDevice(const FabricOptions& options, WorkerTeam& team) {
  std::unique_ptr<Device> device = MakeDevice(options, team);
  if (options.devices > 1) device = MakeSeveral(std::move(device), options, team);
  if (options.shadow_interval > 0) {
    device = std::make_unique<ShadowDevice>(std::move(device), KernelsOf(options.device),
                                            options.shadow_interval);
  }
  if (options.trace.empty()) return device;
  return std::make_unique<TraceDevice>(std::move(device), options.trace);
}

}  // namespace fabric
