/*
 * What a program may tell libtfmbs_intercept.so when it is preloaded (tools/intercept/README.md).
 * Declared weak, so that a program that includes this runs without the library too:
 *
 *     if (tfmbs_intercept_register != NULL)
 *       tfmbs_intercept_register(weights, rows, cols, cols, 1);
 *
 * Threads: any.
 */
#ifndef TFMBS_INTERCEPT_H_
#define TFMBS_INTERCEPT_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(TFMBS_INTERCEPT_BUILD)
#define TFMBS_INTERCEPT_API __attribute__((visibility("default")))
#else
#define TFMBS_INTERCEPT_API __attribute__((weak))
#endif

/* W[r][c] = matrix[r * row_stride + c * col_stride] are weights that do not change until they are
 * unregistered: products with them are computed on the Fabric from now on, and nobody looks
 * whether they have changed. 0, or -1 when they do not go there (too many planes; no Fabric), and
 * then products stay on the host. */
TFMBS_INTERCEPT_API int tfmbs_intercept_register(const float* matrix, uint32_t rows, uint32_t cols,
                                                 uint64_t row_stride, uint64_t col_stride);
/* 0, or -1 when it is not registered. */
TFMBS_INTERCEPT_API int tfmbs_intercept_unregister(const float* matrix);

typedef struct tfmbs_intercept_stats {
  uint64_t fabric_allocations; /* malloc, calloc, realloc and anonymous mmap on the Fabric */
  uint64_t fabric_files;       /* file mappings that were read into it */
  uint64_t fabric_bytes;       /* in use now */
  uint64_t spilled;            /* large allocations for which it had no room */
  uint64_t copies;             /* memcpy and memmove above the threshold that read or write it */
  uint64_t copied_bytes;
  uint64_t row_scans; /* repeated ones that were found */
  uint64_t fabric_products;
  uint64_t host_products; /* calls that were seen and left to the program's BLAS */
  uint64_t ternarised;    /* matrices, again after each change */
  uint64_t validated;     /* results compared with the program's BLAS */
  uint64_t beyond_bound;  /* that differed by more than the bound */
  double worst_of_bound;  /* largest difference seen, as a share of its bound */
} tfmbs_intercept_stats;
TFMBS_INTERCEPT_API void tfmbs_intercept_get_stats(tfmbs_intercept_stats* stats);

#ifdef __cplusplus
}
#endif

#endif /* TFMBS_INTERCEPT_H_ */
