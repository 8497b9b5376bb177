#include "fabric/matrix_store.h"

#include <utility>

#include "fabric/parallel.h"

namespace fabric {
namespace {

Status CheckFloats(const ActivationView& x) {
  return x.values != nullptr && x.value_stride >= x.cols ? Status::kOk : Status::kErrAddr;
}

Status CheckCodes(const ActivationView& x) {
  if (x.codes == nullptr || x.scales == nullptr || x.sums == nullptr) return Status::kErrAddr;
  if (x.code_stride < PaddedCols(x.cols)) return Status::kErrAddr;
  const size_t blocks = (size_t{x.cols} + kActivationBlock - 1) / kActivationBlock;
  if (x.kind == ActivationKind::kInt8Block && x.scale_stride < blocks) return Status::kErrAddr;
  return Status::kOk;
}

bool Takes(MatrixKind matrix, ActivationKind kind) {
  if (matrix == MatrixKind::kTernary) return kind != ActivationKind::kFloat;
  return kind ==
         (matrix == MatrixKind::kDense ? ActivationKind::kFloat : ActivationKind::kInt8Block);
}

Status CheckOp(const std::optional<MatrixShape>& matrix, const ProjectionOp& op) {
  if (!matrix) return Status::kErrStale;
  if (op.x == nullptr) return Status::kErrAddr;
  if (!Takes(matrix->kind, op.x->kind)) return Status::kErrUnsupported;
  if (op.x->cols != matrix->cols) return Status::kErrAddr;
  if (op.x->tokens == 0) return Status::kOk;
  if (op.y == nullptr || op.y_stride < matrix->rows) return Status::kErrAddr;
  return op.x->kind == ActivationKind::kFloat ? CheckFloats(*op.x) : CheckCodes(*op.x);
}

// shape_of(id): the shape behind a handle, or nothing.
template <typename ShapeOfHandle>
Status CheckAll(const ShapeOfHandle& shape_of, std::span<const ProjectionOp> ops) {
  uint32_t rows_before = 0;
  for (size_t i = 0; i < ops.size(); ++i) {
    const ProjectionOp& op = ops[i];
    const std::optional<MatrixShape> matrix = shape_of(op.matrix);
    const Status status = CheckOp(matrix, op);
    if (status != Status::kOk) return status;
    if (IsChained(op.epilogue)) {
      const bool follows = i > 0 && op.y == ops[i - 1].y && op.y_stride == ops[i - 1].y_stride &&
                           op.x->tokens == ops[i - 1].x->tokens && matrix->rows == rows_before;
      if (!follows) return Status::kErrPack;
    }
    rows_before = matrix->rows;
  }
  return Status::kOk;
}

}  // namespace

MatrixId MatrixStore::Add(Matrix matrix, bool on_host) {
  if (free_.empty()) {
    slots_.emplace_back();
    // So that Remove() can give the slot back without allocating.
    free_.reserve(slots_.size());
    free_.push_back(static_cast<uint32_t>(slots_.size() - 1));
  }
  const uint32_t index = free_.back();
  free_.pop_back();
  resident_bytes_ += BytesOf(matrix);
  slots_[index].matrix.emplace(std::move(matrix));
  slots_[index].on_host = on_host;
  return {index, slots_[index].generation};
}

Status MatrixStore::Remove(MatrixId id) noexcept {
  const Matrix* matrix = Find(id);
  if (matrix == nullptr) return Status::kErrStale;
  resident_bytes_ -= BytesOf(*matrix);
  Slot& slot = slots_[id.index];
  slot.matrix.reset();
  // A slot whose generations are used up is never given out again.
  if (++slot.generation != 0) free_.push_back(id.index);
  return Status::kOk;
}

const Matrix* MatrixStore::Find(MatrixId id) const noexcept {
  if (id.generation == 0 || id.index >= slots_.size()) return nullptr;
  const Slot& slot = slots_[id.index];
  return slot.generation == id.generation && slot.matrix ? &*slot.matrix : nullptr;
}

const TernaryMatrix* AsTernary(const Matrix& matrix) noexcept {
  return std::get_if<TernaryMatrix>(&matrix);
}

const DenseMatrix* AsDense(const Matrix& matrix) noexcept {
  const auto* shared = std::get_if<std::shared_ptr<const DenseMatrix>>(&matrix);
  return shared == nullptr ? nullptr : shared->get();
}

const QuantizedMatrix* AsQuantized(const Matrix& matrix) noexcept {
  const auto* shared = std::get_if<std::shared_ptr<const QuantizedMatrix>>(&matrix);
  return shared == nullptr ? nullptr : shared->get();
}

const PlaneMatrix* AsPlanes(const Matrix& matrix) noexcept {
  const auto* shared = std::get_if<std::shared_ptr<const PlaneMatrix>>(&matrix);
  return shared == nullptr ? nullptr : shared->get();
}

bool IsTrits(const Matrix& matrix) noexcept {
  return AsTernary(matrix) != nullptr || AsPlanes(matrix) != nullptr;
}

std::span<const TernaryMatrix> TritsOf(const Matrix& matrix) noexcept {
  if (const TernaryMatrix* ternary = AsTernary(matrix)) return {ternary, 1};
  const PlaneMatrix* planes = AsPlanes(matrix);
  return planes == nullptr ? std::span<const TernaryMatrix>() : planes->planes();
}

uint32_t RowsOf(const Matrix& matrix) noexcept {
  if (const TernaryMatrix* ternary = AsTernary(matrix)) return ternary->rows();
  if (const DenseMatrix* dense = AsDense(matrix)) return dense->rows();
  if (const PlaneMatrix* planes = AsPlanes(matrix)) return planes->rows();
  return AsQuantized(matrix)->rows();
}

uint32_t ColsOf(const Matrix& matrix) noexcept {
  if (const TernaryMatrix* ternary = AsTernary(matrix)) return ternary->cols();
  if (const DenseMatrix* dense = AsDense(matrix)) return dense->cols();
  if (const PlaneMatrix* planes = AsPlanes(matrix)) return planes->cols();
  return AsQuantized(matrix)->cols();
}

size_t BytesOf(const Matrix& matrix) noexcept {
  if (const TernaryMatrix* ternary = AsTernary(matrix)) return ternary->bytes();
  if (const DenseMatrix* dense = AsDense(matrix)) return dense->bytes();
  if (const PlaneMatrix* planes = AsPlanes(matrix)) return planes->bytes();
  return AsQuantized(matrix)->bytes();
}

TernaryMatrix CopyTernary(const TernaryMatrix& from, TernaryLayout layout) {
  if (layout == TernaryLayout::kSparse) {
    return TernaryMatrix::PackSparse(
        from.rows(), from.cols(), from.scale_kind(), from.group(), from.CopyScales(),
        [&](uint32_t row, std::span<int8_t> trits) { from.GetRow(row, trits); });
  }
  TernaryMatrix to(from.rows(), from.cols(), from.scale_kind(), from.group(), layout);
  const std::vector<float> scales = from.CopyScales();
  const size_t per_row = from.scales_per_row();
  ParallelFor(from.rows(), 64, [&](size_t begin, size_t end) {
    std::vector<int8_t> trits(from.cols());
    for (size_t row = begin; row < end; ++row) {
      from.GetRow(static_cast<uint32_t>(row), trits);
      const size_t first = from.scale_kind() == ScaleKind::kTensor ? 0 : row * per_row;
      to.SetRow(static_cast<uint32_t>(row), trits, std::span(scales).subspan(first, per_row));
    }
  });
  return to;
}

Status PrepareMatrix(Matrix* matrix, std::optional<TernaryLayout> layout) {
  auto* ternary = std::get_if<TernaryMatrix>(matrix);
  if (ternary == nullptr) {
    return ShapeOf(*matrix) ? Status::kOk : Status::kErrAddr;
  }
  if (ternary->rows() == 0) return Status::kErrAddr;
  const bool repack = layout && ternary->layout() != *layout;
  if (repack && ternary->layout() != TernaryLayout::kSparse) {
    *ternary = CopyTernary(*ternary, *layout);
  }
  if (ternary->nonzeros_per_column().empty()) ternary->CountNonZeros();
  return Status::kOk;
}

bool IsChained(Epilogue epilogue) noexcept {
  return epilogue == Epilogue::kReluSquaredMul || epilogue == Epilogue::kSiluMul ||
         epilogue == Epilogue::kGeluMul;
}

std::optional<MatrixShape> ShapeOf(const Matrix& matrix) noexcept {
  if (AsTernary(matrix) != nullptr) {
    return MatrixShape{MatrixKind::kTernary, RowsOf(matrix), ColsOf(matrix)};
  }
  if (AsDense(matrix) != nullptr) {
    return MatrixShape{MatrixKind::kDense, RowsOf(matrix), ColsOf(matrix)};
  }
  if (AsPlanes(matrix) != nullptr) {
    return MatrixShape{MatrixKind::kPlanes, RowsOf(matrix), ColsOf(matrix)};
  }
  if (AsQuantized(matrix) == nullptr) return std::nullopt;
  return MatrixShape{MatrixKind::kQuantized, RowsOf(matrix), ColsOf(matrix)};
}

Status CheckOps(const MatrixStore& store, std::span<const ProjectionOp> ops) noexcept {
  const auto shape_of = [&](MatrixId id) -> std::optional<MatrixShape> {
    const Matrix* matrix = store.Find(id);
    return matrix == nullptr ? std::nullopt : ShapeOf(*matrix);
  };
  return CheckAll(shape_of, ops);
}

Status CheckShapes(const std::function<std::optional<MatrixShape>(MatrixId)>& shape_of,
                   std::span<const ProjectionOp> ops) {
  return CheckAll(shape_of, ops);
}

}  // namespace fabric
