#include "fabric/include/tfmbs_host.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "fabric/cpu/isa.h"
#include "fabric/frame.h"
#include "fabric/host/host_context.h"
#include "fabric/pt5.h"

static_assert(sizeof(tfmbs_tfd_t) == sizeof(fabric::FrameDescriptor));
static_assert(offsetof(tfmbs_tfd_t, exec_hints) == 32 && offsetof(tfmbs_tfd_t, reserved) == 38);
static_assert(TFMBS_ERR_GONE == static_cast<int>(fabric::Status::kErrGone));
static_assert(TFMBS_PACK_PT5_HW == fabric::kPackingPt5Hardware);
static_assert(TFMBS_FLAG_PINNED == fabric::kFramePinned);
static_assert(TFMBS_HINT_FUSED == fabric::kHintFused);
static_assert(TFMBS_X_INT8_BLOCK == static_cast<int>(fabric::ActivationKind::kInt8Block));

struct tfmbs_ctx {
  explicit tfmbs_ctx(const fabric::host::ContextOptions& options) : context(options) {}
  fabric::host::HostContext context;
};

namespace {

using fabric::Status;
using fabric::TernaryFrame;
using fabric::host::HostContext;
using fabric::host::Product;

tfmbs_status StatusOf(Status status) { return static_cast<tfmbs_status>(status); }

// Runs a call and turns what it throws into a status: no exception crosses into C.
template <typename Call>
tfmbs_status Guarded(Call call) noexcept {
  try {
    return StatusOf(call());
  } catch (const std::bad_alloc&) {
    return TFMBS_ERR_NOMEM;
  } catch (const std::exception&) {
    return TFMBS_ERR_UNSUPPORTED;
  }
}

Status OptionsOf(const tfmbs_config& config, fabric::host::ContextOptions* options) {
  constexpr uint32_t kMaxThreads = 4096;
  if (config.size != sizeof config) return Status::kErrUnsupported;
  if (config.threads > kMaxThreads || !(config.check_rate >= 0 && config.check_rate <= 1)) {
    return Status::kErrUnsupported;
  }
  options->threads = static_cast<int>(config.threads);
  options->fabric.pool_bytes = config.pool_bytes;
  if (config.queue_depth != 0) options->queue_depth = config.queue_depth;
  if (config.device != nullptr) options->fabric.device = config.device;
  if (config.faults != nullptr) options->fabric.faults = fabric::ParseFaultPlan(config.faults);
  if (config.watchdog_ms != 0) options->fabric.watchdog_ms = config.watchdog_ms;
  options->fabric.check_rate = config.check_rate;
  return Status::kOk;
}

// Scales of a frame, each times alpha. The count is checked before values are read.
Status CopyScales(const tfmbs_scales* scales, float alpha, TernaryFrame* frame) {
  const fabric::FrameDescriptor& shape = frame->descriptor;
  if (scales == nullptr) {
    frame->scales = {alpha};
    return Status::kOk;
  }
  uint64_t expected = 1;
  switch (scales->kind) {
    case TFMBS_SCALE_TENSOR:
      frame->scale_kind = fabric::ScaleKind::kTensor;
      break;
    case TFMBS_SCALE_ROW:
      frame->scale_kind = fabric::ScaleKind::kRow;
      expected = shape.rows;
      break;
    case TFMBS_SCALE_GROUP:
      if (scales->group == 0 || scales->group % fabric::kActivationBlock != 0) {
        return Status::kErrUnsupported;
      }
      frame->scale_kind = fabric::ScaleKind::kGroup;
      frame->group = scales->group;
      expected =
          uint64_t{shape.rows} * ((uint64_t{shape.cols} + scales->group - 1) / scales->group);
      break;
    default:
      return Status::kErrUnsupported;
  }
  if (scales->values == nullptr || scales->count != expected) return Status::kErrAddr;
  frame->scales.assign(scales->values, scales->values + expected);
  for (float& scale : frame->scales) scale *= alpha;
  return Status::kOk;
}

Status CopyFrame(const tfmbs_tfd_t& descriptor, const void* trits, uint64_t bytes,
                 const tfmbs_scales* scales, float alpha, TernaryFrame* frame) {
  frame->descriptor = std::bit_cast<fabric::FrameDescriptor>(descriptor);
  const fabric::FrameDescriptor& d = frame->descriptor;
  const Status hints = CheckHints(d);
  if (hints != Status::kOk) return hints;
  const uint64_t needed = fabric::Pt5Bytes(d.frame_len);
  if (trits == nullptr || d.rows == 0 || d.cols == 0 || bytes < needed ||
      uint64_t{d.rows} * d.cols != d.frame_len) {
    return Status::kErrAddr;
  }
  const Status status = CopyScales(scales, alpha, frame);
  if (status != Status::kOk) return status;
  const auto* first = static_cast<const uint8_t*>(trits);
  frame->bytes.assign(first, first + needed);
  return Status::kOk;
}

Status ProductOf(const tfmbs_op& op, Product* product) {
  if (op.x_kind > TFMBS_X_INT8_BLOCK) return Status::kErrUnsupported;
  *product = {.frame = op.frame,
              .kind = static_cast<fabric::ActivationKind>(op.x_kind),
              .batch = op.batch,
              .x = op.x,
              .x_stride = op.x_stride,
              .x_scales = op.x_scales,
              .x_scale_stride = op.x_scale_stride,
              .y = op.y,
              .y_stride = op.y_stride};
  return Status::kOk;
}

void CopyText(std::string_view text, char (&out)[16]) {
  std::memset(out, 0, sizeof out);
  std::memcpy(out, text.data(), std::min(text.size(), sizeof out - 1));
}

}  // namespace

