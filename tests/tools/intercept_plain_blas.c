/* The two functions of a BLAS that tests call, as plain loops. */
#include <stddef.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111 };

static float at(int order, int transpose, const float* a, int lda, int row, int col) {
  const int along = (order == ROW_MAJOR) == (transpose == NO_TRANS);
  return along ? a[(size_t)row * (size_t)lda + (size_t)col]
               : a[(size_t)col * (size_t)lda + (size_t)row];
}

void cblas_sgemv(int order, int transpose, int m, int n, float alpha, const float* a, int lda,
                 const float* x, int incx, float beta, float* y, int incy) {
  const int rows = transpose == NO_TRANS ? m : n;
  const int cols = transpose == NO_TRANS ? n : m;
  for (int row = 0; row < rows; ++row) {
    float sum = 0;
    for (int col = 0; col < cols; ++col)
      sum += at(order, transpose, a, lda, row, col) * x[col * incx];
    float* out = y + (size_t)row * (size_t)incy;
    *out = alpha * sum + (beta == 0 ? 0 : beta * *out);
  }
}

void cblas_sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                 const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  for (int row = 0; row < m; ++row) {
    for (int col = 0; col < n; ++col) {
      float sum = 0;
      for (int i = 0; i < k; ++i) {
        sum += at(order, transpose_a, a, lda, row, i) * at(order, transpose_b, b, ldb, i, col);
      }
      float* out = order == ROW_MAJOR ? c + (size_t)row * (size_t)ldc + (size_t)col
                                      : c + (size_t)col * (size_t)ldc + (size_t)row;
      *out = alpha * sum + (beta == 0 ? 0 : beta * *out);
    }
  }
}
