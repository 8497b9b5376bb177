#include "fabric/trace_device.h"

#include <cerrno>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "fabric/matrix_store.h"

namespace fabric {
namespace {

const char* KindOf(const Matrix& matrix) {
  if (AsTernary(matrix) != nullptr) return "ternary";
  if (AsPlanes(matrix) != nullptr) return "planes";
  return AsDense(matrix) != nullptr ? "dense" : "quantized";
}

const char* NameOf(Epilogue epilogue) {
  constexpr const char* kNames[] = {"store", "add", "relu_squared_mul", "silu_mul"};
  return kNames[static_cast<size_t>(epilogue)];
}

const char* NameOf(ActivationKind kind) {
  constexpr const char* kNames[] = {"float", "int8_token", "int8_block"};
  return kNames[static_cast<size_t>(kind)];
}

}  // namespace

TraceDevice::TraceDevice(std::unique_ptr<Device> device, const std::string& path)
    : DeviceDecorator(std::move(device)), file_(path, std::ios::app) {
  if (!file_) {
    throw std::runtime_error("The file \"" + path + "\" of --fabric-trace cannot be written: " +
                             std::strerror(errno) + ".");
  }
  file_ << "submit\top\tdevice\tmatrix\tkind\trows\tcols\ttokens\tactivation\tepilogue\tstatus"
           "\tmicroseconds\tfaults\thost_fallbacks\n";
}

TraceDevice::Shape TraceDevice::ShapeFor(const Matrix& matrix) {
  // A null pointer in place of a matrix is for the device to refuse.
  if (!ShapeOf(matrix)) return {};
  return {KindOf(matrix), RowsOf(matrix), ColsOf(matrix)};
}

void TraceDevice::Note(MatrixId id, const Shape& shape) {
  if (id.index >= shapes_.size()) shapes_.resize(size_t{id.index} + 1);
  shapes_[id.index] = shape;
}

Status TraceDevice::Upload(Matrix matrix, MatrixId* id) {
  const Shape shape = ShapeFor(matrix);
  const Status status = device_->Upload(std::move(matrix), id);
  if (status == Status::kOk) Note(*id, shape);
  return status;
}

Status TraceDevice::UploadToHost(Matrix matrix, MatrixId* id) {
  const Shape shape = ShapeFor(matrix);
  const Status status = device_->UploadToHost(std::move(matrix), id);
  if (status == Status::kOk) Note(*id, shape);
  return status;
}

Status TraceDevice::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  const DeviceCounters before = device_->Counters();
  const auto start = std::chrono::steady_clock::now();
  Status status = device_->Submit(ops, ticket);
  if (status == Status::kOk) status = device_->Wait(*ticket);
  const std::chrono::duration<double, std::micro> elapsed =
      std::chrono::steady_clock::now() - start;
  const DeviceCounters after = device_->Counters();
  ++submissions_;
  for (size_t i = 0; i < ops.size(); ++i) {
    Write(ops[i], i, status, elapsed.count(), before, after);
  }
  return status;
}

void TraceDevice::Write(const ProjectionOp& op, size_t index, Status status, double microseconds,
                        const DeviceCounters& before, const DeviceCounters& after) {
  const Shape shape = op.matrix.index < shapes_.size() ? shapes_[op.matrix.index] : Shape{};
  file_ << submissions_ << '\t' << index << '\t' << name() << '\t' << op.matrix.index << '\t'
        << shape.kind << '\t' << shape.rows << '\t' << shape.cols << '\t'
        << (op.x == nullptr ? 0 : op.x->tokens) << '\t'
        << (op.x == nullptr ? "?" : NameOf(op.x->kind)) << '\t' << NameOf(op.epilogue) << '\t'
        << StatusName(status) << '\t' << microseconds << '\t'
        << after.TotalFaults() - before.TotalFaults() << '\t'
        << after.host_fallbacks - before.host_fallbacks << '\n';
}

}  // namespace fabric
