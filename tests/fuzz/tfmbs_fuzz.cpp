// Any sequence of calls of the Fabric's C interface, with any descriptors, lengths, strides,
// handles and counts, ends with statuses; what it accepts is computed within the buffers that it
// was given.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "fabric/include/tfmbs_host.h"

namespace {

// Reads numbers from the input; zeros when it is used up.
class Bytes {
 public:
  explicit Bytes(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  bool empty() const { return bytes_.empty(); }

  template <typename T>
  T Next() {
    T value{};
    const size_t n = std::min(sizeof value, bytes_.size());
    if (n > 0) std::memcpy(&value, bytes_.data(), n);
    bytes_ = bytes_.subspan(n);
    return value;
  }
  // Mostly small, now and then anything.
  uint64_t Number() {
    const auto first = Next<uint8_t>();
    return first < 0xF0 ? first : Next<uint64_t>() >> (4 * (first & 0xF));
  }
  std::vector<uint8_t> Take(size_t n) {
    std::vector<uint8_t> taken(n);
    const size_t there = std::min(n, bytes_.size());
    std::copy_n(bytes_.begin(), there, taken.begin());
    bytes_ = bytes_.subspan(there);
    return taken;
  }

 private:
  std::span<const uint8_t> bytes_;
};

constexpr size_t kFloats = 1 << 14;

class Session {
 public:
  Session(tfmbs_ctx* ctx, Bytes bytes) : ctx_(ctx), bytes_(bytes), x_(kFloats), y_(kFloats) {}

  void Run() {
    while (!bytes_.empty()) Call(bytes_.Next<uint8_t>());
    // What is queued writes into this session's buffers.
    for (const tfmbs_ticket ticket : tickets_) tfmbs_wait(ctx_, ticket, UINT32_MAX);
    for (const tfmbs_frame frame : frames_) {
      while (tfmbs_unpin(ctx_, frame) == TFMBS_OK) {
      }
      tfmbs_free(ctx_, frame);
    }
    tfmbs_info info;
    // Whatever happened, nothing is left behind.
    if (tfmbs_get_info(ctx_, &info) != TFMBS_OK || info.frames != 0 || info.pool_used != 0) abort();
  }

 private:
  void Call(uint8_t what) {
    switch (what % 10) {
      case 0:
        return Upload();
      case 1:
        return UploadPlanes();
      case 2:
        return RunGemm();
      case 3:
        return Submit();
      case 4:
        tfmbs_pin(ctx_, Frame());
        return;
      case 5:
        tfmbs_unpin(ctx_, Frame());
        return;
      case 6:
        tfmbs_free(ctx_, Frame());
        return;
      case 7: {
        tfmbs_residency residency;
        tfmbs_query_residency(ctx_, Frame(), &residency);
        return;
      }
      case 8:
        tfmbs_poll(ctx_, Ticket());
        return;
      case 9:
        tfmbs_wait(ctx_, Ticket(), 0);
        return;
    }
  }

  tfmbs_frame Frame() {
    const auto which = bytes_.Next<uint8_t>();
    return which < frames_.size() ? frames_[which] : bytes_.Number();
  }
  tfmbs_ticket Ticket() {
    const auto which = bytes_.Next<uint8_t>();
    return which < tickets_.size() ? tickets_[which] : bytes_.Number();
  }

  // A sound descriptor of which some fields may be anything.
  tfmbs_tfd_t Descriptor() {
    const auto rows = static_cast<uint32_t>(bytes_.Next<uint8_t>() % 40);
    const auto cols = static_cast<uint32_t>(bytes_.Next<uint8_t>());
    tfmbs_tfd_t frame = TFMBS_FRAME(rows, cols);
    const auto change = bytes_.Next<uint8_t>();
    if ((change & 1) != 0) frame.rows = static_cast<uint32_t>(bytes_.Number());
    if ((change & 2) != 0) frame.cols = static_cast<uint32_t>(bytes_.Number());
    if ((change & 4) != 0) frame.frame_len = static_cast<uint32_t>(bytes_.Number());
    if ((change & 8) != 0) frame.lane_stride = static_cast<uint32_t>(bytes_.Number());
    if ((change & 16) != 0) frame.packing_fmt = bytes_.Next<uint8_t>() % 3;
    if ((change & 32) != 0) frame.flags = bytes_.Next<uint8_t>();
    if ((change & 64) != 0) frame.exec_hints = bytes_.Next<uint32_t>();
    if ((change & 128) != 0) frame.version = bytes_.Next<uint8_t>() % 3;
    return frame;
  }

