#include "fabric/supervised_device.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <new>
#include <utility>

#include "fabric/matrix_store.h"
#include "fabric/projection.h"
#include "fabric/sparse/mix.h"

namespace fabric {
namespace {

// One token of x, as a batch of its own.
ActivationView TokenOf(const ActivationView& x, uint32_t token) {
  ActivationView one = x;
  const size_t scale = x.kind == ActivationKind::kInt8Token ? token : token * x.scale_stride;
  one.tokens = 1;
  one.codes += token * x.code_stride;
  one.scales += scale;
  one.sums += scale;
  return one;
}

// Which NaN a device gives is not defined.
bool SameResults(std::span<const float> a, std::span<const float> b) {
  return std::equal(a.begin(), a.end(), b.begin(), [](float one, float other) {
    return std::bit_cast<uint32_t>(one) == std::bit_cast<uint32_t>(other) ||
           (std::isnan(one) && std::isnan(other));
  });
}

}  // namespace

SupervisedDevice::SupervisedDevice(std::unique_ptr<Device> device,
                                   std::unique_ptr<sim::SimDevice> host,
                                   const kernels::KernelTable& kernels, double check_rate)
    : DeviceDecorator(std::move(device)),
      host_(std::move(host)),
      kernels_(kernels),
      check_rate_(check_rate) {}

LayoutChoice SupervisedDevice::PreferredLayout(const TernaryUse& use) {
  return host_->PreferredLayout(use);
}

std::string SupervisedDevice::LayoutRule() const { return host_->LayoutRule(); }

Status SupervisedDevice::UploadToHost(Matrix matrix, MatrixId* id) {
  const Status status = host_->UploadToHost(std::move(matrix), id);
  if (status != Status::kOk) return status;
  if (id->index >= routes_.size()) routes_.resize(size_t{id->index} + 1);
  routes_[id->index] = {};
  return Status::kOk;
}

Status SupervisedDevice::Upload(Matrix matrix, MatrixId* id) {
  const Status status = host_->Upload(std::move(matrix), id);
  if (status != Status::kOk) return status;
  if (id->index >= routes_.size()) routes_.resize(size_t{id->index} + 1);
  Route& route = routes_[id->index];
  route = {};
  const Matrix& on_host = *host_->store().Find(*id);
  if (!IsTrits(on_host) || !in_service()) return Status::kOk;
  const TernaryMatrix* ternary = AsTernary(on_host);
  MatrixId on_device;
  const Status taken =
      ternary != nullptr
          ? device_->Upload(CopyTernary(*ternary, ternary->layout()), &on_device)
          : device_->Upload(std::get<std::shared_ptr<const PlaneMatrix>>(on_host), &on_device);
  if (taken == Status::kOk) {
    route.on_device = on_device;
    if (check_rate_ > 0 && ternary != nullptr) route.check = std::make_unique<RowCheck>(*ternary);
  } else if (taken != Status::kErrUnsupported) {
    NoteFault(FaultKindOf(taken));
  }
  return Status::kOk;
}

Status SupervisedDevice::Free(MatrixId id) noexcept {
  const Status status = host_->Free(id);
  if (status != Status::kOk) return status;
  Route& route = routes_[id.index];
  if (route.on_device) device_->Free(*route.on_device);
  route = {};
  return Status::kOk;
}

Status SupervisedDevice::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  Status status = ticket == nullptr ? Status::kErrAddr : CheckOps(host_->store(), ops);
  if (status == Status::kOk) {
    try {
      status = Run(ops);
    } catch (const std::bad_alloc&) {
      status = Status::kErrNoMem;
    }
  }
  if (status != Status::kOk) {
    book_.CountFault(status);
    return status;
  }
  *ticket = ++last_ticket_;
  return Status::kOk;
}

// Submit() returns after the work is done, so every ticket that it gave out is complete.
Status SupervisedDevice::Wait(Ticket ticket) noexcept {
  return ticket >= 1 && ticket <= last_ticket_ ? Status::kOk : Status::kErrAddr;
}

// Runs of consecutive ops that go the same way, in order. Ops on the device read codes and never
// another op's output, so that those of one run may be under way together.
Status SupervisedDevice::Run(std::span<const ProjectionOp> ops) {
  size_t run_begin = 0;
  bool run_on_device = false;
  for (size_t begin = 0; begin <= ops.size();) {
    size_t end = begin + 1;
    while (end < ops.size() && IsChained(ops[end].epilogue)) ++end;
    const bool last = begin == ops.size();
    const bool on_device = !last && OnDevice(ops.subspan(begin, end - begin));
    if (begin > run_begin && (last || on_device != run_on_device)) {
      const auto run = ops.subspan(run_begin, begin - run_begin);
      const Status status = run_on_device ? RunOnDevice(run) : Execute(*host_, run);
      if (status != Status::kOk) return status;
      run_begin = begin;
    }
    run_on_device = on_device;
    begin = end;
  }
  return Status::kOk;
}

bool SupervisedDevice::OnDevice(std::span<const ProjectionOp> chain) const {
  if (!in_service()) return false;
  for (const ProjectionOp& op : chain) {
    if (!routes_[op.matrix.index].on_device || op.x->tokens == 0) return false;
  }
  return true;
}

