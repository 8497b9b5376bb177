#include "fabric/driver/mock_driver.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <new>
#include <numeric>
#include <optional>
#include <span>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "fabric/driver/user_memory.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/matrix_store.h"
#include "fabric/pt5.h"
#include "fabric/sim/sim_device.h"
#include "fabric/sparse/mix.h"

namespace fabric::driver {
namespace {

constexpr uint64_t kMaxCodeStride = 1 << 18;  // more than the columns of any frame
constexpr uint64_t kMaxStride = uint64_t{1} << 31;
constexpr uint64_t kMaxResultBytes = uint64_t{1} << 32;
constexpr uint32_t kGenerationBits = 32;

// A random word as a number in [0, 1).
double ShareOf(uint64_t random) { return static_cast<double>(random >> 11) * 0x1p-53; }

int ErrnoOf(Status status) {
  switch (status) {
    case Status::kOk:
    case Status::kPending:
      return 0;
    case Status::kErrAddr:
      return -EINVAL;
    case Status::kErrPack:
      return -EILSEQ;
    case Status::kErrBusy:
      return -EBUSY;
    case Status::kErrUnsupported:
      return -ENOTSUP;
    case Status::kErrNoMem:
      return -ENOMEM;
    case Status::kErrTimeout:
      return -ETIMEDOUT;
    case Status::kErrStale:
      return -ESTALE;
    case Status::kErrGone:
      return -ENODEV;
  }
  return -EINVAL;
}

// A frame as a product named it, decoded for the arrays.
struct HydratedFrame {
  FrameDescriptor descriptor;
  uint64_t scales_handle = 0;
  uint32_t scale_kind = 0;
  uint32_t group = 0;
  uint64_t scales_version = 0;
  MatrixId matrix;
};

struct Buffer {
  uint32_t generation = 1;
  bool used = false;
  uint32_t pins = 0;
  uint64_t version = 0;          // counts writes
  AlignedBuffer<uint8_t> bytes;  // takes memory as it is written
  std::optional<HydratedFrame> frame;
};

// One product, with everything that it reads.
struct Product {
  MatrixId matrix;
  uint32_t rows = 0;
  ActivationView x;
  AlignedBuffer<int8_t> codes;
  AlignedBuffer<float> scales;
  AlignedBuffer<int32_t> sums;
  AlignedBuffer<float> y;  // [tokens, rows]
  uint64_t y_address = 0;
  uint64_t y_stride = 0;
};

struct Task {
  std::vector<Product> products;
  TaskState state = TaskState::kPending;
  int error = 0;                       // when kFault
  bool lost = false;                   // a made-up timeout: it never ends
  std::optional<uint64_t> corruption;  // which bit of the results changes on the way back
};

// Whether two descriptors of one buffer say the same matrix; hints do not change it.
bool SameMatrix(const FrameDescriptor& a, const FrameDescriptor& b) {
  return a.frame_len == b.frame_len && a.rows == b.rows && a.cols == b.cols &&
         a.packing_fmt == b.packing_fmt && a.lane_stride == b.lane_stride && a.version == b.version;
}

uint32_t ScalesPerToken(const GemvRequest& gemv) {
  return gemv.activation == static_cast<uint32_t>(ActivationKind::kInt8Token)
             ? 1
             : (gemv.frame.cols + kActivationBlock - 1) / kActivationBlock;
}

// What a bad link does to a result that was right.
void FlipBit(uint64_t random, Task* task) {
  Product& product = task->products[random % task->products.size()];
  float& value = product.y[(random >> 8) % product.y.size()];
  value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ 1U << (random >> 59));
}

// The device may not trust sums that its caller made.
void SumCodes(const GemvRequest& gemv, Product* product) {
  const uint32_t per_token = ScalesPerToken(gemv);
  const size_t segment = per_token == 1 ? gemv.frame.cols : kActivationBlock;
  for (uint32_t token = 0; token < gemv.tokens; ++token) {
    const int8_t* codes = product->codes.data() + token * PaddedCols(gemv.frame.cols);
    for (uint32_t s = 0; s < per_token; ++s) {
      const size_t begin = s * segment;
      const size_t end = std::min<size_t>(begin + segment, gemv.frame.cols);
      product->sums[size_t{token} * per_token + s] =
          std::accumulate(codes + begin, codes + end, int32_t{0});
    }
  }
}

bool LooksSound(const GemvRequest& gemv) {
  const FrameDescriptor& frame = gemv.frame;
  const bool kind = gemv.activation == static_cast<uint32_t>(ActivationKind::kInt8Token) ||
                    gemv.activation == static_cast<uint32_t>(ActivationKind::kInt8Block);
  return gemv.header.size == sizeof gemv && kind && frame.rows > 0 && frame.cols > 0 &&
         gemv.scale_kind <= 2 && gemv.tokens > 0 && gemv.tokens <= kMaxTokensPerGemv &&
         gemv.code_stride >= frame.cols && gemv.code_stride <= kMaxCodeStride &&
         gemv.x_scale_stride >= ScalesPerToken(gemv) && gemv.x_scale_stride <= kMaxStride &&
         gemv.y_stride >= frame.rows && gemv.y_stride <= kMaxStride &&
         uint64_t{frame.rows} * gemv.tokens * sizeof(float) <= kMaxResultBytes;
}

}  // namespace

