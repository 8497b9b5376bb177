#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "fabric/device_decorator.h"
#include "fabric/matrix_store.h"
#include "fabric/sim/account.h"

namespace fabric {

// A device that works on a thread of its own: Submit() checks the ops, puts them into a bounded
// queue and returns, so that the caller can do something else, or give work to another device,
// before it waits.
//
// Order:   submissions run one after the other, in the order in which they came.
// Account: queue_busy_seconds is what the thread worked, queue_wait_seconds what callers stood in
//          Wait(); busy - wait is the overlap of device and host.
// Threads, errors: as fabric::Device. kErrBusy when the queue is full. A failure that is found
// while
//          ops run is what Wait() returns, and takes none of the other submissions with it.
class QueuedDevice final : public DeviceDecorator {
 public:
  // depth: submissions that wait beside the one that runs; at least 1.
  QueuedDevice(std::unique_ptr<Device> device, uint32_t depth);
  // Ends what was submitted.
  ~QueuedDevice() override;

  // What changes matrices waits until the queue is empty.
  LayoutChoice PreferredLayout(const TernaryUse& use) override;
  Status Upload(Matrix matrix, MatrixId* id) override;
  Status UploadToHost(Matrix matrix, MatrixId* id) override;
  Status Free(MatrixId id) noexcept override;
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;
  // Once per ticket.
  Status Wait(Ticket ticket) noexcept override;
  DeviceCounters Counters() const noexcept override;
  Residency residency(MatrixId id) const noexcept override;
  void Settle() noexcept override;
  Status SetPinned(MatrixId id, bool pinned) noexcept override;

 private:
  struct Task {
    Ticket ticket = 0;
    std::vector<ProjectionOp> ops;
    Status status = Status::kPending;
  };
  struct Known {
    uint32_t generation = 0;
    MatrixShape shape;
  };

  void Drain() const;
  Status Note(Status status, const std::optional<MatrixShape>& shape, const MatrixId* id);
  void Run();

  // device_ is of the thread while tasks are waiting or running.
  const size_t depth_;
  std::vector<Known> known_;  // by index of the handle
  sim::CounterBook book_;
  Ticket last_ticket_ = 0;

  mutable std::mutex mutex_;  // of what follows
  mutable std::condition_variable changed_;
  std::deque<std::shared_ptr<Task>> waiting_;
  std::vector<std::shared_ptr<Task>> open_;  // that nobody has been told the end of
  bool running_ = false;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace fabric
