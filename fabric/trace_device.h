#pragma once

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "fabric/device_decorator.h"

namespace fabric {

// Passes everything on to a device and writes a line per op to a file: tab-separated, appended,
// with a line of names (docs/fabric.md has the columns). Times and faults are those of the whole
// Submit() with its Wait().
//
// Threads: as fabric::Device.
class TraceDevice final : public DeviceDecorator {
 public:
  // Errors: std::runtime_error when the file cannot be opened.
  TraceDevice(std::unique_ptr<Device> device, const std::string& path);

  Status Upload(Matrix matrix, MatrixId* id) override;
  Status UploadToHost(Matrix matrix, MatrixId* id) override;
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;

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

  std::ofstream file_;
  std::vector<Shape> shapes_;  // by index of the handle; a freed one keeps its last shape
  uint64_t submissions_ = 0;
};

}  // namespace fabric
