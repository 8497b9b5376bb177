#include "fabric/driver/ioctl_device.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

#include "fabric/matrix_store.h"

namespace fabric::driver {
namespace {

Status StatusOf(int result) {
  switch (-result) {
    case 0:
      return Status::kOk;
    case EBUSY:
      return Status::kErrBusy;
    case EILSEQ:
      return Status::kErrPack;
    case ENODEV:
      return Status::kErrGone;
    case ENOMEM:
      return Status::kErrNoMem;
    case ENOTSUP:
    case ENOTTY:
      return Status::kErrUnsupported;
    case ESTALE:
      return Status::kErrStale;
    case ETIMEDOUT:
      return Status::kErrTimeout;
    default:
      return Status::kErrAddr;
  }
}

uint64_t AddressOf(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); }

uint32_t WireScaleKind(ScaleKind kind) {
  switch (kind) {
    case ScaleKind::kTensor:
      return 0;
    case ScaleKind::kRow:
      return 1;
    case ScaleKind::kGroup:
      return 2;
  }
  return 0;
}

uint32_t WireActivation(ActivationKind kind) { return kind == ActivationKind::kInt8Token ? 1 : 2; }

}  // namespace

IoctlDevice::IoctlDevice(std::unique_ptr<CharacterDevice> driver, uint32_t watchdog_ms)
    : driver_(std::move(driver)), watchdog_ms_(watchdog_ms), info_(MakeRequest<InfoRequest>()) {
  const int result = driver_->Ioctl(Request::kGetInfo, &info_);
  const bool usable = info_.abi_version == kAbiVersion && info_.max_tokens > 0 &&
                      info_.max_gemvs > 0 && info_.queue_depth > 0;
  if (result != 0 || !usable) {
    throw std::runtime_error("The Fabric driver does not answer as version " +
                             std::to_string(kAbiVersion) + " of the interface does (status " +
                             std::string(StatusName(StatusOf(result))) + ", version " +
                             std::to_string(info_.abi_version) + ").");
  }
}

IoctlDevice::~IoctlDevice() {
  for (const Flight& flight : flights_) GiveUp(flight);
  for (const Frame& frame : frames_) {
    if (!frame.used) continue;
    Release(frame.trits);
    Release(frame.scales);
  }
}

Status IoctlDevice::Upload(Matrix matrix, MatrixId* id) {
  if (id == nullptr) return Status::kErrAddr;
  const TernaryMatrix* ternary = AsTernary(matrix);
  if (ternary == nullptr || uint64_t{ternary->rows()} * ternary->cols() > UINT32_MAX) {
    return Status::kErrUnsupported;
  }
  const TernaryFrame packed = ToFrame(*ternary, kPackingPt5);
  Frame frame{.used = true,
              .descriptor = packed.descriptor,
              .scale_kind = packed.scale_kind,
              .group = packed.group};
  Status status = Store(packed.bytes.data(), packed.bytes.size(), &frame.trits);
  if (status != Status::kOk) return status;
  status = Store(packed.scales.data(), packed.scales.size() * sizeof(float), &frame.scales);
  if (status != Status::kOk) {
    Release(frame.trits);
    return status;
  }
  frame.descriptor.base_addr = frame.trits;
  frame.descriptor.flags = kFrameRead | kFrameCritical;
  frame.descriptor.exec_hints = kKernelTgemm | kHintZeroSkip;
  auto slot = std::find_if(frames_.begin(), frames_.end(), [](const Frame& f) { return !f.used; });
  if (slot == frames_.end()) slot = frames_.emplace(frames_.end());
  frame.generation = slot->generation;
  *slot = frame;
  *id = {static_cast<uint32_t>(slot - frames_.begin()), frame.generation};
  return Status::kOk;
}

Status IoctlDevice::Store(const void* bytes, size_t size, uint64_t* handle) noexcept {
  auto alloc = MakeRequest<AllocRequest>();
  alloc.bytes = size;
  const int allocated = driver_->Ioctl(Request::kAlloc, &alloc);
  if (allocated != 0) return StatusOf(allocated);
  if (alloc.handle == 0) return Status::kErrAddr;
  auto copy = MakeRequest<MemcpyRequest>();
  copy.handle = alloc.handle;
  copy.user_address = AddressOf(bytes);
  copy.bytes = size;
  const int copied = driver_->Ioctl(Request::kMemcpyTo, &copy);
  if (copied != 0) {
    Release(alloc.handle);
    return StatusOf(copied);
  }
  *handle = alloc.handle;
  return Status::kOk;
}

