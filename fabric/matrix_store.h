#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "fabric/device.h"

namespace fabric {

// The matrices of one device. A handle names a slot and the generation in which it was filled, so a
// handle of freed memory is told apart from its successor.
//
// Threads: one at a time.
class MatrixStore {
 public:
  // on_host: only the host runs it (Device::UploadToHost). Errors: std::bad_alloc.
  MatrixId Add(Matrix matrix, bool on_host = false);
  Status Remove(MatrixId id) noexcept;
  // nullptr when the handle is stale or was never given out. Valid until Remove().
  const Matrix* Find(MatrixId id) const noexcept;
  // REQUIRES: Find(id) is not null.
  bool OnHost(MatrixId id) const noexcept { return slots_[id.index].on_host; }
  size_t resident_bytes() const noexcept { return resident_bytes_; }

 private:
  struct Slot {
    uint32_t generation = 1;
    bool on_host = false;
    std::optional<Matrix> matrix;
  };
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  size_t resident_bytes_ = 0;
};

// The matrix inside if it is of that kind, or nullptr.
const TernaryMatrix* AsTernary(const Matrix& matrix) noexcept;
const DenseMatrix* AsDense(const Matrix& matrix) noexcept;
const QuantizedMatrix* AsQuantized(const Matrix& matrix) noexcept;
const PlaneMatrix* AsPlanes(const Matrix& matrix) noexcept;
// Whether the Fabric has it in trits: one matrix of them, or planes.
bool IsTrits(const Matrix& matrix) noexcept;
// Those: one, or the planes; none of other matrices.
std::span<const TernaryMatrix> TritsOf(const Matrix& matrix) noexcept;
uint32_t RowsOf(const Matrix& matrix) noexcept;
uint32_t ColsOf(const Matrix& matrix) noexcept;
size_t BytesOf(const Matrix& matrix) noexcept;

// The same trits and scales in `layout`.
TernaryMatrix CopyTernary(const TernaryMatrix& from, TernaryLayout layout);

// Prepares a matrix for Add(): in `layout`, if one is wanted and it is not sparse, with its
// non-zeros counted. Returns kErrAddr for a null pointer to a matrix.
Status PrepareMatrix(Matrix* matrix, std::optional<TernaryLayout> layout);

enum class MatrixKind : uint8_t { kTernary, kDense, kQuantized, kPlanes };

// What decides whether an op can run.
struct MatrixShape {
  MatrixKind kind = MatrixKind::kTernary;
  uint32_t rows = 0;
  uint32_t cols = 0;
};
// Empty for a null pointer to a matrix.
std::optional<MatrixShape> ShapeOf(const Matrix& matrix) noexcept;

// kOk when every op can run as documented in fabric/device.h; otherwise the first fault:
//   kErrStale        a handle of a freed matrix
//   kErrAddr         a null pointer, or a shape or stride that does not fit
//   kErrUnsupported  an activation kind that the matrix does not take
//   kErrPack         a *Mul epilogue without a predecessor that it can follow
Status CheckOps(const MatrixStore& store, std::span<const ProjectionOp> ops) noexcept;

// The same for whoever else knows the matrices: shape_of gives the shape behind a handle, or
// nothing.
Status CheckShapes(const std::function<std::optional<MatrixShape>(MatrixId)>& shape_of,
                   std::span<const ProjectionOp> ops);

// A *Mul epilogue belongs to the op right before it.
bool IsChained(Epilogue epilogue) noexcept;

}  // namespace fabric