struct MockDriver::Impl {
  Impl(const FabricOptions& a_options, uint64_t a_memory_bytes, WorkerTeam& team)
      : options(a_options),
        memory_bytes(a_memory_bytes),
        layout(a_options.layout.value_or(TernaryLayout::kPanel2Bit)),
        arrays("mock", a_options, kernels::ActiveKernels(), &team),
        thread([this] { RunTasks(); }) {}

  ~Impl() {
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    changed.notify_all();
    thread.join();
  }

  template <typename T, int (Impl::*kHandler)(T&)>
  int Handle(void* argument);

  int Alloc(AllocRequest& request);
  int Free(HandleRequest& request);
  int Pin(HandleRequest& request);
  int Unpin(HandleRequest& request);
  int CopyIn(MemcpyRequest& request);
  int CopyOut(MemcpyRequest& request);
  int SubmitOne(GemvRequest& request);
  int SubmitMany(SubmitRequest& request);
  int Wait(WaitRequest& request);
  int Residency(ResidencyRequest& request);
  int Metrics(MetricsRequest& request);
  int Info(InfoRequest& request);

  Buffer* Find(uint64_t handle);
  int Enqueue(std::span<GemvRequest> gemvs, uint64_t* ticket);
  int Prepare(const GemvRequest& gemv, Product* product);
  int CopyActivations(const GemvRequest& gemv, Product* product);
  int Hydrate(const GemvRequest& gemv, Buffer& trits, MatrixId* matrix);
  int Decode(const GemvRequest& gemv, const Buffer& trits, const Buffer& scales,
             std::optional<TernaryMatrix>* matrix);
  void Dehydrate(Buffer* buffer);
  int FlipTrits(TernaryFrame* frame);
  int Deliver(const Task& task);

  uint64_t RandomOf(uint64_t salt) const;
  bool Chance(double share, uint64_t salt) const;
  void RunTasks();
  int Compute(Task& task);

  const FabricOptions options;
  const uint64_t memory_bytes;
  const TernaryLayout layout;

  std::mutex mutex;  // of all that follows but `arrays`
  std::condition_variable changed;
  std::vector<Buffer> buffers;
  uint64_t memory_used = 0;
  uint64_t submissions = 0;
  uint64_t loads = 0;  // frames decoded, for the choice of flipped trits
  uint64_t last_ticket = 0;
  std::unordered_map<uint64_t, std::shared_ptr<Task>> tasks;
  std::deque<std::shared_ptr<Task>> queue;
  bool disconnected = false;
  bool stopping = false;

  std::mutex arrays_mutex;  // taken after `mutex`, or alone
  sim::SimDevice arrays;
  std::thread thread;  // last: it uses the rest
};

template <typename T, int (MockDriver::Impl::*kHandler)(T&)>
int MockDriver::Impl::Handle(void* argument) {
  const auto address = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(argument));
  T request;
  // The size first: the caller may have mapped no more than the structure that it knows.
  if (!CopyFromUser(address, &request.header, sizeof request.header)) return -EFAULT;
  if (request.header.version != kAbiVersion) return -ENOTSUP;
  if (request.header.size != sizeof(T) || request.header.reserved != 0) return -EINVAL;
  if (!CopyFromUser(address, &request, sizeof request)) return -EFAULT;
  const int result = (this->*kHandler)(request);
  if (result != 0) return result;
  return CopyToUser(address, &request, sizeof request) ? 0 : -EFAULT;
}

