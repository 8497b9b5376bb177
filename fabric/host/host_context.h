#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "fabric/device.h"
#include "fabric/frame.h"
#include "fabric/status.h"
#include "fabric/worker_team.h"

namespace fabric::host {

using FrameHandle = uint64_t;  // generation << 32 | slot; 0 is never one
using TaskTicket = uint64_t;

struct ContextOptions {
  FabricOptions fabric;
  int threads = 0;
  size_t queue_depth = 64;
};

// One product with a frame; fields as tfmbs_op of tfmbs_host.h.
struct Product {
  FrameHandle frame = 0;
  ActivationKind kind = ActivationKind::kFloat;  // of x; kFloat is rounded per token
  uint32_t batch = 0;
  const void* x = nullptr;
  uint64_t x_stride = 0;
  const float* x_scales = nullptr;
  uint64_t x_scale_stride = 0;
  float* y = nullptr;
  uint64_t y_stride = 0;
};

struct FrameFacts {
  uint64_t bytes = 0;
  uint64_t layer_id = 0;
  uint32_t pins = 0;
  uint32_t planes = 0;
  uint32_t rows = 0;
  uint32_t cols = 0;
  bool resident = true;
};

struct ContextFacts {
  uint32_t threads = 0;
  uint32_t frames = 0;
  uint64_t pool_used = 0;  // by frames all of whose planes are resident
  uint64_t uploaded_bytes = 0;
};

// What is behind the C interface (fabric/include/tfmbs_host.h has the meaning of every call):
// frames on a device, products with them at once or through a bounded queue.
//
// Threads: any. Products run one at a time.
// Errors:  by status, and std::bad_alloc. The constructor throws as CreateDevice().
class HostContext {
 public:
  explicit HostContext(const ContextOptions& options);
  // Ends what is queued.
  ~HostContext();
  HostContext(const HostContext&) = delete;
  HostContext& operator=(const HostContext&) = delete;

  // W = the sum of the planes, in order. REQUIRES: at least one. kErrUnsupported unless all have
  // one shape.
  Status Upload(uint64_t layer_id, std::span<const TernaryFrame> planes, FrameHandle* handle);
  Status Free(FrameHandle handle);
  Status Pin(FrameHandle handle);
  Status Unpin(FrameHandle handle);
  Status Query(FrameHandle handle, FrameFacts* facts);

  // All are checked before any runs. Strides of 0 mean without padding.
  Status Run(std::span<const Product> products);
  Status Submit(std::span<const Product> products, TaskTicket* ticket);
  Status Poll(TaskTicket ticket);
  Status Wait(TaskTicket ticket, uint32_t timeout_ms);

  const Device& device() const { return *device_; }
  const ContextOptions& options() const { return options_; }
  // Waits for the product that runs.
  ContextFacts facts();
  uint64_t uploaded_bytes() const;

 private:
  struct Frame {
    uint32_t generation = 1;
    bool used = false;
    FrameFacts facts;
    std::vector<MatrixId> planes;
  };
  // A product that was checked, with strides and the matrices of its frame.
  struct Checked {
    Product product;
    uint32_t rows = 0;
    uint32_t cols = 0;
    std::vector<MatrixId> planes;
  };
  struct Task {
    std::vector<Checked> products;
    Status status = Status::kPending;
  };
  struct Input;

  const Frame* Find(FrameHandle handle) const;
  Frame* Find(FrameHandle handle);
  Status UploadAll(std::vector<TernaryMatrix> matrices, std::vector<MatrixId>* ids);
  bool IsResident(const Frame& frame) const;
  Status SetPinned(const Frame& frame, bool pinned);
  Status Check(const Product& product, Checked* checked) const;
  Status CheckAll(std::span<const Product> products, std::vector<Checked>* checked) const;
  Status Execute(std::span<const Checked> products);
  static bool Encode(const Checked& checked, uint32_t begin, uint32_t tokens, Input* input);
  void RunTasks();

  const ContextOptions options_;
  WorkerTeam team_;
  std::mutex device_mutex_;  // of all of device_ but what any thread may call; before mutex_
  std::unique_ptr<Device> device_;

  mutable std::mutex mutex_;  // of what follows
  std::condition_variable changed_;
  std::vector<Frame> frames_;
  uint64_t uploaded_bytes_ = 0;
  TaskTicket last_ticket_ = 0;
  std::map<TaskTicket, std::shared_ptr<Task>> tasks_;  // that nobody has been told the end of
  std::deque<std::shared_ptr<Task>> queue_;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace fabric::host
