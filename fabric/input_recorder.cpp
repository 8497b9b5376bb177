#include "fabric/input_recorder.h"

#include <new>

namespace fabric {
namespace {

float ValueOf(const ActivationView& x, uint32_t token, uint32_t col) {
  if (x.kind == ActivationKind::kFloat) return x.values[token * x.value_stride + col];
  const auto code = static_cast<float>(x.codes[token * x.code_stride + col]);
  if (x.kind == ActivationKind::kInt8Token) return code / x.scales[token];
  return code * x.scales[token * x.scale_stride + col / kActivationBlock];
}

}  // namespace

Status InputRecorder::Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept {
  const Status status = device_->Submit(ops, ticket);
  if (status != Status::kOk) return status;
  try {
    for (const ProjectionOp& op : ops) Add(op);
  } catch (const std::bad_alloc&) {
    return Status::kErrNoMem;
  }
  return status;
}

void InputRecorder::Add(const ProjectionOp& op) {
  const ActivationView& x = *op.x;
  if (op.matrix.index >= squares_.size()) squares_.resize(size_t{op.matrix.index} + 1);
  Squares& squares = squares_[op.matrix.index];
  squares.sums.resize(x.cols);
  for (uint32_t token = 0; token < x.tokens; ++token) {
    for (uint32_t col = 0; col < x.cols; ++col) {
      const double value = ValueOf(x, token, col);
      squares.sums[col] += value * value;
    }
  }
  squares.tokens += x.tokens;
}

const InputRecorder::Squares& InputRecorder::Of(MatrixId id) const {
  static const Squares kNone;
  return id.index < squares_.size() ? squares_[id.index] : kNone;
}

}  // namespace fabric
