#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "fabric/device_decorator.h"

namespace fabric {

// Passes everything on to a device, and adds up the squares of what comes into each matrix, column
// by column: which columns matter, and which hardly ever see anything.
//
// Input counts as the device reads it: codes times their scales, rotated where the model rotates.
//
// Threads, errors: as fabric::Device.
class InputRecorder final : public DeviceDecorator {
 public:
  struct Squares {
    std::vector<double> sums;  // [cols], over all tokens; empty before the first one
    uint64_t tokens = 0;
  };

  explicit InputRecorder(std::unique_ptr<Device> device) : DeviceDecorator(std::move(device)) {}

  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;

  // Of a matrix that has not been freed.
  const Squares& Of(MatrixId id) const;

 private:
  void Add(const ProjectionOp& op);

  std::vector<Squares> squares_;  // by index of the handle
};

}  // namespace fabric
