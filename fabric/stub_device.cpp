#include "fabric/stub_device.h"

#include <algorithm>
#include <new>
#include <utility>

#include "fabric/kernels/kernel_table.h"
#include "fabric/matrix_store.h"

namespace fabric {
namespace {

// So that a handle of the stub is never taken for one of the device inside, or the other way round.
constexpr uint32_t kFirstIndex = 1000;

}  // namespace

StubDevice::StubDevice(const FabricOptions& options)
    : arrays_("reference", options, kernels::SupportedKernels().back(), nullptr) {}

std::optional<MatrixId> StubDevice::Route(MatrixId id) const noexcept {
  if (id.index < kFirstIndex) return std::nullopt;
  const MatrixId inner{id.index - kFirstIndex, id.generation};
  return arrays_.store().Find(inner) == nullptr ? std::nullopt : std::optional(inner);
}

Status StubDevice::Upload(Matrix matrix, MatrixId* id) {
  if (id == nullptr) return Status::kErrAddr;
  if (!IsTrits(matrix)) return Status::kErrUnsupported;
  const Status status = arrays_.Upload(std::move(matrix), id);
  if (status == Status::kOk) id->index += kFirstIndex;
  return status;
}

Status StubDevice::Free(MatrixId id) noexcept {
  const std::optional<MatrixId> inner = Route(id);
  return inner ? arrays_.Free(*inner) : Status::kErrStale;
}

Status StubDevice::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  if (ticket == nullptr) return Status::kErrAddr;
  try {
    Flight flight{.ops = {ops.begin(), ops.end()}};
    for (ProjectionOp& op : flight.ops) {
      const std::optional<MatrixId> inner = Route(op.matrix);
      if (!inner) return Status::kErrStale;
      if (op.epilogue != Epilogue::kStore || op.bias != nullptr) return Status::kErrUnsupported;
      op.matrix = *inner;
    }
    const Status status = CheckOps(arrays_.store(), flight.ops);
    if (status != Status::kOk) return status;
    flight.ticket = last_ticket_ + 1;
    flights_.push_back(std::move(flight));
  } catch (const std::bad_alloc&) {
    return Status::kErrNoMem;
  }
  *ticket = ++last_ticket_;
  return Status::kOk;
}

Status StubDevice::Wait(Ticket ticket) noexcept {
  const auto found = std::find_if(flights_.begin(), flights_.end(),
                                  [&](const Flight& flight) { return flight.ticket == ticket; });
  if (found == flights_.end()) return Status::kErrAddr;
  const Flight flight = std::move(*found);
  flights_.erase(found);
  return Execute(arrays_, flight.ops);
}

}  // namespace fabric
