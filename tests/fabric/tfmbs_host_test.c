/* The C interface as a C11 program sees it, with nothing linked but libtfmbs: a layer is loaded and
 * run in five lines; every function does what the header says; no argument that can be checked is
 * believed. */
#include "tfmbs_host.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(tfmbs_tfd_t) == 48, "the descriptor's size is part of the interface");
_Static_assert(offsetof(tfmbs_tfd_t, packing_fmt) == 20, "and so is its layout");
_Static_assert(offsetof(tfmbs_tfd_t, reserved) == 38, "to the last byte");

static int failures = 0;

static void Expect(int line, const char* text, int holds) {
  if (holds) return;
  ++failures;
  fprintf(stderr, "line %d: %s does not hold\n", line, text);
}
#define EXPECT(condition) Expect(__LINE__, #condition, (condition) != 0)
#define EXPECT_OK(call) Expect(__LINE__, #call, (call) == TFMBS_OK)

enum { kRows = 33, kCols = 70, kBatch = 3, kBytes = TFMBS_PT5_BYTES(kRows * kCols) };

static int8_t trits[kRows * kCols];
static uint8_t packed[kBytes];
static float x[kBatch * kCols];
static float y[kBatch * kRows];

/* Not a generator of quality: the same on every machine. */
static unsigned Next(void) {
  static unsigned state = 1;
  state = state * 1664525u + 1013904223u;
  return state >> 16;
}

static void Pack(const int8_t* from, uint8_t* to) {
  memset(to, 0, kBytes);
  for (int byte = 0; byte < kBytes; ++byte) {
    int value = 0;
    for (int i = 4; i >= 0; --i) {
      const int at = byte * 5 + i;
      value = value * 3 + (at < kRows * kCols ? from[at] : 0) + 1;
    }
    to[byte] = (uint8_t)value;
  }
}

static void MakeData(void) {
  for (int i = 0; i < kRows * kCols; ++i) trits[i] = (int8_t)((int)(Next() % 3) - 1);
  Pack(trits, packed);
  for (int i = 0; i < kBatch * kCols; ++i) x[i] = (float)((int)(Next() % 2001) - 1000) / 1000.0f;
}

/* The definition: int8 with one scale per vector, exact sums, one multiplication. */
static float Defined(const float* vector, int row, float weight_scale) {
  float largest = 1e-5f;
  for (int c = 0; c < kCols; ++c) {
    if (fabsf(vector[c]) > largest) largest = fabsf(vector[c]);
  }
  const float s = 127.0f / largest;
  int sum = 0;
  for (int c = 0; c < kCols; ++c) {
    sum += trits[row * kCols + c] * (int)nearbyintf(vector[c] * s);
  }
  return (float)sum * (weight_scale / s);
}

static void ALayerInFiveLines(void) {
  tfmbs_ctx* ctx = NULL;
  tfmbs_frame layer = 0;
  const tfmbs_tfd_t frame = TFMBS_FRAME(kRows, kCols);
  EXPECT_OK(tfmbs_init(NULL, &ctx));
  EXPECT_OK(tfmbs_upload_frame(ctx, &frame, packed, kBytes, NULL, &layer));
  EXPECT_OK(tfmbs_run_gemv(ctx, layer, x, y));
  tfmbs_shutdown(ctx);
  for (int row = 0; row < kRows; ++row) EXPECT(y[row] == Defined(x, row, 1.0f));
}

