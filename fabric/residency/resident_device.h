#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fabric/device_decorator.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/matrix_store.h"
#include "fabric/residency/copy_engine.h"
#include "fabric/residency/image_store.h"
#include "fabric/residency/pool_space.h"
#include "fabric/sim/account.h"

namespace fabric::residency {

// A device whose memory is smaller than what is uploaded to it: ternary matrices wait in an
// ImageStore and are in the pool while they are used. Other matrices, planes too, stay.
//
//   fetch     A matrix that an op needs is copied into the pool first; one that is on its way
//             already is waited for. Ops of one Submit() that do not fit together run in parts.
//   ahead     While ops run, a thread copies what is expected next: after each matrix, what came
//             after it the last time (at first, what was uploaded after it).
//   evict     What is expected latest: a matrix is expected as long after its last use as that came
//             after the one before. So in a model that runs its layers in a circle the one just
//             left makes room, where by age alone each would be evicted right before it is used.
//             Never one that is in use or pinned, and for one that is fetched ahead none expected
//             sooner.
//
// A fetched matrix gets a new handle of the device inside, which is freed with its eviction: nobody
// can reach memory that has something else in it. Handles given out stay good until Free().
// The results' bits are those of the device inside.
//
// Threads, errors: as fabric::Device. residency() as the rest.
class ResidentDevice final : public DeviceDecorator {
 public:
  // pool_bytes > 0. store_directory: empty = memory. kernels: for the epilogues of ops that do not
  // fit together.
  // Errors: std::bad_alloc; std::runtime_error when there can be no file in store_directory.
  ResidentDevice(std::unique_ptr<Device> device, const FabricOptions& options,
                 const kernels::KernelTable& kernels);
  ~ResidentDevice() override;

  // kErrNoMem when the pool is too small for this matrix alone.
  Status Upload(Matrix matrix, MatrixId* id) override;
  Status UploadToHost(Matrix matrix, MatrixId* id) override;
  Status Free(MatrixId id) noexcept override;
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;
  Status Wait(Ticket ticket) noexcept override;
  DeviceCounters Counters() const noexcept override;
  PoolFacts pool() const noexcept override;
  // A matrix on its way into the pool is outside of it.
  Residency residency(MatrixId id) const noexcept override;
  // Returns when what stays in the pool is there.
  void Settle() noexcept override;
  Status SetPinned(MatrixId id, bool pinned) noexcept override;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Frame {
    uint32_t generation = 1;
    bool used = false;
    MatrixShape shape;
    MatrixId inner;  // generation 0: the device does not have it

    // Of matrices that come and go; the rest have no shell.
    std::optional<TernaryMatrix> shell;  // without its weights
    StoredImage image;
    std::optional<size_t> place;           // in the pool
    std::shared_ptr<CopyEngine::Job> job;  // while it is on its way
    bool pinned = false;
    bool locked = false;         // by Locks
    bool ahead = false;          // fetched ahead, and not read yet
    uint64_t born = 0;           // on use_clock_, as the next two
    uint64_t last_use = 0;       // 0 = never
    uint64_t interval = 0;       // between the last two uses; 0 = not known
    uint32_t successor = kNone;  // whose turn came after it the last time
  };

  class Locks;

  Frame* Find(MatrixId id) noexcept;
  const Frame* Find(MatrixId id) const noexcept;
  Status Store(Matrix matrix, bool on_host, MatrixId* id);
  Status Keep(TernaryMatrix matrix, Frame* frame);
  void JoinCircle(uint32_t index);

  void SpreadOut();
  size_t AheadBytes() const;
  // ours: false once the device inside has run something, and counts its faults.
  Status Run(std::span<const ProjectionOp> ops, bool* ours);
  bool Fits(std::span<const ProjectionOp> ops) const;
  Status RunSome(std::span<const ProjectionOp> ops, bool* ours);
  Status RunApart(std::span<const ProjectionOp> chain, bool* ours);
  Status RunResident(std::span<const ProjectionOp> ops);

  void NoteUse(const ProjectionOp& op);
  std::vector<Frame*> FramesOf(std::span<const ProjectionOp> ops);
  Status Acquire(std::span<Frame* const> frames);
  bool PlaceAll(std::span<Frame* const> frames);
  bool Fetch(Frame* frame, bool urgent, uint64_t expected_in);
  void FetchAhead();
  Frame* ChooseVictim(uint64_t expected_in);
  uint64_t ExpectedIn(const Frame& frame) const;
  void Evict(Frame* frame) noexcept;
  void EvictAll() noexcept;
  void Publish() noexcept;

  const bool account_;
  const double picojoules_per_byte_;
  const std::optional<TernaryLayout> layout_;
  const kernels::KernelTable& kernels_;
  sim::CounterBook book_;
  DeviceCounters counted_;    // of the current call
  std::deque<Frame> frames_;  // by index of the handle; a deque, because copies point into it
  uint32_t first_uploaded_ = kNone;
  uint32_t last_uploaded_ = kNone;
  size_t absent_ = 0;   // frames that are neither in the pool nor on their way
  size_t shells_ = 0;   // frames that come and go
  size_t largest_ = 0;  // the most bytes that one of them has had
  size_t pinned_bytes_ = 0;
  uint64_t use_clock_ = 0;  // ops with a matrix that comes and goes
  uint32_t last_used_ = kNone;
  Ticket last_ticket_ = 0;

  // Workspace of one Submit().
  std::vector<const Frame*> missed_;
  std::vector<ProjectionOp> inner_ops_;
  std::vector<float> staging_;  // [tokens, rows] of an op that runs apart

  PoolSpace space_;
  AlignedBuffer<uint8_t> pool_;
  ImageStore store_;
  CopyEngine copies_;  // last: it uses the rest
};

}  // namespace fabric::residency
