#pragma once

#include <optional>
#include <vector>

#include "fabric/device.h"
#include "fabric/sim/sim_device.h"

namespace fabric {

// A device that has nothing but the plumbing: handles of its own, products of trits only, nothing
// but plain stores, results at Wait() and not before. What it computes, the scalar kernels do. With
// it the tests of everything above see a device that is not this CPU.
//
// Threads, errors: as fabric::Device; other matrices than of trits, epilogues and biases are
// kErrUnsupported.
class StubDevice final : public Device {
 public:
  explicit StubDevice(const FabricOptions& options);

  std::string_view name() const override { return "stub"; }
  Status Upload(Matrix matrix, MatrixId* id) override;
  Status Free(MatrixId id) noexcept override;
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;
  Status Wait(Ticket ticket) noexcept override;
  DeviceCounters Counters() const noexcept override { return arrays_.Counters(); }
  size_t resident_bytes() const noexcept override { return arrays_.resident_bytes(); }
  Residency residency(MatrixId id) const noexcept override {
    return {.place = Route(id) ? MatrixPlace::kDevice : MatrixPlace::kHost};
  }

 private:
  struct Flight {
    Ticket ticket = 0;
    std::vector<ProjectionOp> ops;
  };
  std::optional<MatrixId> Route(MatrixId id) const noexcept;

  sim::SimDevice arrays_;
  std::vector<Flight> flights_;
  Ticket last_ticket_ = 0;
};

}  // namespace fabric