static void Products(tfmbs_ctx* ctx) {
  const tfmbs_tfd_t frame = TFMBS_FRAME(kRows, kCols);
  float row_scales[kRows];
  for (int row = 0; row < kRows; ++row) row_scales[row] = 0.25f + (float)row;
  const tfmbs_scales scales = {TFMBS_SCALE_ROW, 0, kRows, row_scales};
  tfmbs_frame layer = 0;
  EXPECT_OK(tfmbs_upload_frame(ctx, &frame, packed, kBytes, &scales, &layer));
  EXPECT_OK(tfmbs_run_gemm(ctx, layer, x, kBatch, y));
  for (int b = 0; b < kBatch; ++b) {
    for (int row = 0; row < kRows; ++row) {
      EXPECT(y[b * kRows + row] == Defined(x + b * kCols, row, row_scales[row]));
    }
  }
  /* The same codes given as int8, with padding between the vectors. */
  enum { kStride = kCols + 9 };
  static int8_t codes[kBatch * kStride];
  float s[kBatch];
  float padded[kBatch * (kRows + 2)];
  for (int b = 0; b < kBatch; ++b) {
    float largest = 1e-5f;
    for (int c = 0; c < kCols; ++c) largest = fmaxf(largest, fabsf(x[b * kCols + c]));
    s[b] = 127.0f / largest;
    for (int c = 0; c < kCols; ++c) {
      codes[b * kStride + c] = (int8_t)nearbyintf(x[b * kCols + c] * s[b]);
    }
  }
  const tfmbs_op op = {.frame = layer, .x_kind = TFMBS_X_INT8_TOKEN, .batch = kBatch, .x = codes,
                       .x_stride = kStride, .x_scales = s, .y = padded, .y_stride = kRows + 2};
  tfmbs_ticket ticket = 0;
  EXPECT_OK(tfmbs_submit(ctx, &op, 1, &ticket));
  EXPECT_OK(tfmbs_wait(ctx, ticket, 60000));
  EXPECT(tfmbs_wait(ctx, ticket, 0) == TFMBS_ERR_STALE);
  EXPECT(tfmbs_poll(ctx, ticket) == TFMBS_ERR_STALE);
  for (int b = 0; b < kBatch; ++b) {
    EXPECT(memcmp(padded + b * (kRows + 2), y + b * kRows, kRows * sizeof(float)) == 0);
  }
  /* Two frames under one ticket, polled for. */
  float second[kRows];
  const tfmbs_op two[] = {{.frame = layer, .batch = 1, .x = x, .y = y},
                          {.frame = layer, .batch = 1, .x = x + kCols, .y = second}};
  EXPECT_OK(tfmbs_submit(ctx, two, 2, &ticket));
  tfmbs_status status = TFMBS_PENDING;
  while (status == TFMBS_PENDING) status = tfmbs_poll(ctx, ticket);
  EXPECT(status == TFMBS_OK);
  EXPECT(second[5] == Defined(x + kCols, 5, row_scales[5]));
  EXPECT_OK(tfmbs_free(ctx, layer));
}

static void Planes(tfmbs_ctx* ctx) {
  /* 3 W + W as two planes of the same trits. */
  const tfmbs_plane planes[] = {{TFMBS_FRAME(kRows, kCols), packed, kBytes, NULL},
                                {TFMBS_FRAME(kRows, kCols), packed, kBytes, NULL}};
  const float alphas[] = {3.0f, 1.0f};
  tfmbs_frame frame = 0;
  EXPECT_OK(tfmbs_upload_planes(ctx, 77, planes, alphas, 2, &frame));
  EXPECT_OK(tfmbs_run_gemv(ctx, frame, x, y));
  for (int row = 0; row < kRows; ++row) {
    EXPECT(y[row] == Defined(x, row, 3.0f) + Defined(x, row, 1.0f));
  }
  tfmbs_residency residency;
  EXPECT_OK(tfmbs_query_residency(ctx, frame, &residency));
  EXPECT(residency.layer_id == 77 && residency.planes == 2 && residency.resident == 1);
  EXPECT(residency.rows == kRows && residency.cols == kCols && residency.bytes > 0);
  EXPECT(tfmbs_upload_planes(ctx, 1, planes, alphas, 0, &frame) == TFMBS_ERR_UNSUPPORTED);
  EXPECT(tfmbs_upload_planes(ctx, 1, planes, alphas, 9, &frame) == TFMBS_ERR_UNSUPPORTED);
  EXPECT(tfmbs_upload_planes(ctx, 1, planes, NULL, 2, &frame) == TFMBS_ERR_ADDR);
  EXPECT_OK(tfmbs_free(ctx, frame));
}

