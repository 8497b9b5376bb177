#pragma once

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "fabric/device.h"

namespace fabric {

// Passes everything on to a device and writes a line per op to a file: tab-separated, appended,
// with a line of names (docs/fabric.md has the columns). Times and faults are those of the whole
// Submit() with its Wait().
//
// Threads: as fabric::Device.
class TraceDevice final : public Device {
 public:
  // Errors: std::runtime_error when the file cannot be opened.
  TraceDevice(std::unique_ptr<Device> device, const std::string& path);

  std::string_view name() const override { return device_->name(); }
  LayoutChoice PreferredLayout(const TernaryUse& use) override {
    return device_->PreferredLayout(use);
  }
  Status Upload(Matrix matrix, MatrixId* id) override;
  Status UploadToHost(Matrix matrix, MatrixId* id) override;
  Status Free(MatrixId id) noexcept override { return device_->Free(id); }
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;
  Status Wait(Ticket ticket) noexcept override { return device_->Wait(ticket); }
  DeviceCounters Counters() const noexcept override { return device_->Counters(); }
  size_t resident_bytes() const noexcept override { return device_->resident_bytes(); }
  PoolFacts pool() const noexcept override { return device_->pool(); }
  bool IsResident(MatrixId id) const noexcept override { return device_->IsResident(id); }
  Status SetPinned(MatrixId id, bool pinned) noexcept override {
    return device_->SetPinned(id, pinned);
  }
  bool in_service() const noexcept override { return device_->in_service(); }

 private:
  struct Shape {
    const char* kind = "?";
    uint32_t rows = 0;
    uint32_t cols = 0;
  };
  static Shape ShapeFor(const Matrix& matrix);
  void Note(MatrixId id, const Shape& shape);
  void Write(const ProjectionOp& op, size_t index, Status status, double microseconds,
             const DeviceCounters& before, const DeviceCounters& after);

  std::unique_ptr<Device> device_;
  std::ofstream file_;
  std::vector<Shape> shapes_;  // by index of the handle; a freed one keeps its last shape
  uint64_t submissions_ = 0;
};

}  // namespace fabric
