#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "fabric/device.h"

namespace fabric {

// A device in front of another one: what it does not do itself is the other one's.
class DeviceDecorator : public Device {
 public:
  std::string_view name() const override { return device_->name(); }
  LayoutChoice PreferredLayout(const TernaryUse& use) override {
    return device_->PreferredLayout(use);
  }
  std::string LayoutRule() const override { return device_->LayoutRule(); }
  Status Upload(Matrix matrix, MatrixId* id) override {
    return device_->Upload(std::move(matrix), id);
  }
  Status UploadToHost(Matrix matrix, MatrixId* id) override {
    return device_->UploadToHost(std::move(matrix), id);
  }
  Status Free(MatrixId id) noexcept override { return device_->Free(id); }
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override {
    return device_->Submit(ops, ticket);
  }
  Status Wait(Ticket ticket) noexcept override { return device_->Wait(ticket); }
  DeviceCounters Counters() const noexcept override { return device_->Counters(); }
  size_t resident_bytes() const noexcept override { return device_->resident_bytes(); }
  PoolFacts pool() const noexcept override { return device_->pool(); }
  Residency residency(MatrixId id) const noexcept override { return device_->residency(id); }
  void Settle() noexcept override { device_->Settle(); }
  Status SetPinned(MatrixId id, bool pinned) noexcept override {
    return device_->SetPinned(id, pinned);
  }
  bool in_service() const noexcept override { return device_->in_service(); }

 protected:
  explicit DeviceDecorator(std::unique_ptr<Device> device) : device_(std::move(device)) {}

  std::unique_ptr<Device> device_;
};

}  // namespace fabric