static void Handles(tfmbs_ctx* ctx) {
  const tfmbs_tfd_t frame = TFMBS_FRAME(kRows, kCols);
  tfmbs_frame first = 0;
  tfmbs_frame second = 0;
  EXPECT_OK(tfmbs_upload_frame(ctx, &frame, packed, kBytes, NULL, &first));
  EXPECT(tfmbs_unpin(ctx, first) == TFMBS_ERR_ADDR);
  EXPECT_OK(tfmbs_pin(ctx, first));
  EXPECT(tfmbs_free(ctx, first) == TFMBS_ERR_BUSY);
  EXPECT_OK(tfmbs_unpin(ctx, first));
  EXPECT_OK(tfmbs_free(ctx, first));
  EXPECT(tfmbs_free(ctx, first) == TFMBS_ERR_STALE);
  EXPECT_OK(tfmbs_upload_frame(ctx, &frame, packed, kBytes, NULL, &second));
  EXPECT(second != first);
  EXPECT(tfmbs_run_gemv(ctx, first, x, y) == TFMBS_ERR_STALE);
  EXPECT(tfmbs_pin(ctx, 0) == TFMBS_ERR_STALE && tfmbs_pin(ctx, UINT64_MAX) == TFMBS_ERR_STALE);
  EXPECT(tfmbs_poll(ctx, 0) == TFMBS_ERR_STALE);
  tfmbs_tfd_t pinned = frame;
  pinned.flags |= TFMBS_FLAG_PINNED;
  EXPECT_OK(tfmbs_upload_frame(ctx, &pinned, packed, kBytes, NULL, &first));
  EXPECT(tfmbs_free(ctx, first) == TFMBS_ERR_BUSY);
  EXPECT_OK(tfmbs_unpin(ctx, first));
  EXPECT_OK(tfmbs_free(ctx, first));
  EXPECT_OK(tfmbs_free(ctx, second));
}

static tfmbs_status Upload(tfmbs_ctx* ctx, tfmbs_tfd_t frame, uint64_t bytes,
                           const tfmbs_scales* scales) {
  tfmbs_frame handle = 0;
  const tfmbs_status status = tfmbs_upload_frame(ctx, &frame, packed, bytes, scales, &handle);
  EXPECT(status == TFMBS_OK || handle == 0);
  if (status == TFMBS_OK) EXPECT_OK(tfmbs_free(ctx, handle));
  return status;
}

static void HostileDescriptors(tfmbs_ctx* ctx) {
  const tfmbs_tfd_t good = TFMBS_FRAME(kRows, kCols);
  EXPECT(Upload(ctx, good, kBytes, NULL) == TFMBS_OK);
  EXPECT(Upload(ctx, good, kBytes - 1, NULL) == TFMBS_ERR_ADDR);
  EXPECT(Upload(ctx, good, 0, NULL) == TFMBS_ERR_ADDR);
  tfmbs_tfd_t bad = good;
  bad.rows += 1;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_ADDR);
  bad = good;
  bad.rows = 0;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_ADDR);
  bad = good;
  bad.frame_len = UINT32_MAX;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_ADDR);
  /* A product of rows and columns that is the right length modulo 2^32. */
  bad = good;
  bad.rows = 1u << 31;
  bad.cols = 2;
  bad.frame_len = 0;
  bad.lane_stride = 2;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_ADDR);
  bad = good;
  bad.lane_stride += 1;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_ADDR);
  bad = good;
  bad.packing_fmt = 2;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_UNSUPPORTED);
  bad = good;
  bad.version = 2;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_UNSUPPORTED);
  bad = good;
  bad.exec_hints = 0x09; /* a convolution, say */
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_UNSUPPORTED);
  bad = good;
  bad.exec_hints |= 1u << 25;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_OK);
  bad.flags |= TFMBS_FLAG_CRITICAL;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_UNSUPPORTED);
  bad = good;
  bad.reserved[3] = 1;
  EXPECT(Upload(ctx, bad, kBytes, NULL) == TFMBS_ERR_UNSUPPORTED);

  static const float values[kRows * 4];
  const tfmbs_scales wrong[] = {{TFMBS_SCALE_TENSOR, 0, 2, values},
                                {TFMBS_SCALE_ROW, 0, kRows - 1, values},
                                {TFMBS_SCALE_ROW, 0, kRows, NULL},
                                {TFMBS_SCALE_GROUP, 32, kRows * 2, values},
                                {TFMBS_SCALE_GROUP, 32, UINT64_MAX, values}};
  for (int i = 0; i < 5; ++i) EXPECT(Upload(ctx, good, kBytes, &wrong[i]) == TFMBS_ERR_ADDR);
  const tfmbs_scales unknown[] = {{3, 0, 1, values}, {TFMBS_SCALE_GROUP, 33, kRows * 3, values},
                                  {TFMBS_SCALE_GROUP, 0, 1, values}};
  for (int i = 0; i < 3; ++i) {
    EXPECT(Upload(ctx, good, kBytes, &unknown[i]) == TFMBS_ERR_UNSUPPORTED);
  }
  const tfmbs_scales groups = {TFMBS_SCALE_GROUP, 32, kRows * 3, values};
  EXPECT(Upload(ctx, good, kBytes, &groups) == TFMBS_OK);

  packed[7] = 250;
  EXPECT(Upload(ctx, good, kBytes, NULL) == TFMBS_ERR_PACK);
  Pack(trits, packed);
}

