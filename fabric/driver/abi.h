#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "fabric/frame.h"

namespace fabric::driver {

// What crosses the boundary of the character device: one structure per request, passed by address
// as to ioctl(2), answered by 0 or a negative errno. Fixed widths, little-endian, no padding.
// Addresses are those of the calling process; the driver copies from them while the request is made
// and to them during kWait, never in between.
//
// Every structure begins with its own size and the version. A driver refuses others with EINVAL,
// so neither side ever reads a field that the other did not write.
inline constexpr uint16_t kAbiVersion = 1;

enum class Request : uint32_t {
  kAlloc = 1,
  kFree = 2,
  kMemcpyTo = 3,
  kMemcpyFrom = 4,
  kSubmitGemv = 5,
  kWait = 6,
  kGetMetrics = 7,
  kGetInfo = 8,
  kSubmit = 9,
  kQueryResidency = 0xA,
  kPin = 0xB,
  kUnpin = 0xC,
  kSubmitDma = 0xD,  // ENOTSUP in version 1
};

// States of a task, and of a frame on its way into the arrays.
enum class TaskState : uint32_t {
  kInvalid,
  kPending,
  kHydrating,
  kActive,
  kCommitting,
  kComplete,
  kFault,
};

struct RequestHeader {
  uint32_t size = 0;
  uint16_t version = kAbiVersion;
  uint16_t reserved = 0;
};

struct AllocRequest {
  RequestHeader header;
  uint64_t bytes = 0;
  uint64_t handle = 0;  // out, never 0
};

// kFree, kPin, kUnpin.
struct HandleRequest {
  RequestHeader header;
  uint64_t handle = 0;
};

// kMemcpyTo, kMemcpyFrom.
struct MemcpyRequest {
  RequestHeader header;
  uint64_t handle = 0;
  uint64_t offset = 0;
  uint64_t user_address = 0;
  uint64_t bytes = 0;
};

// y = W x for one frame and a batch of int8 vectors.
struct GemvRequest {
  RequestHeader header;
  FrameDescriptor frame;       // base_addr: the handle of the trits
  uint64_t scales_handle = 0;  // floats: [1], [rows] or [rows, groups]
  uint32_t scale_kind = 0;     // 0 tensor, 1 row, 2 group
  uint32_t group = 0;          // columns per scale when scale_kind is 2
  uint32_t activation = 0;     // 1 int8 per token, 2 int8 per block of 32
  uint32_t tokens = 0;
  uint64_t codes_address = 0;  // int8 [tokens, code_stride]
  uint64_t code_stride = 0;
  uint64_t x_scales_address = 0;  // float [tokens, x_scale_stride]
  uint64_t x_scale_stride = 0;
  uint64_t y_address = 0;  // float [tokens, y_stride], written during kWait
  uint64_t y_stride = 0;
  uint64_t ticket = 0;  // out of kSubmitGemv; unused inside kSubmit
};

// Several products under one ticket; the driver takes all or none.
struct SubmitRequest {
  RequestHeader header;
  uint64_t gemvs_address = 0;  // GemvRequest [count]
  uint32_t count = 0;
  uint32_t reserved = 0;
  uint64_t ticket = 0;  // out
};

// Ends the task: a ticket can be waited for once. ETIMEDOUT gives the task up.
struct WaitRequest {
  RequestHeader header;
  uint64_t ticket = 0;
  uint32_t timeout_ms = 0;
  uint32_t state = 0;  // out: TaskState
};

struct ResidencyRequest {
  RequestHeader header;
  uint64_t handle = 0;
  uint64_t bytes = 0;     // out
  uint32_t hydrated = 0;  // out: 1 when a product has used it as a frame
  uint32_t pins = 0;      // out
};

struct MetricsRequest {
  RequestHeader header;
  uint64_t projections = 0;
  uint64_t total_ops = 0;
  uint64_t active_ops = 0;
  uint64_t weight_bytes = 0;
  uint64_t mem_reads = 0;
  uint64_t mem_writes = 0;
  uint64_t broadcasts = 0;
  uint64_t residency_misses = 0;
  uint64_t lanes_used = 0;
  uint64_t cycles_gated = 0;
  uint64_t cycles_column_skip = 0;
  double fabric_cost = 0;
  double energy_picojoules = 0;
  double busy_seconds = 0;
};

struct InfoRequest {
  RequestHeader header;
  uint32_t abi_version = 0;
  uint32_t lanes_per_tile = 0;
  uint32_t tiles = 0;
  uint32_t queue_depth = 0;  // tasks that may be under way
  uint32_t max_tokens = 0;   // of one product
  uint32_t max_gemvs = 0;    // of one kSubmit
  uint64_t memory_bytes = 0;
  uint64_t memory_used = 0;
};

static_assert(sizeof(RequestHeader) == 8 && sizeof(AllocRequest) == 24);
static_assert(sizeof(HandleRequest) == 16 && sizeof(MemcpyRequest) == 40);
static_assert(offsetof(GemvRequest, frame) == 8 && offsetof(GemvRequest, scales_handle) == 56);
static_assert(sizeof(GemvRequest) == 136 && sizeof(SubmitRequest) == 32);
static_assert(sizeof(WaitRequest) == 24 && sizeof(ResidencyRequest) == 32);
static_assert(sizeof(MetricsRequest) == 120 && sizeof(InfoRequest) == 48);

// A request structure with its header filled in.
template <typename T>
T MakeRequest() {
  static_assert(std::is_trivially_copyable_v<T>);
  T request;
  request.header.size = sizeof(T);
  return request;
}

// The only way through the boundary.
//
// Threads: any.
class CharacterDevice {
 public:
  virtual ~CharacterDevice() = default;
  // As ioctl(2): 0, or a negative errno. `argument` is the address of the request's structure.
  virtual int Ioctl(Request request, void* argument) noexcept = 0;
};

}  // namespace fabric::driver
