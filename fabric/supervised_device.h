#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fabric/device_decorator.h"
#include "fabric/row_check.h"
#include "fabric/sim/sim_device.h"

namespace fabric {

// A device that may fail, beside a host that does not, so that no request ever sees a fault.
//
// Ternary matrices and planes that the device takes are on both; everything else is on the host
// alone. The device writes into staging memory; only results that arrived in time and passed the
// check go on through the epilogue to y. A fault is retried once; then the host runs these
// projections, with the same bits. After kFaultsInARow submissions that failed twice, or when the
// device says that it is gone, it is out of service for good and the host runs everything.
//
// Threads, errors: as fabric::Device.
class SupervisedDevice final : public DeviceDecorator {
 public:
  static constexpr uint32_t kFaultsInARow = 4;

  // host: with its account off, because what it runs did not happen on the Fabric.
  // check_rate: share of results (op and token) that are verified (fabric/row_check.h, or
  // computing them again where that does not apply); 1 = all, 0 = none.
  SupervisedDevice(std::unique_ptr<Device> device, std::unique_ptr<sim::SimDevice> host,
                   const kernels::KernelTable& kernels, double check_rate);

  LayoutChoice PreferredLayout(const TernaryUse& use) override;
  std::string LayoutRule() const override;
  Status Upload(Matrix matrix, MatrixId* id) override;
  Status UploadToHost(Matrix matrix, MatrixId* id) override;
  Status Free(MatrixId id) noexcept override;
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;
  Status Wait(Ticket ticket) noexcept override;
  DeviceCounters Counters() const noexcept override;
  size_t resident_bytes() const noexcept override;
  Residency residency(MatrixId id) const noexcept override;
  Status SetPinned(MatrixId id, bool pinned) noexcept override;
  bool in_service() const noexcept override { return in_service_.load(); }

 private:
  // Where a matrix is beside the host; indexed by its handle there.
  struct Route {
    std::optional<MatrixId> on_device;
    std::unique_ptr<RowCheck> check;
  };

  Status Run(std::span<const ProjectionOp> ops);
  bool OnDevice(std::span<const ProjectionOp> chain) const;
  Status RunOnDevice(std::span<const ProjectionOp> ops);
  Status Attempt(std::span<const ProjectionOp> ops, FaultKind* fault);
  bool Verified(std::span<const ProjectionOp> ops);
  bool VerifyToken(const ProjectionOp& op, uint32_t token, const float* y);
  bool Sampled();
  void Finish(std::span<const ProjectionOp> ops) noexcept;
  void NoteFault(FaultKind fault);

  std::unique_ptr<sim::SimDevice> host_;
  const kernels::KernelTable& kernels_;
  double check_rate_;
  std::vector<Route> routes_;
  sim::CounterBook book_;  // faults and fallbacks
  std::atomic<bool> in_service_{true};
  uint32_t failures_in_a_row_ = 0;
  uint64_t results_ = 0;  // seen by Sampled()
  Ticket last_ticket_ = 0;

  // Workspace of one Submit(), kept so that a steady state does not allocate.
  std::vector<ProjectionOp> staged_;
  std::vector<float> staging_;  // [tokens, rows] of one op after the other
  std::vector<float> recomputed_;
};

}  // namespace fabric