tfmbs_status tfmbs_init(const tfmbs_config* config, tfmbs_ctx** ctx) {
  return Guarded([&] {
    if (ctx == nullptr) return Status::kErrAddr;
    fabric::host::ContextOptions options;
    const Status status = config == nullptr ? Status::kOk : OptionsOf(*config, &options);
    if (status == Status::kOk) *ctx = new tfmbs_ctx(options);
    return status;
  });
}

void tfmbs_shutdown(tfmbs_ctx* ctx) { delete ctx; }

const char* tfmbs_strerror(tfmbs_status status) {
  switch (status) {
    case TFMBS_OK:
      return "It is done.";
    case TFMBS_PENDING:
      return "The task has not ended yet.";
    case TFMBS_ERR_ADDR:
      return "A pointer is null, or a length, stride or count does not fit the frame.";
    case TFMBS_ERR_PACK:
      return "The trits hold a byte that is no code, or the vector a value that is not finite.";
    case TFMBS_ERR_BUSY:
      return "The queue is full, or the frame is pinned.";
    case TFMBS_ERR_UNSUPPORTED:
      return "The version, device, packing, kernel or shape is not known.";
    case TFMBS_ERR_NOMEM:
      return "There is no memory for it.";
    case TFMBS_ERR_TIMEOUT:
      return "The time is up before it has ended.";
    case TFMBS_ERR_STALE:
      return "The handle or ticket is not, or no longer, one.";
    case TFMBS_ERR_GONE:
      return "The device does not answer any more.";
  }
  return "This is no status of the Fabric.";
}

tfmbs_status tfmbs_upload_frame(tfmbs_ctx* ctx, const tfmbs_tfd_t* descriptor, const void* trits,
                                uint64_t bytes, const tfmbs_scales* scales, tfmbs_frame* frame) {
  return Guarded([&] {
    if (ctx == nullptr || descriptor == nullptr || frame == nullptr) return Status::kErrAddr;
    TernaryFrame copy;
    const Status status = CopyFrame(*descriptor, trits, bytes, scales, 1.0F, &copy);
    return status == Status::kOk ? ctx->context.Upload(0, {&copy, 1}, frame) : status;
  });
}

tfmbs_status tfmbs_upload_planes(tfmbs_ctx* ctx, uint64_t layer_id, const tfmbs_plane* planes,
                                 const float* alphas, uint32_t n, tfmbs_frame* frame) {
  return Guarded([&] {
    if (ctx == nullptr || planes == nullptr || alphas == nullptr || frame == nullptr) {
      return Status::kErrAddr;
    }
    if (n == 0 || n > TFMBS_MAX_PLANES) return Status::kErrUnsupported;
    std::vector<TernaryFrame> copies(n);
    for (uint32_t i = 0; i < n; ++i) {
      const tfmbs_plane& plane = planes[i];
      const Status status =
          CopyFrame(plane.frame, plane.trits, plane.bytes, plane.scales, alphas[i], &copies[i]);
      if (status != Status::kOk) return status;
    }
    return ctx->context.Upload(layer_id, copies, frame);
  });
}

tfmbs_status tfmbs_pin(tfmbs_ctx* ctx, tfmbs_frame frame) {
  return Guarded([&] { return ctx == nullptr ? Status::kErrAddr : ctx->context.Pin(frame); });
}

tfmbs_status tfmbs_unpin(tfmbs_ctx* ctx, tfmbs_frame frame) {
  return Guarded([&] { return ctx == nullptr ? Status::kErrAddr : ctx->context.Unpin(frame); });
}

tfmbs_status tfmbs_free(tfmbs_ctx* ctx, tfmbs_frame frame) {
  return Guarded([&] { return ctx == nullptr ? Status::kErrAddr : ctx->context.Free(frame); });
}