static void HostileOps(tfmbs_ctx* ctx) {
  const tfmbs_tfd_t frame = TFMBS_FRAME(kRows, kCols);
  tfmbs_frame layer = 0;
  tfmbs_ticket ticket = 0;
  EXPECT_OK(tfmbs_upload_frame(ctx, &frame, packed, kBytes, NULL, &layer));
  const tfmbs_op good = {.frame = layer, .batch = 1, .x = x, .y = y};
  tfmbs_op bad[9];
  for (int i = 0; i < 9; ++i) bad[i] = good;
  bad[0].x = NULL;
  bad[1].y = NULL;
  bad[2].batch = 0;
  bad[3].batch = UINT32_MAX;
  bad[4].x_stride = kCols - 1;
  bad[5].y_stride = kRows - 1;
  bad[6].y_stride = UINT64_MAX;
  bad[7].x_kind = TFMBS_X_INT8_TOKEN; /* without scales */
  bad[8].x_stride = UINT64_MAX;
  for (int i = 0; i < 9; ++i) {
    const tfmbs_op ops[] = {good, bad[i]};
    EXPECT(tfmbs_submit(ctx, ops, 2, &ticket) == TFMBS_ERR_ADDR);
  }
  tfmbs_op kind = good;
  kind.x_kind = 3;
  EXPECT(tfmbs_submit(ctx, &kind, 1, &ticket) == TFMBS_ERR_UNSUPPORTED);
  EXPECT(tfmbs_submit(ctx, &good, 0, &ticket) == TFMBS_ERR_ADDR);
  EXPECT(tfmbs_submit(ctx, &good, TFMBS_MAX_OPS + 1, &ticket) == TFMBS_ERR_ADDR);
  EXPECT(tfmbs_submit(ctx, NULL, 1, &ticket) == TFMBS_ERR_ADDR);
  EXPECT(tfmbs_submit(ctx, &good, 1, NULL) == TFMBS_ERR_ADDR);
  EXPECT(tfmbs_run_gemv(ctx, layer, NULL, y) == TFMBS_ERR_ADDR);
  EXPECT(tfmbs_run_gemv(NULL, layer, x, y) == TFMBS_ERR_ADDR);
  const float kept = x[3];
  x[3] = NAN;
  EXPECT(tfmbs_run_gemv(ctx, layer, x, y) == TFMBS_ERR_PACK);
  x[3] = kept;
  EXPECT_OK(tfmbs_run_gemv(ctx, layer, x, y));
  EXPECT_OK(tfmbs_free(ctx, layer));
}

static void Configurations(void) {
  tfmbs_ctx* ctx = NULL;
  EXPECT(tfmbs_init(NULL, NULL) == TFMBS_ERR_ADDR);
  tfmbs_config config = TFMBS_CONFIG_INIT;
  config.device = "abacus";
  EXPECT(tfmbs_init(&config, &ctx) == TFMBS_ERR_UNSUPPORTED);
  config.device = NULL;
  config.faults = "fire=1";
  EXPECT(tfmbs_init(&config, &ctx) == TFMBS_ERR_UNSUPPORTED);
  config.faults = NULL;
  config.size = 8;
  EXPECT(tfmbs_init(&config, &ctx) == TFMBS_ERR_UNSUPPORTED);
  config.size = sizeof config;
  config.check_rate = NAN;
  EXPECT(tfmbs_init(&config, &ctx) == TFMBS_ERR_UNSUPPORTED);
  EXPECT(ctx == NULL);
  tfmbs_shutdown(NULL);

  config.check_rate = 1;
  EXPECT_OK(tfmbs_init(&config, &ctx));
  tfmbs_info info;
  EXPECT_OK(tfmbs_get_info(ctx, &info));
  EXPECT(info.version == TFMBS_VERSION && info.frames == 0 && info.in_service == 1);
  EXPECT(info.pool_bytes == 0 && info.pool_used == 0);
  EXPECT(strcmp(info.device, "sim") == 0 && strlen(info.isa) > 0);
  tfmbs_shutdown(ctx);
}

static uint32_t IsResident(tfmbs_ctx* ctx, tfmbs_frame frame) {
  tfmbs_residency residency;
  EXPECT_OK(tfmbs_query_residency(ctx, frame, &residency));
  return residency.resident;
}