Status SupervisedDevice::RunOnDevice(std::span<const ProjectionOp> ops) {
  FaultKind fault{};
  for (int attempt = 0; attempt < 2 && in_service(); ++attempt) {
    if (Attempt(ops, &fault) == Status::kOk) {
      failures_in_a_row_ = 0;
      Finish(ops);
      return Status::kOk;
    }
    NoteFault(fault);
  }
  if (++failures_in_a_row_ >= kFaultsInARow) in_service_.store(false);
  book_.Add({.host_fallbacks = ops.size()});
  return Execute(*host_, ops);
}

void SupervisedDevice::NoteFault(FaultKind fault) {
  DeviceCounters counted;
  counted.CountFault(fault);
  book_.Add(counted);
  if (fault == FaultKind::kDisconnected) in_service_.store(false);
}

// Plain products of all ops in staging memory, verified.
Status SupervisedDevice::Attempt(std::span<const ProjectionOp> ops, FaultKind* fault) {
  size_t floats = 0;
  for (const ProjectionOp& op : ops) {
    floats += size_t{op.x->tokens} * RowsOf(*host_->store().Find(op.matrix));
  }
  if (staging_.size() < floats) staging_.resize(floats);
  staged_.clear();
  float* y = staging_.data();
  for (const ProjectionOp& op : ops) {
    const uint32_t rows = RowsOf(*host_->store().Find(op.matrix));
    staged_.push_back(
        {.matrix = *routes_[op.matrix.index].on_device, .x = op.x, .y = y, .y_stride = rows});
    y += size_t{op.x->tokens} * rows;
  }
  const Status status = Execute(*device_, staged_);
  if (status != Status::kOk) {
    *fault = FaultKindOf(status);
    return status;
  }
  if (Verified(ops)) return Status::kOk;
  *fault = FaultKind::kCorrupt;
  return Status::kErrPack;
}

bool SupervisedDevice::Verified(std::span<const ProjectionOp> ops) {
  for (size_t i = 0; i < ops.size(); ++i) {
    for (uint32_t token = 0; token < ops[i].x->tokens; ++token) {
      if (Sampled() && !VerifyToken(ops[i], token, staged_[i].y + token * staged_[i].y_stride)) {
        return false;
      }
    }
  }
  return true;
}

bool SupervisedDevice::Sampled() {
  if (check_rate_ >= 1) return true;
  return check_rate_ > 0 &&
         static_cast<double>(sparse::Mix(++results_) >> 11) * 0x1p-53 < check_rate_;
}

bool SupervisedDevice::VerifyToken(const ProjectionOp& op, uint32_t token, const float* y) {
  const Matrix& matrix = *host_->store().Find(op.matrix);
  const uint32_t rows = RowsOf(matrix);
  if (const RowCheck* check = routes_[op.matrix.index].check.get()) {
    const RowCheck::Verdict verdict = check->Check(*AsTernary(matrix), *op.x, token, {y, rows});
    if (verdict != RowCheck::Verdict::kCannotTell) return verdict == RowCheck::Verdict::kRight;
  }
  if (recomputed_.size() < rows) recomputed_.resize(rows);
  const ActivationView one = TokenOf(*op.x, token);
  const ProjectionOp again{
      .matrix = op.matrix, .x = &one, .y = recomputed_.data(), .y_stride = rows};
  return Execute(*host_, {&again, 1}) == Status::kOk &&
         SameResults({y, rows}, {recomputed_.data(), rows});
}

// What a kernel does after its sums, in the order of the ops.
void SupervisedDevice::Finish(std::span<const ProjectionOp> ops) noexcept {
  for (size_t i = 0; i < ops.size(); ++i) {
    const auto rows = static_cast<uint32_t>(staged_[i].y_stride);
    for (uint32_t token = 0; token < ops[i].x->tokens; ++token) {
      kernels_.floats.apply_epilogue(TileEpilogueOf(ops[i].epilogue),
                                     staged_[i].y + size_t{token} * rows, ops[i].bias, rows,
                                     ops[i].y + token * ops[i].y_stride);
    }
  }
}

DeviceCounters SupervisedDevice::Counters() const noexcept {
  DeviceCounters host = host_->Counters();
  host.host_seconds += std::exchange(host.fabric_seconds, 0.0);
  DeviceCounters sum = book_.Read();
  AddCounters(host, &sum);
  AddCounters(device_->Counters(), &sum);
  return sum;
}

Residency SupervisedDevice::residency(MatrixId id) const noexcept {
  const bool known = host_->store().Find(id) != nullptr;
  if (!known || !routes_[id.index].on_device) return {.place = MatrixPlace::kHost};
  return device_->residency(*routes_[id.index].on_device);
}

Status SupervisedDevice::SetPinned(MatrixId id, bool pinned) noexcept {
  if (host_->store().Find(id) == nullptr) return Status::kErrStale;
  const std::optional<MatrixId>& on_device = routes_[id.index].on_device;
  return on_device ? device_->SetPinned(*on_device, pinned) : Status::kOk;
}

size_t SupervisedDevice::resident_bytes() const noexcept {
  return host_->resident_bytes() + device_->resident_bytes();
}

}  // namespace fabric
