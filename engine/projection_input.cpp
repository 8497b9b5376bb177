#include "engine/projection_input.h"

#include <cassert>

#include "fabric/vector_ops.h"

namespace engine {
namespace {

using fabric::ActivationKind;

size_t PaddedCols(size_t cols) {
  return (cols + fabric::kCodePadding - 1) / fabric::kCodePadding * fabric::kCodePadding;
}

size_t BlocksOf(size_t cols) {
  return (cols + fabric::kActivationBlock - 1) / fabric::kActivationBlock;
}

}  // namespace

ProjectionInput::ProjectionInput(uint32_t max_tokens, uint32_t max_cols,
                                 const ActivationKinds& kinds) {
  const size_t codes = max_tokens * PaddedCols(max_cols);
  if (kinds.Has(ActivationKind::kInt8Token)) {
    token_ = {fabric::AlignedBuffer<int8_t>(codes), fabric::AlignedBuffer<float>(max_tokens),
              fabric::AlignedBuffer<int32_t>(max_tokens)};
  }
  if (kinds.Has(ActivationKind::kInt8Block)) {
    const size_t blocks = max_tokens * BlocksOf(max_cols);
    block_ = {fabric::AlignedBuffer<int8_t>(codes), fabric::AlignedBuffer<float>(blocks),
              fabric::AlignedBuffer<int32_t>(blocks)};
  }
}

void ProjectionInput::Begin(const float* values, uint32_t tokens, uint32_t cols,
                            const ActivationKinds& kinds) {
  kinds_ = kinds;
  float_view_ = {.kind = ActivationKind::kFloat,
                 .tokens = tokens,
                 .cols = cols,
                 .values = values,
                 .value_stride = cols};
  token_view_ = float_view_;
  token_view_.kind = ActivationKind::kInt8Token;
  token_view_.scale_stride = 1;
  Point(token_, &token_view_);
  block_view_ = float_view_;
  block_view_.kind = ActivationKind::kInt8Block;
  block_view_.scale_stride = BlocksOf(cols);
  Point(block_, &block_view_);
}

void ProjectionInput::Point(const Codes& codes, fabric::ActivationView* view) {
  view->codes = codes.codes.data();
  view->code_stride = PaddedCols(view->cols);
  view->scales = codes.scales.data();
  view->sums = codes.sums.data();
}

bool ProjectionInput::Encode(uint32_t token) noexcept {
  const size_t cols = float_view_.cols;
  const size_t stride = PaddedCols(cols);
  const float* values = float_view_.values + token * cols;
  bool finite = true;
  if (kinds_.Has(ActivationKind::kInt8Token)) {
    finite &= fabric::QuantizeToken(values, cols, stride, token_.codes.data() + token * stride,
                                    &token_.scales[token], &token_.sums[token]);
  }
  if (kinds_.Has(ActivationKind::kInt8Block)) {
    const size_t first = token * BlocksOf(cols);
    finite &= fabric::QuantizeBlocks(values, cols, stride, block_.codes.data() + token * stride,
                                     &block_.scales[first], &block_.sums[first]);
  }
  return finite;
}

const fabric::ActivationView* ProjectionInput::View(ActivationKind kind) const {
  assert(kinds_.Has(kind));
  switch (kind) {
    case ActivationKind::kFloat:
      return &float_view_;
    case ActivationKind::kInt8Token:
      return &token_view_;
    case ActivationKind::kInt8Block:
      return &block_view_;
  }
  return nullptr;
}

size_t ProjectionInput::bytes() const {
  const auto bytes = [](const Codes& codes) {
    return codes.codes.size() + codes.scales.size() * sizeof(float) +
           codes.sums.size() * sizeof(int32_t);
  };
  return bytes(token_) + bytes(block_);
}

}  // namespace engine