Buffer* MockDriver::Impl::Find(uint64_t handle) {
  const uint64_t index = handle & ((uint64_t{1} << kGenerationBits) - 1);
  if (index >= buffers.size()) return nullptr;
  Buffer& buffer = buffers[index];
  return buffer.used && buffer.generation == handle >> kGenerationBits ? &buffer : nullptr;
}

int MockDriver::Impl::Alloc(AllocRequest& request) {
  const std::lock_guard lock(mutex);
  if (request.bytes == 0) return -EINVAL;
  if (request.bytes > memory_bytes - memory_used) return -ENOMEM;
  auto free = std::find_if(buffers.begin(), buffers.end(),
                           [](const Buffer& buffer) { return !buffer.used; });
  if (free == buffers.end()) free = buffers.emplace(buffers.end());
  free->bytes = AlignedBuffer<uint8_t>(request.bytes);
  free->used = true;
  memory_used += request.bytes;
  request.handle =
      uint64_t{free->generation} << kGenerationBits | static_cast<uint64_t>(free - buffers.begin());
  return 0;
}

int MockDriver::Impl::Free(HandleRequest& request) {
  const std::lock_guard lock(mutex);
  Buffer* buffer = Find(request.handle);
  if (buffer == nullptr) return -ESTALE;
  if (buffer->pins > 0) return -EBUSY;
  Dehydrate(buffer);
  memory_used -= buffer->bytes.size();
  const uint32_t generation = buffer->generation + 1;
  *buffer = {};
  // A buffer whose generations are used up stays in use for ever, as no handle's.
  buffer->generation = generation;
  buffer->used = generation == 0;
  return 0;
}

int MockDriver::Impl::Pin(HandleRequest& request) {
  const std::lock_guard lock(mutex);
  Buffer* buffer = Find(request.handle);
  if (buffer == nullptr) return -ESTALE;
  if (buffer->pins == UINT32_MAX) return -EBUSY;
  ++buffer->pins;
  return 0;
}

int MockDriver::Impl::Unpin(HandleRequest& request) {
  const std::lock_guard lock(mutex);
  Buffer* buffer = Find(request.handle);
  if (buffer == nullptr) return -ESTALE;
  if (buffer->pins == 0) return -EINVAL;
  --buffer->pins;
  return 0;
}

int MockDriver::Impl::CopyIn(MemcpyRequest& request) {
  const std::lock_guard lock(mutex);
  Buffer* buffer = Find(request.handle);
  if (buffer == nullptr) return -ESTALE;
  const uint64_t size = buffer->bytes.size();
  if (request.offset > size || request.bytes > size - request.offset) return -EINVAL;
  Dehydrate(buffer);
  ++buffer->version;
  return CopyFromUser(request.user_address, buffer->bytes.data() + request.offset, request.bytes)
             ? 0
             : -EFAULT;
}

int MockDriver::Impl::CopyOut(MemcpyRequest& request) {
  const std::lock_guard lock(mutex);
  const Buffer* buffer = Find(request.handle);
  if (buffer == nullptr) return -ESTALE;
  const uint64_t size = buffer->bytes.size();
  if (request.offset > size || request.bytes > size - request.offset) return -EINVAL;
  return CopyToUser(request.user_address, buffer->bytes.data() + request.offset, request.bytes)
             ? 0
             : -EFAULT;
}

int MockDriver::Impl::SubmitOne(GemvRequest& request) {
  return Enqueue({&request, 1}, &request.ticket);
}

int MockDriver::Impl::SubmitMany(SubmitRequest& request) {
  if (request.count == 0 || request.count > kMaxGemvsPerSubmit) return -EINVAL;
  std::vector<GemvRequest> gemvs(request.count);
  if (!CopyFromUser(request.gemvs_address, gemvs.data(), gemvs.size() * sizeof(GemvRequest))) {
    return -EFAULT;
  }
  return Enqueue(gemvs, &request.ticket);
}