void IoctlDevice::Release(uint64_t handle) noexcept {
  auto request = MakeRequest<HandleRequest>();
  request.handle = handle;
  driver_->Ioctl(Request::kFree, &request);
}

Status IoctlDevice::Free(MatrixId id) noexcept {
  if (Find(id) == nullptr) return Status::kErrStale;
  Frame& frame = frames_[id.index];
  Release(frame.trits);
  Release(frame.scales);
  frame.used = false;
  // A slot whose generations are used up is never given out again.
  if (++frame.generation == 0) frame.used = true;
  return Status::kOk;
}

const IoctlDevice::Frame* IoctlDevice::Find(MatrixId id) const noexcept {
  if (id.generation == 0 || id.index >= frames_.size()) return nullptr;
  const Frame& frame = frames_[id.index];
  return frame.used && frame.generation == id.generation ? &frame : nullptr;
}

Status IoctlDevice::Check(const ProjectionOp& op) const noexcept {
  const Frame* frame = Find(op.matrix);
  if (frame == nullptr) return Status::kErrStale;
  if (op.x == nullptr) return Status::kErrAddr;
  if (op.x->kind == ActivationKind::kFloat || op.epilogue != Epilogue::kStore ||
      op.bias != nullptr) {
    return Status::kErrUnsupported;
  }
  const FrameDescriptor& shape = frame->descriptor;
  if (op.x->cols != shape.cols) return Status::kErrAddr;
  if (op.x->tokens > 0 && (op.y == nullptr || op.y_stride < shape.rows)) return Status::kErrAddr;
  return Status::kOk;
}

GemvRequest IoctlDevice::GemvOf(const ProjectionOp& op, uint32_t token_begin,
                                uint32_t tokens) const noexcept {
  const Frame& frame = *Find(op.matrix);
  const ActivationView& x = *op.x;
  const size_t scale_stride = x.kind == ActivationKind::kInt8Token ? 1 : x.scale_stride;
  auto gemv = MakeRequest<GemvRequest>();
  gemv.frame = frame.descriptor;
  gemv.scales_handle = frame.scales;
  gemv.scale_kind = WireScaleKind(frame.scale_kind);
  gemv.group = frame.group;
  gemv.activation = WireActivation(x.kind);
  gemv.tokens = tokens;
  gemv.codes_address = AddressOf(x.codes + token_begin * x.code_stride);
  gemv.code_stride = x.code_stride;
  gemv.x_scales_address = AddressOf(x.scales + token_begin * scale_stride);
  gemv.x_scale_stride = scale_stride;
  gemv.y_address = AddressOf(op.y + token_begin * op.y_stride);
  gemv.y_stride = op.y_stride;
  return gemv;
}

Status IoctlDevice::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  if (ticket == nullptr) return Status::kErrAddr;
  for (const ProjectionOp& op : ops) {
    const Status status = Check(op);
    if (status != Status::kOk) return status;
  }
  Flight flight;
  Status status = Status::kOk;
  try {
    flight.driver_tickets.reserve(info_.queue_depth);
    flights_.reserve(flights_.size() + 1);
    status = SendAll(ops, &flight);
  } catch (const std::bad_alloc&) {
    status = Status::kErrNoMem;
  }
  if (status != Status::kOk) {
    GiveUp(flight);
    return status;
  }
  *ticket = flight.ticket = ++last_ticket_;
  flights_.push_back(std::move(flight));
  return Status::kOk;
}

Status IoctlDevice::SendAll(std::span<const ProjectionOp> ops, Flight* flight) {
  std::vector<GemvRequest> gemvs;
  for (const ProjectionOp& op : ops) {
    for (uint32_t token = 0; token < op.x->tokens; token += info_.max_tokens) {
      gemvs.push_back(GemvOf(op, token, std::min(info_.max_tokens, op.x->tokens - token)));
      if (gemvs.size() < info_.max_gemvs) continue;
      const Status status = Send(gemvs, flight);
      if (status != Status::kOk) return status;
      gemvs.clear();
    }
  }
  return gemvs.empty() ? Status::kOk : Send(gemvs, flight);
}