/* More frames than the pool holds: the results of an unbounded one, fetched as they are needed. */
static void APoolSmallerThanItsFrames(const char* device) {
  enum { kFrames = 5 };
  tfmbs_ctx* whole = NULL;
  tfmbs_ctx* ctx = NULL;
  tfmbs_frame expected[kFrames];
  tfmbs_frame frames[kFrames];
  float y_whole[kRows];
  const tfmbs_tfd_t frame = TFMBS_FRAME(kRows, kCols);
  tfmbs_config config = TFMBS_CONFIG_INIT;
  config.device = device;
  EXPECT_OK(tfmbs_init(&config, &whole));
  tfmbs_residency one;
  for (int i = 0; i < kFrames; ++i) {
    const float scale = 1.0f + (float)i;
    const tfmbs_scales scales = {TFMBS_SCALE_TENSOR, 0, 1, &scale};
    EXPECT_OK(tfmbs_upload_frame(whole, &frame, packed, kBytes, &scales, &expected[i]));
  }
  /* Two frames and not three, whichever layout is measured to be faster (832 or 1024 bytes). */
  config.pool_bytes = 2304;
  EXPECT_OK(tfmbs_init(&config, &ctx));
  for (int i = 0; i < kFrames; ++i) {
    const float scale = 1.0f + (float)i;
    const tfmbs_scales scales = {TFMBS_SCALE_TENSOR, 0, 1, &scale};
    EXPECT_OK(tfmbs_upload_frame(ctx, &frame, packed, kBytes, &scales, &frames[i]));
  }
  for (int i = 0; i < 4 * kFrames; ++i) {
    const int f = (int)(Next() % kFrames);
    EXPECT_OK(tfmbs_run_gemv(whole, expected[f], x, y_whole));
    EXPECT_OK(tfmbs_run_gemv(ctx, frames[f], x, y));
    EXPECT(memcmp(y, y_whole, sizeof y_whole) == 0);
    EXPECT(IsResident(ctx, frames[f]) == 1);
  }
  tfmbs_info info;
  EXPECT_OK(tfmbs_query_residency(ctx, frames[0], &one));
  EXPECT(2 * one.bytes <= config.pool_bytes && 3 * one.bytes > config.pool_bytes);
  EXPECT_OK(tfmbs_get_info(ctx, &info));
  EXPECT(info.frames == kFrames && info.pool_bytes == config.pool_bytes);
  EXPECT(info.pool_used >= one.bytes && info.pool_used <= info.pool_bytes);
  tfmbs_metrics metrics;
  EXPECT_OK(tfmbs_get_metrics(ctx, &metrics));
  EXPECT(metrics.residency_hits + metrics.residency_misses == 4 * kFrames);
  EXPECT(metrics.evictions > 0 && metrics.fetched_bytes > metrics.uploaded_bytes);
  EXPECT(metrics.faults == 0 && metrics.host_fallbacks == 0);

  /* What is pinned stays; what has no room beside it can neither be pinned nor run. */
  EXPECT_OK(tfmbs_pin(ctx, frames[0]));
  for (int i = 1; i < kFrames; ++i) EXPECT_OK(tfmbs_run_gemv(ctx, frames[i], x, y));
  EXPECT(IsResident(ctx, frames[0]) == 1);
  EXPECT_OK(tfmbs_pin(ctx, frames[1]));
  EXPECT_OK(tfmbs_pin(ctx, frames[1]));
  EXPECT(tfmbs_pin(ctx, frames[2]) == TFMBS_ERR_NOMEM && IsResident(ctx, frames[2]) == 0);
  EXPECT_OK(tfmbs_unpin(ctx, frames[1]));
  EXPECT(tfmbs_pin(ctx, frames[2]) == TFMBS_ERR_NOMEM);
  EXPECT_OK(tfmbs_unpin(ctx, frames[1]));
  EXPECT_OK(tfmbs_pin(ctx, frames[2]));
  EXPECT_OK(tfmbs_unpin(ctx, frames[2]));

  /* An evicted frame's handle is good, a freed one's is not, and its memory is another's. */
  EXPECT_OK(tfmbs_free(ctx, frames[3]));
  EXPECT(tfmbs_run_gemv(ctx, frames[3], x, y) == TFMBS_ERR_STALE);
  EXPECT_OK(tfmbs_run_gemv(ctx, frames[4], x, y));

  /* A frame that is larger than the pool. */
  static uint8_t zeros[TFMBS_PT5_BYTES(kRows * 16 * kCols)];
  memset(zeros, 121, sizeof zeros);
  const tfmbs_tfd_t large = TFMBS_FRAME(kRows * 16, kCols);
  EXPECT(tfmbs_upload_frame(ctx, &large, zeros, sizeof zeros, NULL, &frames[3]) ==
         TFMBS_ERR_NOMEM);
  tfmbs_shutdown(ctx);
  tfmbs_shutdown(whole);
}