int MockDriver::Impl::Enqueue(std::span<GemvRequest> gemvs, uint64_t* ticket) {
  const std::lock_guard lock(mutex);
  ++submissions;
  if (options.faults.disconnect > 0 && submissions > options.faults.disconnect) {
    disconnected = true;
    return -ENODEV;
  }
  if (tasks.size() >= kQueueDepth || Chance(options.faults.busy, 1)) return -EBUSY;
  const auto task = std::make_shared<Task>();
  task->products.resize(gemvs.size());
  for (size_t i = 0; i < gemvs.size(); ++i) {
    const int result = Prepare(gemvs[i], &task->products[i]);
    if (result != 0) return result;
  }
  task->lost = Chance(options.faults.timeout, 2);
  if (Chance(options.faults.corrupt, 3)) task->corruption = RandomOf(4);
  *ticket = ++last_ticket;
  tasks.emplace(*ticket, task);
  if (!task->lost) queue.push_back(task);
  changed.notify_all();
  return 0;
}

// Checks one product and copies in what it reads.
int MockDriver::Impl::Prepare(const GemvRequest& gemv, Product* product) {
  if (!LooksSound(gemv)) return -EINVAL;
  if (CheckHints(gemv.frame) != Status::kOk) return -ENOTSUP;
  Buffer* trits = Find(gemv.frame.base_addr);
  if (trits == nullptr) return -ESTALE;
  const int hydrated = Hydrate(gemv, *trits, &product->matrix);
  if (hydrated != 0) return hydrated;
  product->rows = gemv.frame.rows;
  product->y_address = gemv.y_address;
  product->y_stride = gemv.y_stride;
  product->y = AlignedBuffer<float>(size_t{gemv.tokens} * gemv.frame.rows);
  return CopyActivations(gemv, product);
}

int MockDriver::Impl::CopyActivations(const GemvRequest& gemv, Product* product) {
  const uint32_t cols = gemv.frame.cols;
  const size_t padded = PaddedCols(cols);
  const uint32_t per_token = ScalesPerToken(gemv);
  product->codes = AlignedBuffer<int8_t>(gemv.tokens * padded);
  product->scales = AlignedBuffer<float>(size_t{gemv.tokens} * per_token);
  product->sums = AlignedBuffer<int32_t>(size_t{gemv.tokens} * per_token);
  for (uint32_t token = 0; token < gemv.tokens; ++token) {
    const uint64_t codes = gemv.codes_address + token * gemv.code_stride;
    const uint64_t scales = gemv.x_scales_address + token * gemv.x_scale_stride * sizeof(float);
    if (!CopyFromUser(codes, product->codes.data() + token * padded, cols)) return -EFAULT;
    if (!CopyFromUser(scales, product->scales.data() + size_t{token} * per_token,
                      per_token * sizeof(float))) {
      return -EFAULT;
    }
  }
  SumCodes(gemv, product);
  product->x = {.kind = static_cast<ActivationKind>(gemv.activation),
                .tokens = gemv.tokens,
                .cols = cols,
                .codes = product->codes.data(),
                .code_stride = padded,
                .scales = product->scales.data(),
                .scale_stride = per_token,
                .sums = product->sums.data()};
  return 0;
}

// The frame in the form that the arrays run, decoded when it is first used or has changed.
int MockDriver::Impl::Hydrate(const GemvRequest& gemv, Buffer& trits, MatrixId* matrix) {
  const Buffer* scales = Find(gemv.scales_handle);
  if (scales == nullptr) return -ESTALE;
  if (trits.frame) {
    const HydratedFrame& known = *trits.frame;
    if (SameMatrix(known.descriptor, gemv.frame) && known.scales_handle == gemv.scales_handle &&
        known.scale_kind == gemv.scale_kind && known.group == gemv.group &&
        known.scales_version == scales->version) {
      *matrix = known.matrix;
      return 0;
    }
    Dehydrate(&trits);
  }
  std::optional<TernaryMatrix> decoded;
  const int result = Decode(gemv, trits, *scales, &decoded);
  if (result != 0) return result;
  const std::lock_guard lock(arrays_mutex);
  const Status status = arrays.Upload(std::move(*decoded), matrix);
  if (status != Status::kOk) return ErrnoOf(status);
  trits.frame = {.descriptor = gemv.frame,
                 .scales_handle = gemv.scales_handle,
                 .scale_kind = gemv.scale_kind,
                 .group = gemv.group,
                 .scales_version = scales->version,
                 .matrix = *matrix};
  return 0;
}

