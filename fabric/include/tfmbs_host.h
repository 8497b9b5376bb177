/*
 * The Fabric's host interface, version 1: ternary matrices on a device, and products with them.
 * Plain C11 (and C++); link with -ltfmbs.
 *
 *     tfmbs_ctx* ctx;
 *     tfmbs_frame layer;
 *     tfmbs_init(NULL, &ctx);
 *     tfmbs_upload_frame(ctx, &(tfmbs_tfd_t)TFMBS_FRAME(rows, cols), trits, bytes, NULL, &layer);
 *     tfmbs_run_gemv(ctx, layer, x, y);                  y[rows] = W[rows, cols] x[cols]
 *     tfmbs_shutdown(ctx);
 *
 * Status:    every function returns a tfmbs_status; outputs are written only with TFMBS_OK.
 * Arguments: descriptors, lengths, strides, counts and handles are checked before anything is read
 *            through them, and trits before they are used. What cannot be checked is whether a
 *            pointer that is not null points to as many bytes as the call says.
 * Handles:   carry a generation. One that was freed, or never given out, is TFMBS_ERR_STALE.
 * Threads:   any thread may call anything but tfmbs_shutdown() at any time; one product runs at a
 *            time, with all threads of the context.
 * Bits:      results do not depend on the device, the CPU, the number of threads or the batch.
 */
#ifndef TFMBS_HOST_H_
#define TFMBS_HOST_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TFMBS_VERSION 1

#if defined(__GNUC__)
#define TFMBS_API __attribute__((visibility("default")))
#else
#define TFMBS_API
#endif

typedef enum tfmbs_status {
  TFMBS_OK = 0,
  TFMBS_PENDING = 1,         /* a task that is not done yet */
  TFMBS_ERR_ADDR = 2,        /* a null pointer, or lengths and strides that do not fit */
  TFMBS_ERR_PACK = 3,        /* a byte that no packer writes (PT-5: 243 to 255) */
  TFMBS_ERR_BUSY = 4,        /* a full queue; a frame that is pinned */
  TFMBS_ERR_UNSUPPORTED = 5, /* a version, packing, kernel or shape that is not known */
  TFMBS_ERR_NOMEM = 6,
  TFMBS_ERR_TIMEOUT = 7,
  TFMBS_ERR_STALE = 8, /* a handle or ticket that is not, or no longer, one */
  TFMBS_ERR_GONE = 9   /* the device does not answer any more */
} tfmbs_status;

typedef struct tfmbs_ctx tfmbs_ctx;
typedef uint64_t tfmbs_frame;  /* 0 is never one */
typedef uint64_t tfmbs_ticket; /* 0 is never one */

/* tfmbs_tfd_t.packing_fmt: five trits per byte, trit 0 least significant; lengths are in trits. */
#define TFMBS_PACK_PT5 0    /* digit = trit + 1; five zeros are 0x79 */
#define TFMBS_PACK_PT5_HW 1 /* -1 is digit 2, 0 is 0, +1 is 1; five zeros are 0x00 */

/* tfmbs_tfd_t.flags */
#define TFMBS_FLAG_READ 1u
#define TFMBS_FLAG_WRITE 2u
#define TFMBS_FLAG_COHERENT 4u
#define TFMBS_FLAG_CRITICAL 8u /* fail when a hint is not understood */
#define TFMBS_FLAG_PINNED 16u  /* as if tfmbs_pin() followed the upload */

/* tfmbs_tfd_t.exec_hints: [7:0] kernel, [15:8] quantisation threshold, and */
#define TFMBS_KERNEL_NOP 0x00u /* of weights: none is asked for */
#define TFMBS_KERNEL_TGEMM 0x06u
#define TFMBS_HINT_BIAS (1u << 16)
#define TFMBS_HINT_ZERO_SKIP (1u << 17)
#define TFMBS_HINT_FREE_NEG (1u << 18)
#define TFMBS_HINT_WEIGHT_BRDCST (1u << 19)
#define TFMBS_HINT_FUSED (1u << 31) /* 20 elsewhere, where it collides with a stride */

/* A frame of trits, 48 bytes: a [rows, cols] matrix, row after row without padding. */
typedef struct tfmbs_tfd_t {
  uint64_t base_addr; /* of the device; ignored */
  uint32_t frame_len; /* trits: rows * cols */
  uint32_t rows;      /* outputs */
  uint32_t cols;      /* inputs, at most 131071 */
  uint16_t packing_fmt;
  uint16_t lane_count;
  uint32_t lane_stride; /* trits from one row to the next: cols */
  uint32_t flags;
  uint32_t exec_hints;
  uint8_t version; /* 1 */
  uint8_t tile_mask;
  uint8_t reserved[10]; /* 0 */
} tfmbs_tfd_t;

