#include "fabric/queued_device.h"

#include <algorithm>
#include <chrono>
#include <new>
#include <utility>

#include "fabric/seconds_since.h"

namespace fabric {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

QueuedDevice::QueuedDevice(std::unique_ptr<Device> device, uint32_t depth)
    : DeviceDecorator(std::move(device)), depth_(depth), thread_([this] { Run(); }) {}

QueuedDevice::~QueuedDevice() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void QueuedDevice::Drain() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return waiting_.empty() && !running_; });
}

LayoutChoice QueuedDevice::PreferredLayout(const TernaryUse& use) {
  Drain();
  return device_->PreferredLayout(use);
}

Status QueuedDevice::Upload(Matrix matrix, MatrixId* id) {
  Drain();
  const std::optional<MatrixShape> shape = ShapeOf(matrix);
  return Note(device_->Upload(std::move(matrix), id), shape, id);
}

Status QueuedDevice::UploadToHost(Matrix matrix, MatrixId* id) {
  Drain();
  const std::optional<MatrixShape> shape = ShapeOf(matrix);
  return Note(device_->UploadToHost(std::move(matrix), id), shape, id);
}

Status QueuedDevice::Note(Status status, const std::optional<MatrixShape>& shape,
                          const MatrixId* id) {
  if (status != Status::kOk) return status;
  if (id->index >= known_.size()) known_.resize(size_t{id->index} + 1);
  known_[id->index] = {.generation = id->generation, .shape = *shape};
  return status;
}

Status QueuedDevice::Free(MatrixId id) noexcept {
  Drain();
  const Status status = device_->Free(id);
  if (status == Status::kOk) known_[id.index].generation = 0;
  return status;
}

Residency QueuedDevice::residency(MatrixId id) const noexcept {
  Drain();
  return device_->residency(id);
}

void QueuedDevice::Settle() noexcept {
  Drain();
  device_->Settle();
}

Status QueuedDevice::SetPinned(MatrixId id, bool pinned) noexcept {
  Drain();
  return device_->SetPinned(id, pinned);
}

Status QueuedDevice::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  const auto shape_of = [&](MatrixId id) {
    const bool known = id.generation != 0 && id.index < known_.size() &&
                       known_[id.index].generation == id.generation;
    return known ? std::optional(known_[id.index].shape) : std::nullopt;
  };
  Status status = Status::kErrAddr;
  try {
    if (ticket != nullptr) status = CheckShapes(shape_of, ops);
    if (status == Status::kOk) {
      auto task = std::make_shared<Task>();
      task->ops.assign(ops.begin(), ops.end());
      const std::lock_guard lock(mutex_);
      if (waiting_.size() >= depth_) {
        status = Status::kErrBusy;
      } else {
        task->ticket = ++last_ticket_;
        open_.push_back(task);
        waiting_.push_back(task);
        *ticket = task->ticket;
      }
    }
  } catch (const std::bad_alloc&) {
    status = Status::kErrNoMem;
  }
  if (status != Status::kOk) {
    book_.CountFault(status);
    return status;
  }
  changed_.notify_all();
  return status;
}

Status QueuedDevice::Wait(Ticket ticket) noexcept {
  const Clock::time_point start = Clock::now();
  std::unique_lock lock(mutex_);
  const auto found = std::find_if(open_.begin(), open_.end(),
                                  [&](const auto& task) { return task->ticket == ticket; });
  if (found == open_.end()) return Status::kErrAddr;
  const std::shared_ptr<Task> task = *found;
  open_.erase(found);
  changed_.wait(lock, [&] { return task->status != Status::kPending; });
  lock.unlock();
  book_.Add({.queue_wait_seconds = SecondsSince(start)});
  return task->status;
}

void QueuedDevice::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const std::shared_ptr<Task> task = std::move(waiting_.front());
    waiting_.pop_front();
    running_ = true;
    lock.unlock();
    const Clock::time_point start = Clock::now();
    const Status status = Execute(*device_, task->ops);
    book_.Add({.queue_busy_seconds = SecondsSince(start)});
    lock.lock();
    task->status = status;
    running_ = false;
    changed_.notify_all();
  }
}

DeviceCounters QueuedDevice::Counters() const noexcept {
  DeviceCounters sum = book_.Read();
  AddCounters(device_->Counters(), &sum);
  return sum;
}

}  // namespace fabric