tfmbs_status tfmbs_query_residency(tfmbs_ctx* ctx, tfmbs_frame frame, tfmbs_residency* residency) {
  return Guarded([&] {
    if (ctx == nullptr || residency == nullptr) return Status::kErrAddr;
    fabric::host::FrameFacts facts;
    const Status status = ctx->context.Query(frame, &facts);
    if (status != Status::kOk) return status;
    *residency = {.bytes = facts.bytes,
                  .layer_id = facts.layer_id,
                  .resident = facts.resident ? 1U : 0U,
                  .pins = facts.pins,
                  .planes = facts.planes,
                  .rows = facts.rows,
                  .cols = facts.cols,
                  .reserved = 0};
    return Status::kOk;
  });
}

tfmbs_status tfmbs_run_gemv(tfmbs_ctx* ctx, tfmbs_frame frame, const float* x, float* y) {
  return tfmbs_run_gemm(ctx, frame, x, 1, y);
}

tfmbs_status tfmbs_run_gemm(tfmbs_ctx* ctx, tfmbs_frame frame, const float* x, uint32_t batch,
                            float* y) {
  return Guarded([&] {
    if (ctx == nullptr) return Status::kErrAddr;
    const Product product{.frame = frame, .batch = batch, .x = x, .y = y};
    return ctx->context.Run({&product, 1});
  });
}

tfmbs_status tfmbs_submit(tfmbs_ctx* ctx, const tfmbs_op* ops, uint32_t n, tfmbs_ticket* ticket) {
  return Guarded([&] {
    if (ctx == nullptr || ops == nullptr || ticket == nullptr) return Status::kErrAddr;
    if (n == 0 || n > TFMBS_MAX_OPS) return Status::kErrAddr;
    std::vector<Product> products(n);
    for (uint32_t i = 0; i < n; ++i) {
      const Status status = ProductOf(ops[i], &products[i]);
      if (status != Status::kOk) return status;
    }
    return ctx->context.Submit(products, ticket);
  });
}

tfmbs_status tfmbs_poll(tfmbs_ctx* ctx, tfmbs_ticket ticket) {
  return Guarded([&] { return ctx == nullptr ? Status::kErrAddr : ctx->context.Poll(ticket); });
}

tfmbs_status tfmbs_wait(tfmbs_ctx* ctx, tfmbs_ticket ticket, uint32_t timeout_ms) {
  return Guarded(
      [&] { return ctx == nullptr ? Status::kErrAddr : ctx->context.Wait(ticket, timeout_ms); });
}

tfmbs_status tfmbs_get_metrics(tfmbs_ctx* ctx, tfmbs_metrics* metrics) {
  return Guarded([&] {
    if (ctx == nullptr || metrics == nullptr) return Status::kErrAddr;
    const fabric::DeviceCounters counters = ctx->context.device().Counters();
    *metrics = {.projections = counters.projections,
                .total_ops = counters.total_ops,
                .active_ops = counters.active_ops,
                .weight_bytes = counters.weight_bytes,
                .mem_reads = counters.mem_reads,
                .mem_writes = counters.mem_writes,
                .broadcasts = counters.broadcasts,
                .lanes_used = counters.lanes_used,
                .cycles_gated = counters.cycles_gated,
                .cycles_column_skip = counters.cycles_column_skip,
                .fabric_cost = counters.fabric_cost,
                .energy_picojoules = counters.energy_picojoules,
                .fabric_seconds = counters.fabric_seconds,
                .uploaded_bytes = ctx->context.uploaded_bytes(),
                .faults = counters.TotalFaults(),
                .host_fallbacks = counters.host_fallbacks,
                .residency_hits = counters.residency_hits,
                .residency_misses = counters.residency_misses,
                .evictions = counters.evictions,
                .prefetches_used = counters.prefetches_used,
                .prefetches_wasted = counters.prefetches_wasted,
                .fetched_bytes = counters.fetched_bytes};
    return Status::kOk;
  });
}

tfmbs_status tfmbs_get_info(tfmbs_ctx* ctx, tfmbs_info* info) {
  return Guarded([&] {
    if (ctx == nullptr || info == nullptr) return Status::kErrAddr;
    HostContext& context = ctx->context;
    const fabric::host::ContextFacts facts = context.facts();
    *info = {};
    info->version = TFMBS_VERSION;
    info->threads = facts.threads;
    info->lanes_per_tile = context.options().fabric.geometry.lanes_per_tile;
    info->tiles = context.options().fabric.geometry.tiles;
    info->frames = facts.frames;
    info->in_service = context.device().in_service() ? 1 : 0;
    info->pool_bytes = context.options().fabric.pool_bytes;
    info->pool_used = facts.pool_used;
    CopyText(context.device().name(), info->device);
    CopyText(fabric::IsaName(fabric::ActiveIsa()), info->isa);
    return Status::kOk;
  });
}