/* An initialiser of a frame with the usual values. */
#define TFMBS_FRAME(rows, cols)                                                         \
  {                                                                                     \
    0, (uint32_t)(rows) * (uint32_t)(cols), (rows), (cols), TFMBS_PACK_PT5, 15, (cols), \
        TFMBS_FLAG_READ, TFMBS_KERNEL_TGEMM, 1, 0x0F, {                                 \
      0                                                                                 \
    }                                                                                   \
  }
/* Bytes of so many trits. */
#define TFMBS_PT5_BYTES(trits) (((trits) + 4) / 5)

typedef enum tfmbs_scale_kind {
  TFMBS_SCALE_TENSOR = 0, /* values: [1] */
  TFMBS_SCALE_ROW = 1,    /* [rows] */
  TFMBS_SCALE_GROUP = 2   /* [rows, ceil(cols / group)] */
} tfmbs_scale_kind;

typedef struct tfmbs_scales {
  uint32_t kind;  /* tfmbs_scale_kind */
  uint32_t group; /* columns per scale, a multiple of 32; of TFMBS_SCALE_GROUP */
  uint64_t count; /* of values */
  const float* values;
} tfmbs_scales;

/* One plane of a sum of planes. */
typedef struct tfmbs_plane {
  tfmbs_tfd_t frame;
  const void* trits;
  uint64_t bytes;
  const tfmbs_scales* scales; /* NULL: 1 */
} tfmbs_plane;
#define TFMBS_MAX_PLANES 8

typedef struct tfmbs_config {
  uint32_t size;        /* sizeof(tfmbs_config) */
  uint32_t threads;     /* 0 = the CPUs that the process may use */
  const char* device;   /* "sim" (NULL), "reference", "stub", "ioctl" */
  const char* faults;   /* of "ioctl", for tests: "timeout=0.01,busy=0.02"; NULL = none */
  uint64_t pool_bytes;  /* of the device, for frames at one time; 0 = no bound. What does not fit
                           waits in host memory and is fetched when a product needs it */
  uint32_t watchdog_ms; /* of "ioctl"; 0 = 500 */
  uint32_t queue_depth; /* tasks that tfmbs_submit() takes; 0 = 64 */
  double check_rate;    /* share of results verified on devices that can fail; 0 = none */
} tfmbs_config;
/* The defaults; check_rate is 1. */
#define TFMBS_CONFIG_INIT \
  { sizeof(tfmbs_config), 0, NULL, NULL, 0, 0, 0, 1.0 }

/* config: NULL for the defaults. TFMBS_ERR_UNSUPPORTED: another size, device or list of faults. */
TFMBS_API tfmbs_status tfmbs_init(const tfmbs_config* config, tfmbs_ctx** ctx);
/* Ends what is under way and frees everything. No other call may be running. NULL does nothing. */
TFMBS_API void tfmbs_shutdown(tfmbs_ctx* ctx);
/* A sentence, for any number. Static. */
TFMBS_API const char* tfmbs_strerror(tfmbs_status status);

/* W = scale * trits. bytes: of trits, at least TFMBS_PT5_BYTES(frame_len). scales: NULL for 1. The
 * caller's memory may be reused when the call returns. Shapes from 1 x 1; fewer than 2^32 trits. */
TFMBS_API tfmbs_status tfmbs_upload_frame(tfmbs_ctx* ctx, const tfmbs_tfd_t* descriptor,
                                          const void* trits, uint64_t bytes,
                                          const tfmbs_scales* scales, tfmbs_frame* frame);
/* W = sum over i of alphas[i] * plane i, of n planes (1 to TFMBS_MAX_PLANES) of one shape. Products
 * are added as floats in the order of the planes, each plane's scale times its alpha before.
 * layer_id: the caller's, told again by tfmbs_query_residency(). */
TFMBS_API tfmbs_status tfmbs_upload_planes(tfmbs_ctx* ctx, uint64_t layer_id,
                                           const tfmbs_plane* planes, const float* alphas,
                                           uint32_t n, tfmbs_frame* frame);
/* A pinned frame is resident until it is unpinned, and cannot be freed (TFMBS_ERR_BUSY). Pins are
 * counted; TFMBS_ERR_ADDR: not pinned. TFMBS_ERR_NOMEM: a bounded pool has no room for it beside
 * what is pinned already. */
TFMBS_API tfmbs_status tfmbs_pin(tfmbs_ctx* ctx, tfmbs_frame frame);
TFMBS_API tfmbs_status tfmbs_unpin(tfmbs_ctx* ctx, tfmbs_frame frame);
/* Tasks that were submitted and have not begun end with TFMBS_ERR_STALE. */
TFMBS_API tfmbs_status tfmbs_free(tfmbs_ctx* ctx, tfmbs_frame frame);

typedef struct tfmbs_residency {
  uint64_t bytes; /* that the frame takes in the pool */
  uint64_t layer_id;
  uint32_t resident; /* 0: a product fetches it first. Any time may change it, but for a pin */
  uint32_t pins;
  uint32_t planes;
  uint32_t rows;
  uint32_t cols;
  uint32_t reserved;
} tfmbs_residency;
TFMBS_API tfmbs_status tfmbs_query_residency(tfmbs_ctx* ctx, tfmbs_frame frame,
                                             tfmbs_residency* residency);