int MockDriver::Impl::Decode(const GemvRequest& gemv, const Buffer& trits, const Buffer& scales,
                             std::optional<TernaryMatrix>* matrix) {
  const uint64_t count = scales.bytes.size() / sizeof(float);
  if (scales.bytes.size() % sizeof(float) != 0) return -EINVAL;
  TernaryFrame frame;
  frame.descriptor = gemv.frame;
  // Buffers may be rounded up; the frame's bytes are those at their begin.
  const size_t bytes = Pt5Bytes(gemv.frame.frame_len);
  if (bytes > trits.bytes.size()) return -EINVAL;
  frame.bytes.assign(trits.bytes.data(), trits.bytes.data() + bytes);
  frame.scale_kind = static_cast<ScaleKind>(gemv.scale_kind);
  frame.group = gemv.group;
  frame.scales.resize(count);
  std::memcpy(frame.scales.data(), scales.bytes.data(), scales.bytes.size());
  if (options.faults.flip > 0) {
    const int result = FlipTrits(&frame);
    if (result != 0) return result;
  }
  return ErrnoOf(FromFrame(frame, layout, matrix));
}

int MockDriver::Impl::FlipTrits(TernaryFrame* frame) {
  const Pt5Alphabet alphabet = frame->descriptor.packing_fmt == kPackingPt5Hardware
                                   ? Pt5Alphabet::kHardware
                                   : Pt5Alphabet::kCanonical;
  std::vector<int8_t> trits(frame->descriptor.frame_len);
  const Status status = UnpackPt5(frame->bytes, alphabet, trits);
  if (status != Status::kOk) return ErrnoOf(status);
  const uint64_t load = sparse::Mix(options.faults.seed) + ++loads;
  for (size_t i = 0; i < trits.size(); ++i) {
    const uint64_t random = sparse::Mix(sparse::Mix(load) + i);
    if (ShareOf(random) >= options.faults.flip) continue;
    // One of the other two values: 1 or 2 steps on in the cycle of three.
    const int step = 1 + static_cast<int>(random & 1);
    trits[i] = static_cast<int8_t>((trits[i] + 1 + step) % 3 - 1);
  }
  PackPt5(trits, alphabet, frame->bytes);
  return 0;
}

void MockDriver::Impl::Dehydrate(Buffer* buffer) {
  if (!buffer->frame) return;
  const std::lock_guard lock(arrays_mutex);
  arrays.Free(buffer->frame->matrix);
  buffer->frame.reset();
}

int MockDriver::Impl::Wait(WaitRequest& request) {
  std::unique_lock lock(mutex);
  const auto found = tasks.find(request.ticket);
  if (found == tasks.end()) return -EINVAL;
  const std::shared_ptr<Task> task = found->second;
  const auto ended = [&] {
    return stopping || task->state == TaskState::kComplete || task->state == TaskState::kFault;
  };
  const bool in_time = changed.wait_for(lock, std::chrono::milliseconds(request.timeout_ms), ended);
  // Another thread may have waited for it meanwhile.
  if (tasks.erase(request.ticket) == 0) return -EINVAL;
  if (!in_time) return -ETIMEDOUT;
  request.state = static_cast<uint32_t>(task->state);
  if (task->state != TaskState::kComplete) return task->error == 0 ? -ENODEV : task->error;
  lock.unlock();
  return Deliver(*task);
}

int MockDriver::Impl::Deliver(const Task& task) {
  for (const Product& product : task.products) {
    for (uint32_t token = 0; token < product.x.tokens; ++token) {
      if (!CopyToUser(product.y_address + token * product.y_stride * sizeof(float),
                      product.y.data() + size_t{token} * product.rows,
                      product.rows * sizeof(float))) {
        return -EFAULT;
      }
    }
  }
  return 0;
}

int MockDriver::Impl::Residency(ResidencyRequest& request) {
  const std::lock_guard lock(mutex);
  const Buffer* buffer = Find(request.handle);
  if (buffer == nullptr) return -ESTALE;
  request.bytes = buffer->bytes.size();
  request.hydrated = buffer->frame ? 1 : 0;
  request.pins = buffer->pins;
  return 0;
}

