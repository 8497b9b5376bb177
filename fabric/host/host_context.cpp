#include "fabric/host/host_context.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <list>
#include <new>
#include <numeric>
#include <optional>
#include <utility>

#include "fabric/vector_ops.h"

namespace fabric::host {
namespace {

constexpr uint32_t kMaxBatch = 1U << 20;
constexpr uint64_t kMaxStride = uint64_t{1} << 32;
// Tokens that are encoded before they are run.
constexpr uint32_t kTokensPerPass = 1024;

uint32_t ScalesPerToken(ActivationKind kind, uint32_t cols) {
  return kind == ActivationKind::kInt8Block ? (cols + kActivationBlock - 1) / kActivationBlock : 1;
}

uint32_t SlotOf(uint64_t handle) { return static_cast<uint32_t>(handle); }

}  // namespace

// Vectors of one op as devices take them.
struct HostContext::Input {
  AlignedBuffer<int8_t> codes;
  AlignedBuffer<float> scales;
  AlignedBuffer<int32_t> sums;
  ActivationView view;
};

HostContext::HostContext(const ContextOptions& options)
    : options_(options),
      team_(options.threads),
      device_(CreateDevice(options.fabric, team_)),
      thread_([this] { RunTasks(); }) {}

HostContext::~HostContext() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

const HostContext::Frame* HostContext::Find(FrameHandle handle) const {
  const uint32_t slot = SlotOf(handle);
  if (slot >= frames_.size()) return nullptr;
  const Frame& frame = frames_[slot];
  return frame.used && frame.generation == handle >> 32 ? &frame : nullptr;
}

HostContext::Frame* HostContext::Find(FrameHandle handle) {
  return const_cast<Frame*>(std::as_const(*this).Find(handle));
}

Status HostContext::Upload(uint64_t layer_id, std::span<const TernaryFrame> planes,
                           FrameHandle* handle) {
  const FrameDescriptor& shape = planes.front().descriptor;
  std::vector<TernaryMatrix> matrices;
  uint64_t bytes = 0;
  for (const TernaryFrame& plane : planes) {
    if (plane.descriptor.rows != shape.rows || plane.descriptor.cols != shape.cols) {
      return Status::kErrUnsupported;
    }
    TernaryLayout layout{};
    {
      const std::lock_guard lock(device_mutex_);
      layout = device_->PreferredLayout(ActivationKind::kInt8Token).layout;
    }
    std::optional<TernaryMatrix> matrix;
    const Status status = FromFrame(plane, layout, &matrix);
    if (status != Status::kOk) return status;
    // A device that may fail would leave it to the host.
    const uint64_t bound = options_.fabric.pool_bytes;
    if (bound != 0 && matrix->image_bytes() > bound) return Status::kErrNoMem;
    bytes += matrix->bytes();
    matrices.push_back(std::move(*matrix));
  }
  std::vector<MatrixId> ids;
  const Status status = UploadAll(std::move(matrices), &ids);
  if (status != Status::kOk) return status;
  const std::scoped_lock lock(device_mutex_, mutex_);
  uploaded_bytes_ += bytes;
  auto slot = std::find_if(frames_.begin(), frames_.end(), [](const Frame& f) { return !f.used; });
  if (slot == frames_.end()) slot = frames_.emplace(frames_.end());
  slot->used = true;
  slot->planes = std::move(ids);
  const bool pinned = (shape.flags & kFramePinned) != 0;
  if (pinned) {
    const Status fixed = SetPinned(*slot, true);
    if (fixed != Status::kOk) {
      for (const MatrixId id : slot->planes) device_->Free(id);
      slot->planes.clear();
      slot->used = false;
      return fixed;
    }
  }
  slot->facts = {.bytes = bytes,
                 .layer_id = layer_id,
                 .pins = pinned ? 1U : 0U,
                 .planes = static_cast<uint32_t>(planes.size()),
                 .rows = shape.rows,
                 .cols = shape.cols};
  *handle = uint64_t{slot->generation} << 32 | static_cast<uint32_t>(slot - frames_.begin());
  return Status::kOk;
}

// All or none.
Status HostContext::UploadAll(std::vector<TernaryMatrix> matrices, std::vector<MatrixId>* ids) {
  const std::lock_guard lock(device_mutex_);
  Status status = Status::kOk;
  try {
    ids->reserve(matrices.size());
    for (TernaryMatrix& matrix : matrices) {
      MatrixId id;
      status = device_->Upload(std::move(matrix), &id);
      if (status != Status::kOk) break;
      ids->push_back(id);
    }
  } catch (const std::bad_alloc&) {
    status = Status::kErrNoMem;
  }
  if (status == Status::kOk) return status;
  for (const MatrixId id : *ids) device_->Free(id);
  return status;
}

Status HostContext::Free(FrameHandle handle) {
  std::vector<MatrixId> planes;
  {
    const std::lock_guard lock(mutex_);
    Frame* frame = Find(handle);
    if (frame == nullptr) return Status::kErrStale;
    if (frame->facts.pins > 0) return Status::kErrBusy;
    planes = std::move(frame->planes);
    frame->facts = {};
    // A slot whose generations are used up is never given out again.
    frame->used = ++frame->generation == 0;
  }
  const std::lock_guard lock(device_mutex_);
  for (const MatrixId id : planes) device_->Free(id);
  return Status::kOk;
}

bool HostContext::IsResident(const Frame& frame) const {
  return std::all_of(frame.planes.begin(), frame.planes.end(), [&](MatrixId id) {
    return device_->residency(id).place != MatrixPlace::kOutside;
  });
}

// All planes or none. REQUIRES: both mutexes.
Status HostContext::SetPinned(const Frame& frame, bool pinned) {
  for (const MatrixId id : frame.planes) {
    const Status status = device_->SetPinned(id, pinned);
    if (status == Status::kOk) continue;
    for (const MatrixId undo : frame.planes) device_->SetPinned(undo, false);
    return status;
  }
  return Status::kOk;
}

Status HostContext::Pin(FrameHandle handle) {
  const std::scoped_lock lock(device_mutex_, mutex_);
  Frame* frame = Find(handle);
  if (frame == nullptr) return Status::kErrStale;
  if (frame->facts.pins == std::numeric_limits<uint32_t>::max()) return Status::kErrBusy;
  const Status status = frame->facts.pins == 0 ? SetPinned(*frame, true) : Status::kOk;
  if (status == Status::kOk) ++frame->facts.pins;
  return status;
}

Status HostContext::Unpin(FrameHandle handle) {
  const std::scoped_lock lock(device_mutex_, mutex_);
  Frame* frame = Find(handle);
  if (frame == nullptr) return Status::kErrStale;
  if (frame->facts.pins == 0) return Status::kErrAddr;
  return --frame->facts.pins == 0 ? SetPinned(*frame, false) : Status::kOk;
}

Status HostContext::Query(FrameHandle handle, FrameFacts* facts) {
  const std::scoped_lock lock(device_mutex_, mutex_);
  const Frame* frame = Find(handle);
  if (frame == nullptr) return Status::kErrStale;
  *facts = frame->facts;
  facts->resident = IsResident(*frame);
  return Status::kOk;
}

// REQUIRES: mutex_.
Status HostContext::Check(const Product& product, Checked* checked) const {
  const Frame* frame = Find(product.frame);
  if (frame == nullptr) return Status::kErrStale;
  if (product.x == nullptr || product.y == nullptr) return Status::kErrAddr;
  if (product.batch == 0 || product.batch > kMaxBatch) return Status::kErrAddr;
  const bool coded = product.kind != ActivationKind::kFloat;
  if (coded && product.x_scales == nullptr) return Status::kErrAddr;
  checked->product = product;
  checked->rows = frame->facts.rows;
  checked->cols = frame->facts.cols;
  checked->planes = frame->planes;
  const auto fits = [](uint64_t* stride, uint32_t least) {
    if (*stride == 0) *stride = least;
    return *stride >= least && *stride <= kMaxStride;
  };
  Product& op = checked->product;
  return fits(&op.x_stride, checked->cols) && fits(&op.y_stride, checked->rows) &&
                 fits(&op.x_scale_stride, ScalesPerToken(op.kind, checked->cols))
             ? Status::kOk
             : Status::kErrAddr;
}

Status HostContext::CheckAll(std::span<const Product> products,
                             std::vector<Checked>* checked) const {
  const std::lock_guard lock(mutex_);
  checked->resize(products.size());
  for (size_t i = 0; i < products.size(); ++i) {
    const Status status = Check(products[i], &(*checked)[i]);
    if (status != Status::kOk) return status;
  }
  return Status::kOk;
}

Status HostContext::Run(std::span<const Product> products) {
  std::vector<Checked> checked;
  const Status status = CheckAll(products, &checked);
  return status == Status::kOk ? Execute(checked) : status;
}

// As many tokens at a time as are encoded together; planes after the first are added.
Status HostContext::Execute(std::span<const Checked> products) {
  std::list<Input> inputs;
  std::vector<ProjectionOp> ops;
  uint32_t tokens_waiting = 0;
  const auto flush = [&] {
    const std::lock_guard lock(device_mutex_);
    const Status status = fabric::Execute(*device_, ops);
    ops.clear();
    inputs.clear();
    tokens_waiting = 0;
    return status;
  };
  for (const Checked& checked : products) {
    const Product& product = checked.product;
    for (uint32_t begin = 0; begin < product.batch; begin += kTokensPerPass) {
      const uint32_t tokens = std::min(kTokensPerPass, product.batch - begin);
      Input& input = inputs.emplace_back();
      if (!Encode(checked, begin, tokens, &input)) return Status::kErrPack;
      for (size_t plane = 0; plane < checked.planes.size(); ++plane) {
        ops.push_back({.matrix = checked.planes[plane],
                       .x = &input.view,
                       .y = product.y + begin * product.y_stride,
                       .y_stride = product.y_stride,
                       .epilogue = plane == 0 ? Epilogue::kStore : Epilogue::kAdd});
      }
      tokens_waiting += tokens;
      if (tokens_waiting < kTokensPerPass) continue;
      const Status status = flush();
      if (status != Status::kOk) return status;
    }
  }
  return ops.empty() ? Status::kOk : flush();
}

// False when a value is not finite.
bool HostContext::Encode(const Checked& checked, uint32_t begin, uint32_t tokens, Input* input) {
  const Product& product = checked.product;
  const size_t padded = PaddedCols(checked.cols);
  const bool floats = product.kind == ActivationKind::kFloat;
  const uint32_t per_token = ScalesPerToken(product.kind, checked.cols);
  input->codes = AlignedBuffer<int8_t>(tokens * padded);
  input->scales = AlignedBuffer<float>(size_t{tokens} * per_token);
  input->sums = AlignedBuffer<int32_t>(size_t{tokens} * per_token);
  for (uint32_t token = 0; token < tokens; ++token) {
    const uint64_t from = (uint64_t{begin} + token) * product.x_stride;
    int8_t* codes = input->codes.data() + token * padded;
    float* scales = input->scales.data() + size_t{token} * per_token;
    int32_t* sums = input->sums.data() + size_t{token} * per_token;
    if (floats) {
      const auto* x = static_cast<const float*>(product.x) + from;
      if (!QuantizeToken(x, checked.cols, padded, codes, scales, sums)) return false;
      continue;
    }
    std::memcpy(codes, static_cast<const int8_t*>(product.x) + from, checked.cols);
    std::memcpy(scales, product.x_scales + (uint64_t{begin} + token) * product.x_scale_stride,
                per_token * sizeof(float));
    const size_t segment = per_token == 1 ? checked.cols : kActivationBlock;
    for (uint32_t s = 0; s < per_token; ++s) {
      const size_t end = std::min<size_t>((s + 1) * segment, checked.cols);
      sums[s] = std::accumulate(codes + s * segment, codes + end, int32_t{0});
    }
  }
  input->view = {.kind = floats ? ActivationKind::kInt8Token : product.kind,
                 .tokens = tokens,
                 .cols = checked.cols,
                 .codes = input->codes.data(),
                 .code_stride = padded,
                 .scales = input->scales.data(),
                 .scale_stride = per_token,
                 .sums = input->sums.data()};
  return true;
}

Status HostContext::Submit(std::span<const Product> products, TaskTicket* ticket) {
  const auto task = std::make_shared<Task>();
  const Status status = CheckAll(products, &task->products);
  if (status != Status::kOk) return status;
  const std::lock_guard lock(mutex_);
  if (tasks_.size() >= options_.queue_depth) return Status::kErrBusy;
  queue_.push_back(task);
  tasks_.emplace(last_ticket_ + 1, task);
  *ticket = ++last_ticket_;
  changed_.notify_all();
  return Status::kOk;
}

Status HostContext::Poll(TaskTicket ticket) {
  const std::lock_guard lock(mutex_);
  const auto found = tasks_.find(ticket);
  if (found == tasks_.end()) return Status::kErrStale;
  const Status status = found->second->status;
  if (status != Status::kPending) tasks_.erase(found);
  return status;
}

Status HostContext::Wait(TaskTicket ticket, uint32_t timeout_ms) {
  std::unique_lock lock(mutex_);
  const auto found = tasks_.find(ticket);
  if (found == tasks_.end()) return Status::kErrStale;
  const std::shared_ptr<Task> task = found->second;
  const bool ended = changed_.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                                       [&] { return task->status != Status::kPending; });
  if (!ended) return Status::kErrTimeout;
  // Another thread may have been told meanwhile.
  return tasks_.erase(ticket) == 1 ? task->status : Status::kErrStale;
}

void HostContext::RunTasks() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const std::shared_ptr<Task> task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    Status status = Status::kErrNoMem;
    try {
      status = Execute(task->products);
    } catch (const std::bad_alloc&) {
    }
    lock.lock();
    task->status = status;
    changed_.notify_all();
  }
}

ContextFacts HostContext::facts() {
  const std::scoped_lock lock(device_mutex_, mutex_);
  ContextFacts facts{.threads = static_cast<uint32_t>(team_.size()),
                     .uploaded_bytes = uploaded_bytes_};
  for (const Frame& frame : frames_) {
    if (!frame.used) continue;
    ++facts.frames;
    if (IsResident(frame)) facts.pool_used += frame.facts.bytes;
  }
  return facts;
}

uint64_t HostContext::uploaded_bytes() const {
  const std::lock_guard lock(mutex_);
  return uploaded_bytes_;
}

}  // namespace fabric::host