/* Every device gives the same bits, and one that fails is replaced by the host. */
static void Devices(void) {
  const struct {
    const char* device;
    const char* faults;
  } cases[] = {{"reference", NULL}, {"stub", NULL}, {"ioctl", NULL}, {"ioctl", "corrupt=1"}};
  for (int i = 0; i < 4; ++i) {
    tfmbs_config config = TFMBS_CONFIG_INIT;
    config.device = cases[i].device;
    config.faults = cases[i].faults;
    tfmbs_ctx* ctx = NULL;
    tfmbs_frame layer = 0;
    tfmbs_metrics before;
    tfmbs_metrics after;
    tfmbs_info info;
    const tfmbs_tfd_t frame = TFMBS_FRAME(kRows, kCols);
    EXPECT_OK(tfmbs_init(&config, &ctx));
    EXPECT_OK(tfmbs_upload_frame(ctx, &frame, packed, kBytes, NULL, &layer));
    EXPECT_OK(tfmbs_get_metrics(ctx, &before));
    for (int run = 0; run < 6; ++run) {
      memset(y, 0, sizeof y);
      EXPECT_OK(tfmbs_run_gemv(ctx, layer, x, y));
      for (int row = 0; row < kRows; ++row) EXPECT(y[row] == Defined(x, row, 1.0f));
    }
    EXPECT_OK(tfmbs_get_metrics(ctx, &after));
    EXPECT(after.uploaded_bytes == before.uploaded_bytes && after.uploaded_bytes > 0);
    EXPECT_OK(tfmbs_get_info(ctx, &info));
    if (cases[i].faults == NULL) {
      EXPECT(after.projections == 6 && after.total_ops == 6 * kRows * kCols);
      EXPECT(after.faults == 0 && info.in_service == 1);
    } else {
      EXPECT(after.faults == 8 && after.host_fallbacks == 4 && info.in_service == 0);
    }
    tfmbs_shutdown(ctx);
  }
}

/* Contexts end while work is queued. */
static void ShutdownWithWorkUnderWay(void) {
  tfmbs_config config = TFMBS_CONFIG_INIT;
  config.queue_depth = 4;
  tfmbs_ctx* ctx = NULL;
  tfmbs_frame layer = 0;
  const tfmbs_tfd_t frame = TFMBS_FRAME(kRows, kCols);
  EXPECT_OK(tfmbs_init(&config, &ctx));
  EXPECT_OK(tfmbs_upload_frame(ctx, &frame, packed, kBytes, NULL, &layer));
  const tfmbs_op op = {.frame = layer, .batch = kBatch, .x = x, .y = y};
  tfmbs_ticket ticket = 0;
  for (int i = 0; i < 4; ++i) EXPECT_OK(tfmbs_submit(ctx, &op, 1, &ticket));
  EXPECT(tfmbs_submit(ctx, &op, 1, &ticket) == TFMBS_ERR_BUSY);
  tfmbs_shutdown(ctx);
}

int main(void) {
  MakeData();
  ALayerInFiveLines();
  tfmbs_ctx* ctx = NULL;
  EXPECT_OK(tfmbs_init(NULL, &ctx));
  Products(ctx);
  Planes(ctx);
  Handles(ctx);
  HostileDescriptors(ctx);
  HostileOps(ctx);
  tfmbs_info info;
  EXPECT_OK(tfmbs_get_info(ctx, &info));
  EXPECT(info.frames == 0 && info.pool_used == 0);
  tfmbs_shutdown(ctx);
  Configurations();
  APoolSmallerThanItsFrames(NULL);
  APoolSmallerThanItsFrames("ioctl");
  Devices();
  ShutdownWithWorkUnderWay();
  for (int status = -1; status < 12; ++status) {
    EXPECT(strlen(tfmbs_strerror((tfmbs_status)status)) > 10);
  }
  if (failures > 0) fprintf(stderr, "%d expectations failed\n", failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