  tfmbs_scales Scales(std::vector<float>* values) {
    values->assign(bytes_.Next<uint8_t>(), 0.5F);
    return {.kind = bytes_.Next<uint8_t>() % 4U,
            .group = static_cast<uint32_t>(bytes_.Number()),
            .count = values->size(),
            .values = values->data()};
  }

  void Upload() {
    const tfmbs_tfd_t frame = Descriptor();
    const std::vector<uint8_t> trits = bytes_.Take(bytes_.Next<uint16_t>() % 4096);
    std::vector<float> values;
    const tfmbs_scales scales = Scales(&values);
    tfmbs_frame handle = 0;
    const bool scaled = bytes_.Next<uint8_t>() % 2 == 0;
    Keep(tfmbs_upload_frame(ctx_, &frame, trits.data(), trits.size(), scaled ? &scales : nullptr,
                            &handle),
         frame, handle);
  }

  void UploadPlanes() {
    const tfmbs_tfd_t frame = Descriptor();
    const std::vector<uint8_t> trits = bytes_.Take(bytes_.Next<uint16_t>() % 4096);
    const tfmbs_plane plane{frame, trits.data(), trits.size(), nullptr};
    const std::vector<tfmbs_plane> planes(TFMBS_MAX_PLANES, plane);
    const std::vector<float> alphas(TFMBS_MAX_PLANES, 0.25F);
    tfmbs_frame handle = 0;
    Keep(tfmbs_upload_planes(ctx_, 1, planes.data(), alphas.data(), bytes_.Next<uint8_t>() % 12,
                             &handle),
         frame, handle);
  }

  void Keep(tfmbs_status status, const tfmbs_tfd_t& frame, tfmbs_frame handle) {
    if (status != TFMBS_OK) return;
    // Accepted: then it is what it says.
    if (uint64_t{frame.rows} * frame.cols != frame.frame_len || frame.frame_len == 0) abort();
    frames_.push_back(handle);
  }

  // The only promise of the caller: as much memory as the call says.
  bool Fits(tfmbs_frame frame, const tfmbs_op& op) {
    tfmbs_residency facts;
    if (tfmbs_query_residency(ctx_, frame, &facts) != TFMBS_OK) return true;
    const auto within = [&](uint64_t stride, uint64_t least) {
      const uint64_t used = stride == 0 ? least : stride;
      return used < least || op.batch == 0 ||
             (op.batch <= kFloats && used <= kFloats && (op.batch - 1) * used + least <= kFloats);
    };
    const uint64_t blocks = (uint64_t{facts.cols} + 31) / 32;
    return within(op.x_stride, facts.cols) && within(op.y_stride, facts.rows) &&
           within(op.x_scale_stride, op.x_kind == TFMBS_X_INT8_BLOCK ? blocks : 1);
  }

  void RunGemm() {
    tfmbs_op op{};
    op.frame = Frame();
    op.batch = static_cast<uint32_t>(bytes_.Number());
    if (Fits(op.frame, op)) tfmbs_run_gemm(ctx_, op.frame, x_.data(), op.batch, y_.data());
  }

  void Submit() {
    std::vector<tfmbs_op> ops(1 + bytes_.Next<uint8_t>() % 4);
    for (tfmbs_op& op : ops) {
      op = {.frame = Frame(),
            .x_kind = bytes_.Next<uint8_t>() % 4U,
            .batch = static_cast<uint32_t>(bytes_.Number()),
            .x = x_.data(),
            .x_stride = bytes_.Number(),
            .x_scales = x_.data(),
            .x_scale_stride = bytes_.Number(),
            .y = y_.data(),
            .y_stride = bytes_.Number()};
      if (!Fits(op.frame, op)) return;
    }
    tfmbs_ticket ticket = 0;
    if (tfmbs_submit(ctx_, ops.data(), static_cast<uint32_t>(ops.size()), &ticket) == TFMBS_OK) {
      tickets_.push_back(ticket);
    }
  }

  tfmbs_ctx* ctx_;
  Bytes bytes_;
  std::vector<float> x_;
  std::vector<float> y_;
  std::vector<tfmbs_frame> frames_;
  std::vector<tfmbs_ticket> tickets_;
};

tfmbs_ctx* Open(const char* device) {
  tfmbs_config config = TFMBS_CONFIG_INIT;
  config.device = device;
  config.threads = 1;
  config.pool_bytes = 1 << 20;
  tfmbs_ctx* ctx = nullptr;
  if (tfmbs_init(&config, &ctx) != TFMBS_OK) abort();
  return ctx;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static tfmbs_ctx* const contexts[] = {Open("reference"), Open("ioctl")};
  if (size == 0) return 0;
  Session(contexts[data[0] % 2], Bytes({data + 1, size - 1})).Run();
  return 0;
}
