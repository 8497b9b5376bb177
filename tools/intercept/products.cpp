// Products with weights that the Fabric may compute, in front of a BLAS's.

#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <vector>

#include "tools/intercept/runtime.h"

namespace {

using intercept::arena;
using intercept::blas;
using intercept::counts;
using intercept::FabricBlas;
using intercept::forked;
using intercept::Hooked;
using intercept::Inside;
using intercept::Log;
using intercept::MatrixView;
using intercept::settings;

enum CblasOrder { kRowMajor = 101, kColMajor = 102 };
enum CblasTranspose { kNoTrans = 111, kTrans = 112 };

using SgemvFn = void (*)(int, int, int, int, float, const float*, int, const float*, int, float,
                         float*, int);
using SgemmFn = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int,
                         float, float*, int);

// op(A), [rows, cols], of a matrix in either order.
MatrixView ViewOf(int order, int transpose, int rows, int cols, const float* a, int lda) {
  const auto stride = static_cast<size_t>(lda);
  const bool along_rows = (order == kRowMajor) == (transpose == kNoTrans);
  return {.base = a,
          .rows = static_cast<uint32_t>(rows),
          .cols = static_cast<uint32_t>(cols),
          .row_stride = along_rows ? stride : 1,
          .col_stride = along_rows ? 1 : stride};
}

MatrixView Transposed(const MatrixView& m) {
  return {.base = m.base,
          .rows = m.cols,
          .cols = m.rows,
          .row_stride = m.col_stride,
          .col_stride = m.row_stride};
}

bool IsTranspose(int value) { return value == kNoTrans || value == kTrans; }

// Weights that may go to the Fabric: told to, or large and in its memory.
bool MayRun(const MatrixView& m) {
  if (forked.load() || m.rows == 0 || m.cols == 0) return false;
  const size_t bytes = size_t{m.rows} * m.cols * sizeof(float);
  return blas->IsKnown(m.base) || (bytes >= settings.threshold && arena.Contains(m.base));
}

const char* Words(FabricBlas::Outcome outcome) {
  switch (outcome) {
    case FabricBlas::Outcome::kDone:
      return "ran on the Fabric";
    case FabricBlas::Outcome::kTooEarly:
      return "first use";
    case FabricBlas::Outcome::kTooFar:
      return "not near enough to ternary";
    case FabricBlas::Outcome::kNoFabric:
      return "no Fabric for it";
  }
  return "";
}

// products: [batch, rows] of W x. Null bounds: it did not run there.
bool RunOnFabric(const MatrixView& w, const std::vector<float>& x, uint32_t batch,
                 std::vector<float>* products, std::vector<float>* bounds) {
  const FabricBlas::Outcome outcome = blas->Multiply(w, x.data(), batch, products, bounds);
  ++(outcome == FabricBlas::Outcome::kDone ? counts.on_fabric : counts.on_host);
  if (settings.verbose) {
    Log("tfmbs_intercept: %u x %u weights at %p, %u vectors: %s\n", w.rows, w.cols,
        static_cast<const void*>(w.base), batch, Words(outcome));
  }
  return outcome == FabricBlas::Outcome::kDone;
}

// Compares what both gave for one element; the bound is for W x, so |alpha| times as much.
void Compare(float fabric, float host, float bound, float* worst) {
  ++counts.validated;
  const float difference = std::fabs(fabric - host);
  const float share = difference <= 0 ? 0 : difference / bound;
  *worst = std::max(*worst, share);
  if (!(difference <= bound)) ++counts.beyond;
}

void NoteWorst(const char* what, float worst) {
  const auto millionths = static_cast<uint64_t>(std::min(worst, 1e9F) * 1e6F);
  uint64_t seen = counts.worst_in_millionths.load();
  while (seen < millionths && !counts.worst_in_millionths.compare_exchange_weak(seen, millionths)) {
  }
  if (settings.verbose || worst > 1) {
    Log("tfmbs_intercept: %s differs by %.3f of its bound\n", what, static_cast<double>(worst));
  }
}

// y = alpha * product + beta * y, where beta 0 means that y may hold anything.
float Combine(float alpha, float product, float beta, float y) {
  return beta == 0 ? alpha * product : alpha * product + beta * y;
}
// The rounding of that.
float CombinedBound(float alpha, float bound, float result) {
  return std::fabs(alpha) * bound + std::fabs(result) * 0x1p-21F + 1e-30F;
}

// No exception may reach a program in C: without memory the host computes.
template <typename Product>
bool TryFabric(const Product& product) {
  try {
    return product.OnFabric();
  } catch (const std::bad_alloc&) {
    return false;
  }
}

template <typename Function>
Function NextBlas(const char* name) {
  const auto function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
  if (function == nullptr) {
    Log("tfmbs_intercept: %s was called, but no other library has it\n", name);
    std::abort();
  }
  return function;
}

struct Gemv {
  int order, transpose, m, n;
  float alpha;
  const float* a;
  int lda;
  const float* x;
  int incx;
  float beta;
  float* y;
  int incy;

  void OnHost(float* out) const {
    static const auto function = NextBlas<SgemvFn>("cblas_sgemv");
    function(order, transpose, m, n, alpha, a, lda, x, incx, beta, out, incy);
  }
  bool Sound() const {
    const bool known = (order == kRowMajor || order == kColMajor) && IsTranspose(transpose);
    const int least = order == kRowMajor ? n : m;
    return known && m > 0 && n > 0 && lda >= least && incx > 0 && incy > 0;
  }
  bool OnFabric() const;
};

