/* A program that knows the library, and breaks its promise when it is told to. Prints the first
 * results and what the library has counted. */
#include <stdio.h>
#include <stdlib.h>

#include "tools/intercept/tfmbs_intercept.h"

void cblas_sgemv(int order, int transpose, int m, int n, float alpha, const float* a, int lda,
                 const float* x, int incx, float beta, float* y, int incy);

enum { ROWS = 40, COLS = 96 }; /* far below the threshold: only what is registered goes there */

int main(int argc, char** argv) {
  (void)argv;
  static float w[ROWS * COLS];
  static float x[COLS];
  static float y[ROWS];
  for (int i = 0; i < ROWS * COLS; ++i) w[i] = (float)(i * 7 % 3 - 1) * 0.5F;
  for (int i = 0; i < COLS; ++i) x[i] = (float)(i % 11) - 5;
  int registered = -2;
  if (tfmbs_intercept_register != NULL) {
    registered = tfmbs_intercept_register(w, ROWS, COLS, COLS, 1);
  }
  if (argc > 1) w[3] += 4; /* the promise was that they stay as they are */
  cblas_sgemv(101, 111, ROWS, COLS, 1, w, COLS, x, 1, 0, y, 1);
  printf("registered %d y %.9g %.9g\n", registered, y[0], y[1]);
  if (tfmbs_intercept_get_stats != NULL) {
    tfmbs_intercept_stats stats;
    const int again = tfmbs_intercept_unregister(w);
    cblas_sgemv(101, 111, ROWS, COLS, 1, w, COLS, x, 1, 0, y, 1);
    tfmbs_intercept_get_stats(&stats);
    printf("unregistered %d %d fabric %llu beyond %llu\n", again, tfmbs_intercept_unregister(w),
           (unsigned long long)stats.fabric_products, (unsigned long long)stats.beyond_bound);
  }
  return 0;
}
