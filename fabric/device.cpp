#include "fabric/device.h"

#include <stdexcept>

#include "fabric/kernels/kernel_table.h"
#include "fabric/sim/sim_device.h"

namespace fabric {

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
