#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "fabric/activations.h"
#include "fabric/cpu/isa.h"
#include "fabric/dense_matrix.h"
#include "fabric/fabric_options.h"
#include "fabric/plane_matrix.h"
#include "fabric/quantized_matrix.h"
#include "fabric/status.h"
#include "fabric/ternary_matrix.h"
#include "fabric/worker_team.h"

namespace fabric {

// Dense and quantised matrices are shared: a tied embedding serves row look-ups on the host and the
// head on the device. Planes are shared by a device that may fail and the host beside it.
using Matrix =
    std::variant<TernaryMatrix, std::shared_ptr<const DenseMatrix>,
                 std::shared_ptr<const QuantizedMatrix>, std::shared_ptr<const PlaneMatrix>>;

// A matrix that lives on a device. The generation makes a handle of freed memory detectably stale.
struct MatrixId {
  uint32_t index = 0;
  uint32_t generation = 0;  // 0 is never valid
};

// What happens to v = W x + bias.
enum class Epilogue : uint8_t {
  kStore,           // y = v
  kAdd,             // y += v (residual stream)
  kReluSquaredMul,  // y = relu(y)^2 * v; y holds the gate
  kSiluMul,         // y = silu(y) * v;   y holds the gate
  kGeluMul,         // y = gelu(y) * v;   y holds the gate
};

// y = W x for a batch of tokens.
//
// A *Mul epilogue reads what the op right before it in the same Submit() wrote: both have the same
// rows and y, and each worker runs both on its rows before it goes on.
struct ProjectionOp {
  MatrixId matrix;
  // int8 for ternary matrices, int8 per block for quantised ones and planes, else float.
  const ActivationView* x = nullptr;
  float* y = nullptr;  // [x->tokens, y_stride]
  size_t y_stride = 0;
  const float* bias = nullptr;  // [rows] or null
  Epilogue epilogue = Epilogue::kStore;
};

using Ticket = uint64_t;

// What went wrong with a submission.
enum class FaultKind : uint8_t {
  kRefused,       // an op or a frame that does not fit
  kMemory,        // no room
  kTimeout,       // not done within the watchdog's time
  kBusy,          // a full queue
  kCorrupt,       // results that the host found to be wrong
  kDisconnected,  // the device is gone
};
inline constexpr size_t kFaultKinds = 6;
std::string_view FaultKindName(FaultKind kind);  // "refused"
FaultKind FaultKindOf(Status status);            // REQUIRES: an error

// Cumulative account of one device (docs/fabric.md has each formula). Counts are exact; the energy
// is a proxy from a table of picojoules and is never mixed with measured joules.
struct DeviceCounters {
  uint64_t projections = 0;   // ternary ops, one per matrix and token
  uint64_t total_ops = 0;     // rows * cols per projection
  uint64_t active_ops = 0;    // weight and activation both non-zero
  uint64_t weight_bytes = 0;  // bytes of weights that kernels streamed from memory
  uint64_t mem_reads = 0;     // PT-5 bytes read by the modelled fabric
  uint64_t mem_writes = 0;
  uint64_t broadcasts = 0;
  // Of a bounded pool: ops whose matrix was there or on its way, and ops that had to have it
  // fetched.
  uint64_t residency_hits = 0;
  uint64_t residency_misses = 0;
  uint64_t evictions = 0;
  uint64_t prefetches_used = 0;    // fetched ahead, and then read
  uint64_t prefetches_wasted = 0;  // fetched ahead, and evicted before anybody read it
  uint64_t fetched_bytes = 0;
  double fetch_seconds = 0;       // in which matrices were copied
  double fetch_wait_seconds = 0;  // of submissions, for them; the rest of the copying was hidden
  double queue_busy_seconds = 0;  // in which devices behind a queue worked
  double queue_wait_seconds = 0;  // of callers, for them; beside the rest they did something else
  uint64_t lanes_used = 0;        // summed over projections: lanes that hold a row
  uint64_t cycles_gated = 0;
  uint64_t cycles_column_skip = 0;
  double fabric_cost = 0;
  double energy_picojoules = 0;
  double fabric_seconds = 0;                      // wall time in ternary projections
  double host_seconds = 0;                        // wall time in projections of other matrices
  uint64_t dense_bytes = 0;                       // bytes of their weights streamed
  std::array<uint64_t, kFaultKinds> faults = {};  // failed submissions by kind, retries included
  uint64_t host_fallbacks = 0;                    // ops that the host ran after the device failed

