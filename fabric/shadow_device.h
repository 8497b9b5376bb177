#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "fabric/device_decorator.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/sim/account.h"

namespace fabric {

// Passes everything on to a device, and now and then compares products of its planes with what the
// quantised weights give: one token of one op is run again as a plain product, and the rows of
// PlaneMatrix::shadow() are computed by the host's kernels from the codes in the file.
//
// The counters tell how many rows were compared, how many had other bits, and the sums from which
// the live error follows: ||y - y'|| / ||y|| over all of them. It is that of real activations,
// where PlaneChoice::error is an estimate for inputs without a pattern.
//
// Threads, errors: as fabric::Device. Its own products are in the device's account.
class ShadowDevice final : public DeviceDecorator {
 public:
  // interval: products of planes per comparison on average, at least 1. Which ones is fixed by
  // their number, so that runs repeat.
  ShadowDevice(std::unique_ptr<Device> device, const kernels::KernelTable& kernels,
               uint32_t interval);

  Status Upload(Matrix matrix, MatrixId* id) override;
  Status UploadToHost(Matrix matrix, MatrixId* id) override;
  Status Free(MatrixId id) noexcept override;
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;
  Status Wait(Ticket ticket) noexcept override;
  DeviceCounters Counters() const noexcept override;

 private:
  // An op whose product will be compared when its submission is done.
  struct Pending {
    Ticket ticket = 0;
    ProjectionOp op;
  };

  const PlaneMatrix* PlanesOf(MatrixId id) const noexcept;
  void Note(MatrixId id, std::shared_ptr<const PlaneMatrix> planes);
  void Compare(const ProjectionOp& op);

  const kernels::KernelTable& kernels_;
  uint32_t interval_;
  std::vector<std::shared_ptr<const PlaneMatrix>> planes_;  // by index of the handle, or null
  uint64_t products_ = 0;                                   // of planes, so far
  std::vector<Pending> pending_;
  std::vector<float> y_;  // [rows]
  sim::CounterBook book_;
};

}  // namespace fabric
