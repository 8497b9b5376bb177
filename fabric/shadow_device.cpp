#include "fabric/shadow_device.h"

#include <algorithm>
#include <array>
#include <bit>
#include <new>
#include <numeric>
#include <utility>

#include "fabric/sparse/mix.h"

namespace fabric {

ShadowDevice::ShadowDevice(std::unique_ptr<Device> device, const kernels::KernelTable& kernels,
                           uint32_t interval)
    : DeviceDecorator(std::move(device)), kernels_(kernels), interval_(interval) {}

void ShadowDevice::Note(MatrixId id, std::shared_ptr<const PlaneMatrix> planes) {
  if (id.index >= planes_.size()) planes_.resize(size_t{id.index} + 1);
  planes_[id.index] = std::move(planes);
}

const PlaneMatrix* ShadowDevice::PlanesOf(MatrixId id) const noexcept {
  return id.index < planes_.size() ? planes_[id.index].get() : nullptr;
}

Status ShadowDevice::Upload(Matrix matrix, MatrixId* id) {
  const auto* shared = std::get_if<std::shared_ptr<const PlaneMatrix>>(&matrix);
  auto planes = shared == nullptr ? nullptr : *shared;
  const Status status = device_->Upload(std::move(matrix), id);
  if (status == Status::kOk) Note(*id, std::move(planes));
  return status;
}

Status ShadowDevice::UploadToHost(Matrix matrix, MatrixId* id) {
  const Status status = device_->UploadToHost(std::move(matrix), id);
  if (status == Status::kOk) Note(*id, nullptr);
  return status;
}

Status ShadowDevice::Free(MatrixId id) noexcept {
  const Status status = device_->Free(id);
  if (status == Status::kOk && id.index < planes_.size()) planes_[id.index].reset();
  return status;
}

Status ShadowDevice::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  const Status status = device_->Submit(ops, ticket);
  if (status != Status::kOk) return status;
  for (const ProjectionOp& op : ops) {
    if (PlanesOf(op.matrix) == nullptr || op.x->tokens == 0) continue;
    if (sparse::Mix(++products_) % interval_ != 0) continue;
    try {
      pending_.push_back({*ticket, op});
    } catch (const std::bad_alloc&) {
      return Status::kOk;  // a comparison less
    }
  }
  return Status::kOk;
}

// What an op points to stays until Wait() is over, so this is the place to run it again.
Status ShadowDevice::Wait(Ticket ticket) noexcept {
  const Status status = device_->Wait(ticket);
  for (const Pending& pending : pending_) {
    if (pending.ticket != ticket || status != Status::kOk) continue;
    try {
      Compare(pending.op);
    } catch (const std::bad_alloc&) {
      break;
    }
  }
  std::erase_if(pending_, [&](const Pending& pending) { return pending.ticket == ticket; });
  return status;
}

void ShadowDevice::Compare(const ProjectionOp& op) {
  const PlaneMatrix& planes = *PlanesOf(op.matrix);
  const auto token = static_cast<uint32_t>(products_ % op.x->tokens);
  ActivationView one = *op.x;
  one.tokens = 1;
  one.codes += token * one.code_stride;
  one.scales += token * one.scale_stride;
  one.sums += token * one.scale_stride;
  if (y_.size() < planes.rows()) y_.resize(planes.rows());
  const ProjectionOp plain{
      .matrix = op.matrix, .x = &one, .y = y_.data(), .y_stride = planes.rows()};
  if (Execute(*device_, {&plain, 1}) != Status::kOk) return;

  std::array<uint32_t, PlaneMatrix::kShadowRows> rows;
  std::iota(rows.begin(), rows.end(), 0U);
  std::array<float, PlaneMatrix::kShadowRows> exact = {};
  kernels::QuantizedTile tile = planes.shadow().Tile();
  tile.rows = rows.data();
  tile.row_count = planes.shadow().rows();
  tile.tokens = 1;
  tile.codes = one.codes;
  tile.code_stride = one.code_stride;
  tile.x_scales = one.scales;
  tile.x_scale_stride = one.scale_stride;
  tile.out = exact.data();
  tile.out_stride = exact.size();
  kernels_.quantized(tile);

  DeviceCounters counted;
  for (uint32_t i = 0; i < tile.row_count; ++i) {
    const float got = y_[planes.shadow_rows()[i]];
    const double missed = double{exact[i]} - got;
    ++counted.shadow_rows;
    counted.shadow_differing_rows +=
        std::bit_cast<uint32_t>(got) != std::bit_cast<uint32_t>(exact[i]) ? 1 : 0;
    counted.shadow_squared_error += missed * missed;
    counted.shadow_squared_norm += double{exact[i]} * exact[i];
  }
  book_.Add(counted);
}

DeviceCounters ShadowDevice::Counters() const noexcept {
  DeviceCounters sum = device_->Counters();
  AddCounters(book_.Read(), &sum);
  return sum;
}

}  // namespace fabric
