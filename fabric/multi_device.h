#pragma once

#include <memory>
#include <string>
#include <vector>

#include "fabric/device.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/matrix_store.h"
#include "fabric/sim/account.h"

namespace fabric {

// Several devices that share each ternary matrix; what other matrices there are, the first one has.
//
//   rows     Device i has consecutive rows, whole panels of 16. It writes its slice of y, so that
//            results are concatenated by where they lie.
//   columns  Device i has consecutive columns and gives the exact integer sums over them (as floats
//            of a matrix with the scale 1, below 2^24). They are added as integers, and only the
//            total is scaled: y = float(sum) * (w / s), as on one device. A matrix with scales per
//            group, or read with scales per block, adds up in floats in the order of its columns,
//            which no partial sums keep: it is shared out by rows.
//
// So the bits are those of one device, whatever their number.
//
// Threads, errors: as fabric::Device.
class MultiDevice final : public Device {
 public:
  // devices: at least one, of one kind. kernels: for the reduction.
  MultiDevice(std::vector<std::unique_ptr<Device>> devices, FabricSplit split,
              const kernels::KernelTable& kernels);

  std::string_view name() const override { return devices_.front()->name(); }
  LayoutChoice PreferredLayout(const TernaryUse& use) override;
  std::string LayoutRule() const override;
  Status Upload(Matrix matrix, MatrixId* id) override;
  Status UploadToHost(Matrix matrix, MatrixId* id) override;
  Status Free(MatrixId id) noexcept override;
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;
  Status Wait(Ticket ticket) noexcept override;
  // Sums over the devices; but cycles are those of the busiest one, since they run side by side.
  DeviceCounters Counters() const noexcept override;
  size_t resident_bytes() const noexcept override;
  // All pools together.
  PoolFacts pool() const noexcept override;
  Residency residency(MatrixId id) const noexcept override;
  void Settle() noexcept override;
  Status SetPinned(MatrixId id, bool pinned) noexcept override;
  bool in_service() const noexcept override;

 private:
  // A matrix or a part of one on one device.
  struct Part {
    size_t device = 0;
    MatrixId id;
    uint32_t begin = 0;  // first row or column
    uint32_t count = 0;
  };
  // A matrix as it was uploaded, and its parts: by rows always, by columns as well where that
  // applies and is wanted (twice the memory).
  struct Shared {
    uint32_t generation = 1;
    bool used = false;
    bool shared_out = false;  // among all devices; else the first one has it
    MatrixShape shape;
    std::vector<Part> row_parts;
    std::vector<Part> column_parts;
    std::vector<float> scales;  // of column parts: [1] or [rows]
  };
  struct ColumnInput;

  const Shared* Find(MatrixId id) const noexcept;
  Status Store(Matrix matrix, bool on_host, MatrixId* id);
  Status UploadParts(const TernaryMatrix& matrix, Shared* shared);
  void FreeParts(Shared* shared) noexcept;
  Status Run(std::span<const ProjectionOp> ops);
  bool AllShared(std::span<const ProjectionOp> chain) const noexcept;
  bool ByColumns(const ProjectionOp& op) const noexcept;
  bool Conflicts(std::span<const ProjectionOp> waiting,
                 std::span<const ProjectionOp> chain) const noexcept;
  void AddByRows(std::span<const ProjectionOp> chain);
  Status Flush();
  Status RunAlone(const ProjectionOp& op, bool chained);
  Status RunByColumns(const ProjectionOp& op);
  void Reduce(const ProjectionOp& op, const Shared& shared) noexcept;
  void Finish(const ProjectionOp& op, uint32_t rows) noexcept;

  std::vector<std::unique_ptr<Device>> devices_;
  FabricSplit split_;
  const kernels::KernelTable& kernels_;
  std::vector<Shared> matrices_;
  sim::CounterBook book_;  // refused submissions
  Ticket last_ticket_ = 0;

  // Workspace of one Submit().
  std::vector<std::vector<ProjectionOp>> part_ops_;  // per device
  std::vector<Ticket> tickets_;
  std::vector<float> staging_;  // [tokens, rows]
  std::vector<float> partial_;  // [parts, tokens, rows]
};

}  // namespace fabric