bool Gemv::OnFabric() const {
  const bool plain = transpose == kNoTrans;
  const MatrixView w = ViewOf(order, transpose, plain ? m : n, plain ? n : m, a, lda);
  if (!MayRun(w)) return false;
  std::vector<float> input(w.cols);
  for (size_t i = 0; i < w.cols; ++i) input[i] = x[i * static_cast<size_t>(incx)];
  std::vector<float> products;
  std::vector<float> bounds;
  if (!RunOnFabric(w, input, 1, &products, &bounds)) return false;
  const auto stride = static_cast<size_t>(incy);
  std::vector<float> results(w.rows);
  for (size_t r = 0; r < w.rows; ++r) results[r] = Combine(alpha, products[r], beta, y[r * stride]);
  if (!settings.validate) {
    for (size_t r = 0; r < w.rows; ++r) y[r * stride] = results[r];
    return true;
  }
  OnHost(y);
  float worst = 0;
  for (size_t r = 0; r < w.rows; ++r) {
    Compare(results[r], y[r * stride], CombinedBound(alpha, bounds[r], y[r * stride]), &worst);
  }
  NoteWorst("cblas_sgemv", worst);
  return true;
}

struct Gemm {
  int order, transpose_a, transpose_b, m, n, k;
  float alpha;
  const float* a;
  int lda;
  const float* b;
  int ldb;
  float beta;
  float* c;
  int ldc;

  void OnHost(float* out) const {
    static const auto function = NextBlas<SgemmFn>("cblas_sgemm");
    function(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, out, ldc);
  }
  bool Sound() const {
    const bool known = (order == kRowMajor || order == kColMajor) && IsTranspose(transpose_a) &&
                       IsTranspose(transpose_b) && m > 0 && n > 0 && k > 0;
    const bool row_major = order == kRowMajor;
    return known && lda >= ((transpose_a == kNoTrans) == row_major ? k : m) &&
           ldb >= ((transpose_b == kNoTrans) == row_major ? n : k) && ldc >= (row_major ? n : m);
  }
  float& C(size_t row, size_t col) const {
    const auto stride = static_cast<size_t>(ldc);
    return order == kRowMajor ? c[row * stride + col] : c[col * stride + row];
  }
  bool OnFabric() const;
  bool Run(const MatrixView& w, const MatrixView& inputs, bool w_is_a) const;
};

// C = op(A) op(B): either may be the weights; whichever is known or, if neither is, B^T first,
// which is where the libraries of networks have them.
bool Gemm::OnFabric() const {
  const MatrixView left = ViewOf(order, transpose_a, m, k, a, lda);
  const MatrixView right = Transposed(ViewOf(order, transpose_b, k, n, b, ldb));
  const bool b_first = blas->IsKnown(b) || !blas->IsKnown(a);
  const MatrixView& first = b_first ? right : left;
  const MatrixView& second = b_first ? left : right;
  if (MayRun(first)) return Run(first, second, !b_first);
  return MayRun(second) && Run(second, first, b_first);
}

// inputs: [batch, k].
bool Gemm::Run(const MatrixView& w, const MatrixView& inputs, bool w_is_a) const {
  std::vector<float> x(size_t{inputs.rows} * inputs.cols);
  for (size_t i = 0; i < inputs.rows; ++i) {
    for (size_t j = 0; j < inputs.cols; ++j) {
      x[i * inputs.cols + j] = inputs.base[i * inputs.row_stride + j * inputs.col_stride];
    }
  }
  std::vector<float> products;
  std::vector<float> bounds;
  if (!RunOnFabric(w, x, inputs.rows, &products, &bounds)) return false;
  const auto at = [&](size_t vector, size_t row) -> float& {
    return w_is_a ? C(row, vector) : C(vector, row);
  };
  for (size_t i = 0; i < products.size(); ++i) {
    products[i] = Combine(alpha, products[i], beta, at(i / w.rows, i % w.rows));
  }
  if (settings.validate) OnHost(c);
  float worst = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    float& result = at(i / w.rows, i % w.rows);
    if (settings.validate) {
      Compare(products[i], result, CombinedBound(alpha, bounds[i], result), &worst);
    } else {
      result = products[i];
    }
  }
  if (settings.validate) NoteWorst("cblas_sgemm", worst);
  return true;
}

}  // namespace

EXPORT void cblas_sgemv(int order, int transpose, int m, int n, float alpha, const float* a,
                        int lda, const float* x, int incx, float beta, float* y, int incy) {
  const Gemv product{order, transpose, m, n, alpha, a, lda, x, incx, beta, y, incy};
  const bool hooked = Hooked();
  const Inside inside;
  if (!hooked || !product.Sound() || !TryFabric(product)) product.OnHost(y);
}

EXPORT void cblas_sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k,
                        float alpha, const float* a, int lda, const float* b, int ldb, float beta,
                        float* c, int ldc) {
  const Gemm product{order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc};
  const bool hooked = Hooked();
  const Inside inside;
  if (!hooked || !product.Sound() || !TryFabric(product)) product.OnHost(c);
}