/* y[rows] = W x[cols]. x is rounded to int8 with one scale per vector, s = 127 / max(|x|, 1e-5), as
 * models with ternary weights are trained; sums are exact. An x that is not finite is
 * TFMBS_ERR_PACK. y may not overlap x. */
TFMBS_API tfmbs_status tfmbs_run_gemv(tfmbs_ctx* ctx, tfmbs_frame frame, const float* x, float* y);
/* y[batch, rows] = x[batch, cols] W^T, each vector as above. */
TFMBS_API tfmbs_status tfmbs_run_gemm(tfmbs_ctx* ctx, tfmbs_frame frame, const float* x,
                                      uint32_t batch, float* y);

typedef enum tfmbs_x_kind {
  TFMBS_X_FLOAT = 0,      /* float [batch, cols]; scales unused */
  TFMBS_X_INT8_TOKEN = 1, /* int8 [batch, cols], real value code / s; x_scales: s, [batch] */
  TFMBS_X_INT8_BLOCK = 2  /* int8 [batch, cols], real value code * d; d per 32 columns,
                             [batch, ceil(cols / 32)] */
} tfmbs_x_kind;

/* Strides are in elements; 0 means without padding. */
typedef struct tfmbs_op {
  tfmbs_frame frame;
  uint32_t x_kind; /* tfmbs_x_kind */
  uint32_t batch;
  const void* x;
  uint64_t x_stride;
  const float* x_scales;
  uint64_t x_scale_stride;
  float* y; /* [batch, y_stride] */
  uint64_t y_stride;
} tfmbs_op;
#define TFMBS_MAX_OPS 64

/* Queues n products (1 to TFMBS_MAX_OPS) that do not read each other's y. All are checked before
 * any is queued. x, x_scales and y are the library's until tfmbs_wait() or tfmbs_poll() has told
 * the end. TFMBS_ERR_BUSY: the queue is full. */
TFMBS_API tfmbs_status tfmbs_submit(tfmbs_ctx* ctx, const tfmbs_op* ops, uint32_t n,
                                    tfmbs_ticket* ticket);
/* TFMBS_PENDING until the task has ended; then, once, how. */
TFMBS_API tfmbs_status tfmbs_poll(tfmbs_ctx* ctx, tfmbs_ticket ticket);
/* As poll, after at most timeout_ms. TFMBS_ERR_TIMEOUT: not yet; the task goes on and its ticket
 * stays. */
TFMBS_API tfmbs_status tfmbs_wait(tfmbs_ctx* ctx, tfmbs_ticket ticket, uint32_t timeout_ms);

/* Since tfmbs_init(). docs/fabric.md has the formulas; the energy is a proxy from a table. */
typedef struct tfmbs_metrics {
  uint64_t projections; /* matrix-vector products */
  uint64_t total_ops;   /* rows * cols of each */
  uint64_t active_ops;  /* weight and code both non-zero */
  uint64_t weight_bytes;
  uint64_t mem_reads;
  uint64_t mem_writes;
  uint64_t broadcasts;
  uint64_t lanes_used;
  uint64_t cycles_gated;
  uint64_t cycles_column_skip;
  double fabric_cost;
  double energy_picojoules;
  double fabric_seconds;
  uint64_t uploaded_bytes; /* of frames and planes: does not grow when products run */
  uint64_t faults;         /* failed submissions to the device, second attempts included */
  uint64_t host_fallbacks; /* products that the host ran after the device had failed twice */
  /* Of a bounded pool, and else 0. */
  uint64_t residency_hits;   /* products whose plane was there or on its way */
  uint64_t residency_misses; /* products that had to have it fetched */
  uint64_t evictions;
  uint64_t prefetches_used;   /* planes fetched ahead, and then read */
  uint64_t prefetches_wasted; /* planes fetched ahead, and evicted before */
  uint64_t fetched_bytes;
} tfmbs_metrics;
TFMBS_API tfmbs_status tfmbs_get_metrics(tfmbs_ctx* ctx, tfmbs_metrics* metrics);

typedef struct tfmbs_info {
  uint32_t version; /* TFMBS_VERSION of the library */
  uint32_t threads;
  uint32_t lanes_per_tile;
  uint32_t tiles;
  uint32_t frames;     /* that were uploaded and not freed */
  uint32_t in_service; /* 0: the device has failed for good and the host runs everything */
  uint64_t pool_bytes; /* 0 = no bound */
  uint64_t pool_used;
  char device[16];
  char isa[16]; /* "avx512vnni" */
} tfmbs_info;
TFMBS_API tfmbs_status tfmbs_get_info(tfmbs_ctx* ctx, tfmbs_info* info);

#ifdef __cplusplus
}
#endif

#endif /* TFMBS_HOST_H_ */