// One kSubmit. A Submit() with more of them than the driver's queue holds waits for the first ones.
Status IoctlDevice::Send(std::span<const GemvRequest> gemvs, Flight* flight) noexcept {
  if (flight->driver_tickets.size() >= info_.queue_depth) {
    const Status status = WaitForFirst(flight);
    if (status != Status::kOk) return status;
  }
  auto submit = MakeRequest<SubmitRequest>();
  submit.gemvs_address = AddressOf(gemvs.data());
  submit.count = static_cast<uint32_t>(gemvs.size());
  const int submitted = driver_->Ioctl(Request::kSubmit, &submit);
  if (submitted != 0) return StatusOf(submitted);
  flight->driver_tickets.push_back(submit.ticket);
  return Status::kOk;
}

Status IoctlDevice::Wait(Ticket ticket) noexcept {
  const auto found = std::find_if(flights_.begin(), flights_.end(),
                                  [&](const Flight& flight) { return flight.ticket == ticket; });
  if (found == flights_.end()) return Status::kErrAddr;
  Flight flight = std::move(*found);
  flights_.erase(found);
  while (!flight.driver_tickets.empty()) {
    const Status status = WaitForFirst(&flight);
    if (status == Status::kOk) continue;
    GiveUp(flight);
    return status;
  }
  // So that they are known should the driver go.
  ReadCounters();
  return Status::kOk;
}

Status IoctlDevice::WaitForFirst(Flight* flight) noexcept {
  auto wait = MakeRequest<WaitRequest>();
  wait.ticket = flight->driver_tickets.front();
  wait.timeout_ms = watchdog_ms_;
  flight->driver_tickets.erase(flight->driver_tickets.begin());
  const int result = driver_->Ioctl(Request::kWait, &wait);
  if (result != 0) return StatusOf(result);
  const bool complete = wait.state == static_cast<uint32_t>(TaskState::kComplete);
  return complete ? Status::kOk : Status::kErrAddr;
}

// Takes the tasks out of the driver's queue; what they would have written is nobody's any more.
void IoctlDevice::GiveUp(const Flight& flight) noexcept {
  for (const uint64_t ticket : flight.driver_tickets) {
    auto wait = MakeRequest<WaitRequest>();
    wait.ticket = ticket;
    driver_->Ioctl(Request::kWait, &wait);
  }
}

void IoctlDevice::ReadCounters() const noexcept {
  auto metrics = MakeRequest<MetricsRequest>();
  const int result = driver_->Ioctl(Request::kGetMetrics, &metrics);
  if (result != 0) return;
  const std::lock_guard lock(counters_mutex_);
  counters_.projections = metrics.projections;
  counters_.total_ops = metrics.total_ops;
  counters_.active_ops = metrics.active_ops;
  counters_.weight_bytes = metrics.weight_bytes;
  counters_.mem_reads = metrics.mem_reads;
  counters_.mem_writes = metrics.mem_writes;
  counters_.broadcasts = metrics.broadcasts;
  counters_.residency_misses = metrics.residency_misses;
  counters_.lanes_used = metrics.lanes_used;
  counters_.cycles_gated = metrics.cycles_gated;
  counters_.cycles_column_skip = metrics.cycles_column_skip;
  counters_.fabric_cost = metrics.fabric_cost;
  counters_.energy_picojoules = metrics.energy_picojoules;
  counters_.fabric_seconds = metrics.busy_seconds;
}

DeviceCounters IoctlDevice::Counters() const noexcept {
  ReadCounters();
  const std::lock_guard lock(counters_mutex_);
  return counters_;
}

size_t IoctlDevice::resident_bytes() const noexcept {
  auto info = MakeRequest<InfoRequest>();
  return driver_->Ioctl(Request::kGetInfo, &info) == 0 ? info.memory_used : 0;
}

}  // namespace fabric::driver