  // Of comparisons with the exact weights (fabric/shadow_device.h).
  uint64_t shadow_rows = 0;
  uint64_t shadow_differing_rows = 0;
  double shadow_squared_error = 0;
  double shadow_squared_norm = 0;

  void CountFault(FaultKind kind) { ++faults[static_cast<size_t>(kind)]; }
  uint64_t TotalFaults() const;
  double SkipRate() const {
    return total_ops == 0 ? 0.0
                          : 1.0 - static_cast<double>(active_ops) / static_cast<double>(total_ops);
  }
  // ||y - y'|| / ||y|| of the rows that were compared.
  double ShadowError() const;
};

// a += b.
void AddCounters(const DeviceCounters& b, DeviceCounters* a);

// The memory of a device that may be smaller than what is uploaded (fabric/residency).
struct PoolFacts {
  size_t bytes = 0;      // for ternary matrices at one time; 0 = no bound
  bool in_file = false;  // matrices outside of it are in a file and not in memory
};

// Where a matrix is that was uploaded.
enum class MatrixPlace : uint8_t {
  kHost,     // the host alone has it and runs it
  kDevice,   // on the device until it is freed
  kPool,     // in the device's bounded memory, now
  kOutside,  // waits outside of that
};
struct Residency {
  MatrixPlace place = MatrixPlace::kDevice;
  bool pinned = false;
};

// Executes projections. The Fabric accelerates inner products; attention, norms and sampling are
// the engine's.
//
// Threads: one thread at a time, but Counters() and in_service(), which any thread may call.
// Errors:  by status; Upload() also throws std::bad_alloc.
class Device {
 public:
  virtual ~Device() = default;
  virtual std::string_view name() const = 0;

  // The layout in which a ternary matrix of this use runs best, and why. Upload() takes any other
  // too. The first call of a kind of activation may measure for some 50 ms, the first one with many
  // zeros for some 200 ms more.
  virtual LayoutChoice PreferredLayout(const TernaryUse& /*use*/) { return {}; }
  // What its answers depend on beside the use: options and the CPU, so that they can be kept.
  virtual std::string LayoutRule() const { return "2bit"; }
  virtual Status Upload(Matrix matrix, MatrixId* id) = 0;
  // Keeps a matrix for the host alone: Submit() runs it with the same bits, but no memory of the
  // Fabric holds it, and of the account it is host_seconds and dense_bytes.
  virtual Status UploadToHost(Matrix matrix, MatrixId* id) { return Upload(std::move(matrix), id); }
  virtual Status Free(MatrixId id) noexcept = 0;

  // Runs the ops in order; ops without a data dependency may overlap. Everything that the ops point
  // to must stay until Wait(). All ops of one Submit() are checked before any runs.
  virtual Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept = 0;
  virtual Status Wait(Ticket ticket) noexcept = 0;

  virtual DeviceCounters Counters() const noexcept = 0;
  virtual size_t resident_bytes() const noexcept = 0;
  virtual PoolFacts pool() const noexcept { return {}; }
  // Where the matrix is now; of one that is shared out, the part that is furthest away. kHost for a
  // stale handle.
  virtual Residency residency(MatrixId /*id*/) const noexcept { return {}; }
  // Everything is there that will be used: brings a bounded pool into the state in which its use
  // begins (fabric/residency). Products before or without it have the same bits.
  virtual void Settle() noexcept {}
  // A pinned matrix is resident until it is unpinned. kErrNoMem when the pool has no room beside
  // what is pinned already.
  virtual Status SetPinned(MatrixId /*id*/, bool /*pinned*/) noexcept { return Status::kOk; }
  // False when it has failed for good: what it would have run, the host runs. Any thread.
  virtual bool in_service() const noexcept { return true; }
};

// Submit and wait.
Status Execute(Device& device, std::span<const ProjectionOp> ops) noexcept;

// "reference": plain loops on one thread, the definition of correct. "sim": the kernels of this CPU
// on `team` plus the exact account. "stub": a device apart whose ternary products are computed as
// by "reference". "ioctl": the driver interface with a mock behind it. The last two are supervised
// (fabric/supervised_device.h). All give the same bits.
//
// Errors: std::invalid_argument on another name, listing the known ones; std::runtime_error when
// options.trace cannot be opened. team outlives the device.
std::unique_ptr<Device> CreateDevice(const FabricOptions& options, WorkerTeam& team);

// The instruction set of the kernels of a device of this name: "reference" and "stub" are plain
// loops whatever the CPU has.
Isa IsaOf(std::string_view device) noexcept;

}  // namespace fabric