int MockDriver::Impl::Metrics(MetricsRequest& request) {
  const DeviceCounters counters = arrays.Counters();
  request.projections = counters.projections;
  request.total_ops = counters.total_ops;
  request.active_ops = counters.active_ops;
  request.weight_bytes = counters.weight_bytes;
  request.mem_reads = counters.mem_reads;
  request.mem_writes = counters.mem_writes;
  request.broadcasts = counters.broadcasts;
  request.residency_misses = counters.residency_misses;
  request.lanes_used = counters.lanes_used;
  request.cycles_gated = counters.cycles_gated;
  request.cycles_column_skip = counters.cycles_column_skip;
  request.fabric_cost = counters.fabric_cost;
  request.energy_picojoules = counters.energy_picojoules;
  request.busy_seconds = counters.fabric_seconds;
  return 0;
}

int MockDriver::Impl::Info(InfoRequest& request) {
  const std::lock_guard lock(mutex);
  request.abi_version = kAbiVersion;
  request.lanes_per_tile = options.geometry.lanes_per_tile;
  request.tiles = options.geometry.tiles;
  request.queue_depth = kQueueDepth;
  request.max_tokens = kMaxTokensPerGemv;
  request.max_gemvs = kMaxGemvsPerSubmit;
  request.memory_bytes = memory_bytes;
  request.memory_used = memory_used;
  return 0;
}

uint64_t MockDriver::Impl::RandomOf(uint64_t salt) const {
  return sparse::Mix(sparse::Mix(sparse::Mix(options.faults.seed) + submissions) + salt);
}

// Whether a fault of this rate befalls the current submission.
bool MockDriver::Impl::Chance(double share, uint64_t salt) const {
  return ShareOf(RandomOf(salt)) < share;
}

void MockDriver::Impl::RunTasks() {
  std::unique_lock lock(mutex);
  while (true) {
    changed.wait(lock, [&] { return stopping || !queue.empty(); });
    if (stopping) return;
    const std::shared_ptr<Task> task = std::move(queue.front());
    queue.pop_front();
    task->state = TaskState::kActive;
    lock.unlock();
    const int error = Compute(*task);
    lock.lock();
    task->error = error;
    task->state = error == 0 ? TaskState::kComplete : TaskState::kFault;
    changed.notify_all();
  }
}

int MockDriver::Impl::Compute(Task& task) {
  std::vector<ProjectionOp> ops;
  for (Product& product : task.products) {
    ops.push_back({.matrix = product.matrix,
                   .x = &product.x,
                   .y = product.y.data(),
                   .y_stride = product.rows});
  }
  Status status = Status::kOk;
  {
    const std::lock_guard lock(arrays_mutex);
    status = Execute(arrays, ops);
  }
  if (status == Status::kOk && task.corruption) FlipBit(*task.corruption, &task);
  return ErrnoOf(status);
}

MockDriver::MockDriver(const FabricOptions& options, uint64_t memory_bytes, WorkerTeam& team)
    : impl_(std::make_unique<Impl>(options, memory_bytes, team)) {}

MockDriver::~MockDriver() = default;

int MockDriver::Ioctl(Request request, void* argument) noexcept {
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->disconnected) return -ENODEV;
  }
  try {
    switch (request) {
      case Request::kAlloc:
        return impl_->Handle<AllocRequest, &Impl::Alloc>(argument);
      case Request::kFree:
        return impl_->Handle<HandleRequest, &Impl::Free>(argument);
      case Request::kMemcpyTo:
        return impl_->Handle<MemcpyRequest, &Impl::CopyIn>(argument);
      case Request::kMemcpyFrom:
        return impl_->Handle<MemcpyRequest, &Impl::CopyOut>(argument);
      case Request::kSubmitGemv:
        return impl_->Handle<GemvRequest, &Impl::SubmitOne>(argument);
      case Request::kWait:
        return impl_->Handle<WaitRequest, &Impl::Wait>(argument);
      case Request::kGetMetrics:
        return impl_->Handle<MetricsRequest, &Impl::Metrics>(argument);
      case Request::kGetInfo:
        return impl_->Handle<InfoRequest, &Impl::Info>(argument);
      case Request::kSubmit:
        return impl_->Handle<SubmitRequest, &Impl::SubmitMany>(argument);
      case Request::kQueryResidency:
        return impl_->Handle<ResidencyRequest, &Impl::Residency>(argument);
      case Request::kPin:
        return impl_->Handle<HandleRequest, &Impl::Pin>(argument);
      case Request::kUnpin:
        return impl_->Handle<HandleRequest, &Impl::Unpin>(argument);
      case Request::kSubmitDma:
        return -ENOTSUP;
    }
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  }
  return -ENOTTY;
}

}  // namespace fabric::driver
