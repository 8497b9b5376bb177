/* An ordinary program with a BLAS: products with ternary and with other weights, in every order
 * that callers use. Prints, per element, what it is of, the value, and sum |w| times max |x|, which
 * error bounds are multiples of. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef USE_CBLAS_HEADER
#include <cblas.h>
#else
enum { CblasRowMajor = 101, CblasColMajor = 102, CblasNoTrans = 111, CblasTrans = 112 };
void cblas_sgemv(int order, int transpose, int m, int n, float alpha, const float* a, int lda,
                 const float* x, int incx, float beta, float* y, int incy);
void cblas_sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha,
                 const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc);
#endif

enum { ROWS = 300, COLS = 500, BATCH = 5 };

static uint64_t state = 1;
static double uniform(void) { /* in (-1, 1) */
  state = state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int64_t)state / 9223372036854775808.0;
}

static float* weights(int ternary) {
  float* w = malloc(sizeof(float) * ROWS * COLS);
  for (int row = 0; row < ROWS; ++row) {
    const float scale = (float)(0.01 + fabs(uniform()));
    for (int col = 0; col < COLS; ++col) {
      const double u = uniform();
      const double smooth = u + uniform() + uniform();
      w[row * COLS + col] = ternary ? (u > 0.4 ? scale : u < -0.4 ? -scale : 0) : (float)smooth;
    }
  }
  return w;
}

/* magnitude of rows, or with `columns` of columns, times the largest x. */
static double magnitude(const float* w, int index, int columns, const float* x, int count) {
  double sum = 0;
  double most = 0;
  for (int i = 0; i < (columns ? ROWS : COLS); ++i) {
    sum += fabs(columns ? w[i * COLS + index] : w[index * COLS + i]);
  }
  for (int i = 0; i < count; ++i) most = fmax(most, fabs(x[i]));
  return sum * most;
}

int main(void) {
  float x[BATCH * COLS];
  static float y[BATCH * COLS];
  static float c[BATCH * COLS];
  for (int i = 0; i < BATCH * COLS; ++i) x[i] = (float)(uniform() * uniform() * 3);
  for (int ternary = 0; ternary < 2; ++ternary) {
    const char* kind = ternary ? "ternary" : "other";
    float* w = weights(ternary);
    for (int round = 0; round < 3; ++round) {
      for (int i = 0; i < BATCH * COLS; ++i) y[i] = c[i] = (float)i / 64;
      cblas_sgemv(CblasRowMajor, CblasNoTrans, ROWS, COLS, 1.5F, w, COLS, x, 1, 0.25F, y, 1);
      for (int r = 0; r < ROWS; ++r) {
        printf("%s %.9g %.9g\n", kind, y[r], 1.5 * magnitude(w, r, 0, x, COLS));
      }
      /* The same matrix, which a column-major caller sees transposed; a stride between results. */
      cblas_sgemv(CblasColMajor, CblasTrans, COLS, ROWS, 1.0F, w, COLS, x, 1, 0.0F, y, 2);
      for (int r = 0; r < ROWS; ++r) {
        printf("%s %.9g %.9g\n", kind, y[2 * r], magnitude(w, r, 0, x, COLS));
      }
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, BATCH, ROWS, COLS, 2.0F, x, COLS, w,
                  COLS, 1.0F, c, ROWS);
      for (int b = 0; b < BATCH; ++b) {
        for (int r = 0; r < ROWS; ++r) {
          printf("%s %.9g %.9g\n", kind, c[b * ROWS + r],
                 2 * magnitude(w, r, 0, x + b * COLS, COLS));
        }
      }
      /* The columns as rows: the entries of one have many magnitudes. */
      cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, BATCH, COLS, ROWS, 1.0F, x, COLS, w,
                  COLS, 0.0F, c, COLS);
      for (int b = 0; b < BATCH; ++b) {
        for (int r = 0; r < COLS; ++r) {
          printf("other %.9g %.9g\n", c[b * COLS + r], magnitude(w, r, 1, x + b * COLS, ROWS));
        }
      }
      w[round] = -w[round]; /* the next round's weights are others */
    }
    free(w);
  }
  return 0;
}
