#pragma once

#include <atomic>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fabric/device.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/layout_choice.h"
#include "fabric/matrix_store.h"
#include "fabric/projection.h"
#include "fabric/sim/account.h"

namespace fabric::sim {

// Computes projections with one table of kernels and keeps the account of the modelled fabric. A
// Submit() is one pass over the team: pieces of rows of all ops are claimed dynamically.
//
// As "sim" it has the active kernels and a team; as "reference" the scalar kernels and no team, so
// that rows are computed in order on the calling thread.
class SimDevice final : public Device {
 public:
  // team: null = the calling thread alone; otherwise outlives the device.
  SimDevice(std::string_view name, const FabricOptions& options,
            const kernels::KernelTable& kernels, WorkerTeam* team);

  std::string_view name() const override { return name_; }
  LayoutChoice PreferredLayout(const TernaryUse& use) override;
  std::string LayoutRule() const override;
  Status Upload(Matrix matrix, MatrixId* id) override;
  Status UploadToHost(Matrix matrix, MatrixId* id) override;
  Status Free(MatrixId id) noexcept override;
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;
  Status Wait(Ticket ticket) noexcept override;
  DeviceCounters Counters() const noexcept override { return book_.Read(); }
  size_t resident_bytes() const noexcept override { return resident_bytes_.load(); }
  Residency residency(MatrixId id) const noexcept override;

  const MatrixStore& store() const { return store_; }

 private:
  LayoutChoice DenseLayout(ActivationKind activation);
  LayoutChoice SparseOr(const TernaryUse& use, const LayoutChoice& dense);

  // Consecutive ops that a worker runs on the same rows before it goes on: one op and the *Mul
  // epilogues that follow it.
  struct Chain {
    size_t op_begin = 0;
    size_t op_end = 0;
    uint32_t rows = 0;
    uint32_t tokens = 0;
    uint32_t piece_rows = 0;
    size_t piece_begin = 0;  // index of its first piece within the wave
    size_t pieces = 0;
  };
  // What is known of one op of the current Submit().
  struct OpState {
    const Matrix* matrix = nullptr;
    bool on_fabric = false;  // the account counts its trits
    size_t group_sums = 0;   // offset in group_sums_, when NeedsGroupSums()
    size_t tables = 0;       // offset in tables_, when NeedsTables()
    size_t activity = 0;     // offset in activity_: [planes, tokens]
  };

  Status Store(Matrix matrix, bool on_host, MatrixId* id);
  bool OnFabric(MatrixId id) const noexcept;
  void RunWaves(std::span<const ProjectionOp> ops);
  void PrepareOps(std::span<const ProjectionOp> ops);
  size_t AddTables(std::span<const ProjectionOp> ops, size_t op, size_t* bytes) const;
  void MakeTables(const ActivationView& x, uint8_t* tables);
  PreparedInput InputOf(const OpState& state) const;
  size_t ChainEnd(std::span<const ProjectionOp> ops, size_t begin) const;
  void AddChain(std::span<const ProjectionOp> ops, size_t begin, size_t end);
  bool DependsOnWave(std::span<const ProjectionOp> ops, size_t begin, size_t end) const;
  void RunWave(std::span<const ProjectionOp> ops);
  void RunPiece(std::span<const ProjectionOp> ops, size_t piece, float* scratch) noexcept;
  void CountActivity(const ProjectionOp& op, const OpState& state, uint32_t token) noexcept;
  void Account(std::span<const ProjectionOp> ops, double seconds);
  void AccountPlanes(const OpState& state, uint32_t tokens, DeviceCounters* delta) const;

  std::string_view name_;
  FabricOptions options_;
  const kernels::KernelTable& kernels_;
  WorkerTeam* team_;
  std::optional<LayoutChoice> measured_[2];  // of kInt8Token, kInt8Block
  std::optional<SparseBreakEven> sparse_;    // of kInt8Token
  MatrixStore store_;
  CounterBook book_;
  std::atomic<size_t> resident_bytes_{0};
  Ticket last_ticket_ = 0;

  // Workspace of one Submit(), kept so that a steady state does not allocate.
  std::vector<OpState> states_;
  std::vector<Chain> wave_;
  std::vector<int32_t> group_sums_;
  AlignedBuffer<uint8_t> tables_;
  std::vector<kernels::ActivityCount> activity_;  // per op and token
  AlignedBuffer<float> scratch_;                  // [workers, kTileFloats]
};

}  // namespace fabric::sim
