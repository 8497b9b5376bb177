// The functions that a preloaded library puts in front of the C library's and of a BLAS.
//
// malloc() is called before constructors, from inside dlsym(), between fork() and exec(), and by
// the Fabric's own threads. So: until the constructor has run everything goes to the C library;
// what is allocated while its functions are being looked up comes from a small static buffer; a
// thread that is inside this library (inside_) gets the C library's functions; and nothing on the
// way of malloc(), free(), mmap(), munmap() or memcpy() allocates or takes a lock that is held
// across a call.

#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "tools/intercept/fabric_blas.h"
#include "tools/intercept/page_arena.h"
#include "tools/intercept/row_scan.h"
#include "tools/intercept/tfmbs_intercept.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using intercept::FabricBlas;
using intercept::MatrixView;
using intercept::PageArena;
using intercept::RowScan;
using intercept::RowScanDetector;

enum CblasOrder { kRowMajor = 101, kColMajor = 102 };
enum CblasTranspose { kNoTrans = 111, kTrans = 112 };

using SgemvFn = void (*)(int, int, int, int, float, const float*, int, const float*, int, float,
                         float*, int);
using SgemmFn = void (*)(int, int, int, int, int, int, float, const float*, int, const float*, int,
                         float, float*, int);

// What is behind the functions of the same names.
struct NextFunctions {
  void* (*malloc)(size_t);
  void* (*calloc)(size_t, size_t);
  void* (*realloc)(void*, size_t);
  void (*free)(void*);
  size_t (*malloc_usable_size)(void*);
  void* (*memcpy)(void*, const void*, size_t);
  void* (*memmove)(void*, const void*, size_t);
};

struct Settings {
  size_t threshold = size_t{64} << 10;  // of allocations and mappings, bytes
  size_t copy_threshold = 1024;         // of copies, bytes
  bool validate = false;
  bool verbose = false;
  int log = STDERR_FILENO;
};

struct Counts {
  std::atomic<uint64_t> allocations, files, spilled, copies, copied_bytes, row_scans, on_fabric,
      on_host, validated, beyond;
  std::atomic<uint64_t> worst_in_millionths;
};

// All of static initialisation, because malloc() comes before any constructor.
constinit NextFunctions next = {};
constinit Settings settings;
constinit PageArena arena;
constinit Counts counts = {};
constinit std::atomic<bool> ready{false};   // the constructor has run
constinit std::atomic<bool> forked{false};  // a child without the Fabric's threads
constinit RowScanDetector* detector = nullptr;
constinit std::atomic_flag detector_busy = ATOMIC_FLAG_INIT;
constinit FabricBlas* blas = nullptr;

__attribute__((tls_model("initial-exec"))) thread_local int inside_ = 0;
__attribute__((tls_model("initial-exec"))) thread_local bool resolving_ = false;

class Inside {
 public:
  Inside() { ++inside_; }
  ~Inside() { --inside_; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

bool Hooked() { return inside_ == 0 && ready.load(std::memory_order_acquire); }

// ------------------------------------------------------------------ before malloc() is there

// dlsym() may allocate a few bytes. They are never given back.
alignas(64) constinit char early_memory[size_t{64} << 10] = {};
constinit std::atomic<size_t> early_used{0};

void* EarlyAllocate(size_t bytes) {
  const size_t rounded = (bytes + 63) / 64 * 64 + 64;  // the size stands before it
  const size_t begin = early_used.fetch_add(rounded);
  if (begin + rounded > sizeof early_memory) return nullptr;
  char* block = early_memory + begin + 64;
  *reinterpret_cast<size_t*>(block - sizeof(size_t)) = bytes;
  return block;
}

bool IsEarly(const void* p) { return p >= early_memory && p < early_memory + sizeof early_memory; }

size_t EarlyBytes(const void* p) {
  return *reinterpret_cast<const size_t*>(static_cast<const char*>(p) - sizeof(size_t));
}

template <typename Function>
void Look(const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

// False while this thread is looking them up.
bool Resolve() {
  if (next.free != nullptr) return true;
  if (resolving_) return false;
  resolving_ = true;
  NextFunctions found = {};
  Look("malloc", &found.malloc);
  Look("calloc", &found.calloc);
  Look("realloc", &found.realloc);
  Look("malloc_usable_size", &found.malloc_usable_size);
  Look("memcpy", &found.memcpy);
  Look("memmove", &found.memmove);
  Look("free", &found.free);
  next.malloc = found.malloc;
  next.calloc = found.calloc;
  next.realloc = found.realloc;
  next.malloc_usable_size = found.malloc_usable_size;
  next.memcpy = found.memcpy;
  next.memmove = found.memmove;
  // Last: it says that all are there. Threads do not exist yet.
  next.free = found.free;
  resolving_ = false;
  return true;
}

// ------------------------------------------------------------------ log

__attribute__((format(printf, 1, 2))) void Log(const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  const int length = std::vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  if (length <= 0) return;
  const size_t bytes = std::min(static_cast<size_t>(length), sizeof line - 1);
  const ssize_t written = write(settings.log, line, bytes);
  static_cast<void>(written);
}

// ------------------------------------------------------------------ memory

// nullptr when it is not for the Fabric, or the Fabric has no room.
void* FabricAllocate(size_t bytes) {
  if (bytes < settings.threshold || !Hooked()) return nullptr;
  void* block = arena.Allocate(bytes);
  ++(block != nullptr ? counts.allocations : counts.spilled);
  return block;
}

void* SystemMmap(void* address, size_t length, int protection, int flags, int file, off_t offset) {
  return reinterpret_cast<void*>(
      syscall(SYS_mmap, address, length, protection, flags, file, offset));
}

// Private memory without wishes of its own.
bool CanMapOnFabric(const void* address, size_t length, int protection, int flags) {
  constexpr int kPlain = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_POPULATE;
  const bool readable = protection == PROT_READ || protection == (PROT_READ | PROT_WRITE);
  return address == nullptr && readable && (flags & MAP_PRIVATE) != 0 && (flags & ~kPlain) == 0 &&
         length >= settings.threshold;
}

// The bytes of a regular file as they are now.
bool ReadFile(int file, off_t offset, size_t length, char* out) {
  struct stat facts;
  if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) return false;
  while (length > 0) {
    const ssize_t got = pread(file, out, length, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    if (got == 0) return true;
    out += got;
    offset += got;
    length -= static_cast<size_t>(got);
  }
  return true;
}

void* MapOnFabric(size_t length, int protection, int flags, int file, off_t offset) {
  if (offset < 0 || offset % static_cast<off_t>(PageArena::kPageBytes) != 0) return nullptr;
  const bool anonymous = (flags & MAP_ANONYMOUS) != 0;
  void* block = arena.Allocate(length);
  if (block == nullptr) {
    ++counts.spilled;
    return nullptr;
  }
  const int saved = errno;
  if (!anonymous && !ReadFile(file, offset, length, static_cast<char*>(block))) {
    arena.Free(block);
    errno = saved;
    return nullptr;
  }
  if (protection == PROT_READ) mprotect(block, arena.BlockBytes(block), PROT_READ);
  ++(anonymous ? counts.allocations : counts.files);
  return block;
}

int UnmapFromFabric(void* address, size_t length) {
  const size_t block = arena.BlockBytes(address);
  const size_t rounded =
      (length + PageArena::kPageBytes - 1) / PageArena::kPageBytes * PageArena::kPageBytes;
  if (length == 0 || reinterpret_cast<uintptr_t>(address) % PageArena::kPageBytes != 0) {
    errno = EINVAL;
    return -1;
  }
  if (block != 0 && rounded >= block) {
    mprotect(address, block, PROT_READ | PROT_WRITE);
    arena.Free(address);
    return 0;
  }
  // A part: gone for the program; the rest stays, and the addresses are not used again.
  arena.Retire(address);
  madvise(address, rounded, MADV_DONTNEED);
  return mprotect(address, rounded, PROT_NONE);
}

// ------------------------------------------------------------------ copies

void NoteCopy(const void* to, const void* from, size_t bytes) {
  const bool read = arena.Contains(from);
  if (!read && !arena.Contains(to)) return;
  ++counts.copies;
  counts.copied_bytes += bytes;
  if (!read || detector_busy.test_and_set(std::memory_order_acquire)) return;
  RowScan scan;
  const bool found = detector->Observe(reinterpret_cast<uintptr_t>(from), bytes, &scan);
  detector_busy.clear(std::memory_order_release);
  if (!found) return;
  ++counts.row_scans;
  const Inside inside;
  Log("tfmbs_intercept: rows of %zu bytes, %zu apart, from %#zx on are read again (%u times by "
      "now): weights?\n",
      scan.row_bytes, scan.stride, static_cast<size_t>(scan.base), scan.times);
}

// Before the C library's are known. No builtins: GCC would make a call of memcpy() out of a loop.
void* PlainMove(void* to, const void* from, size_t bytes) {
  auto* out = static_cast<volatile char*>(to);
  const auto* in = static_cast<const volatile char*>(from);
  if (reinterpret_cast<uintptr_t>(to) <= reinterpret_cast<uintptr_t>(from)) {
    for (size_t i = 0; i < bytes; ++i) out[i] = in[i];
  } else {
    for (size_t i = bytes; i > 0; --i) out[i - 1] = in[i - 1];
  }
  return to;
}

// ------------------------------------------------------------------ products

// op(A), [rows, cols], of a matrix in either order.
MatrixView ViewOf(int order, int transpose, int rows, int cols, const float* a, int lda) {
  const auto stride = static_cast<size_t>(lda);
  const bool along_rows = (order == kRowMajor) == (transpose == kNoTrans);
  return {.base = a,
          .rows = static_cast<uint32_t>(rows),
          .cols = static_cast<uint32_t>(cols),
          .row_stride = along_rows ? stride : 1,
          .col_stride = along_rows ? 1 : stride};
}

MatrixView Transposed(const MatrixView& m) {
  return {.base = m.base,
          .rows = m.cols,
          .cols = m.rows,
          .row_stride = m.col_stride,
          .col_stride = m.row_stride};
}

bool IsTranspose(int value) { return value == kNoTrans || value == kTrans; }

// Weights that may go to the Fabric: told to, or large and in its memory.
bool MayRun(const MatrixView& m) {
  if (forked.load() || m.rows == 0 || m.cols == 0) return false;
  const size_t bytes = size_t{m.rows} * m.cols * sizeof(float);
  return blas->IsKnown(m.base) || (bytes >= settings.threshold && arena.Contains(m.base));
}

const char* Words(FabricBlas::Outcome outcome) {
  switch (outcome) {
    case FabricBlas::Outcome::kDone:
      return "ran on the Fabric";
    case FabricBlas::Outcome::kTooEarly:
      return "first use";
    case FabricBlas::Outcome::kTooFar:
      return "not near enough to ternary";
    case FabricBlas::Outcome::kNoFabric:
      return "no Fabric for it";
  }
  return "";
}

// products: [batch, rows] of W x. Null bounds: it did not run there.
bool RunOnFabric(const MatrixView& w, const std::vector<float>& x, uint32_t batch,
                 std::vector<float>* products, std::vector<float>* bounds) {
  const FabricBlas::Outcome outcome = blas->Multiply(w, x.data(), batch, products, bounds);
  ++(outcome == FabricBlas::Outcome::kDone ? counts.on_fabric : counts.on_host);
  if (settings.verbose) {
    Log("tfmbs_intercept: %u x %u weights at %p, %u vectors: %s\n", w.rows, w.cols,
        static_cast<const void*>(w.base), batch, Words(outcome));
  }
  return outcome == FabricBlas::Outcome::kDone;
}

// Compares what both gave for one element; the bound is for W x, so |alpha| times as much.
void Compare(float fabric, float host, float bound, float* worst) {
  ++counts.validated;
  const float difference = std::fabs(fabric - host);
  const float share = difference <= 0 ? 0 : difference / bound;
  *worst = std::max(*worst, share);
  if (!(difference <= bound)) ++counts.beyond;
}

void NoteWorst(const char* what, float worst) {
  const auto millionths = static_cast<uint64_t>(std::min(worst, 1e9F) * 1e6F);
  uint64_t seen = counts.worst_in_millionths.load();
  while (seen < millionths && !counts.worst_in_millionths.compare_exchange_weak(seen, millionths)) {
  }
  if (settings.verbose || worst > 1) {
    Log("tfmbs_intercept: %s differs by %.3f of its bound\n", what, static_cast<double>(worst));
  }
}

// y = alpha * product + beta * y, where beta 0 means that y may hold anything.
float Combine(float alpha, float product, float beta, float y) {
  return beta == 0 ? alpha * product : alpha * product + beta * y;
}
// The rounding of that.
float CombinedBound(float alpha, float bound, float result) {
  return std::fabs(alpha) * bound + std::fabs(result) * 0x1p-21F + 1e-30F;
}

// No exception may reach a program in C: without memory the host computes.
template <typename Product>
bool TryFabric(const Product& product) {
  try {
    return product.OnFabric();
  } catch (const std::bad_alloc&) {
    return false;
  }
}

template <typename Function>
Function NextBlas(const char* name) {
  const auto function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
  if (function == nullptr) {
    Log("tfmbs_intercept: %s was called, but no other library has it\n", name);
    std::abort();
  }
  return function;
}

struct Gemv {
  int order, transpose, m, n;
  float alpha;
  const float* a;
  int lda;
  const float* x;
  int incx;
  float beta;
  float* y;
  int incy;

  void OnHost(float* out) const {
    static const auto function = NextBlas<SgemvFn>("cblas_sgemv");
    function(order, transpose, m, n, alpha, a, lda, x, incx, beta, out, incy);
  }
  bool Sound() const {
    const bool known = (order == kRowMajor || order == kColMajor) && IsTranspose(transpose);
    const int least = order == kRowMajor ? n : m;
    return known && m > 0 && n > 0 && lda >= least && incx > 0 && incy > 0;
  }
  bool OnFabric() const;
};

bool Gemv::OnFabric() const {
  const bool plain = transpose == kNoTrans;
  const MatrixView w = ViewOf(order, transpose, plain ? m : n, plain ? n : m, a, lda);
  if (!MayRun(w)) return false;
  std::vector<float> input(w.cols);
  for (size_t i = 0; i < w.cols; ++i) input[i] = x[i * static_cast<size_t>(incx)];
  std::vector<float> products;
  std::vector<float> bounds;
  if (!RunOnFabric(w, input, 1, &products, &bounds)) return false;
  const auto stride = static_cast<size_t>(incy);
  std::vector<float> results(w.rows);
  for (size_t r = 0; r < w.rows; ++r) results[r] = Combine(alpha, products[r], beta, y[r * stride]);
  if (!settings.validate) {
    for (size_t r = 0; r < w.rows; ++r) y[r * stride] = results[r];
    return true;
  }
  OnHost(y);
  float worst = 0;
  for (size_t r = 0; r < w.rows; ++r) {
    Compare(results[r], y[r * stride], CombinedBound(alpha, bounds[r], y[r * stride]), &worst);
  }
  NoteWorst("cblas_sgemv", worst);
  return true;
}

struct Gemm {
  int order, transpose_a, transpose_b, m, n, k;
  float alpha;
  const float* a;
  int lda;
  const float* b;
  int ldb;
  float beta;
  float* c;
  int ldc;

  void OnHost(float* out) const {
    static const auto function = NextBlas<SgemmFn>("cblas_sgemm");
    function(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, out, ldc);
  }
  bool Sound() const {
    const bool known = (order == kRowMajor || order == kColMajor) && IsTranspose(transpose_a) &&
                       IsTranspose(transpose_b) && m > 0 && n > 0 && k > 0;
    const bool row_major = order == kRowMajor;
    return known && lda >= ((transpose_a == kNoTrans) == row_major ? k : m) &&
           ldb >= ((transpose_b == kNoTrans) == row_major ? n : k) && ldc >= (row_major ? n : m);
  }
  float& C(size_t row, size_t col) const {
    const auto stride = static_cast<size_t>(ldc);
    return order == kRowMajor ? c[row * stride + col] : c[col * stride + row];
  }
  bool OnFabric() const;
  bool Run(const MatrixView& w, const MatrixView& inputs, bool w_is_a) const;
};

// C = op(A) op(B): either may be the weights; whichever is known or, if neither is, B^T first,
// which is where the libraries of networks have them.
bool Gemm::OnFabric() const {
  const MatrixView left = ViewOf(order, transpose_a, m, k, a, lda);
  const MatrixView right = Transposed(ViewOf(order, transpose_b, k, n, b, ldb));
  const bool b_first = blas->IsKnown(b) || !blas->IsKnown(a);
  const MatrixView& first = b_first ? right : left;
  const MatrixView& second = b_first ? left : right;
  if (MayRun(first)) return Run(first, second, !b_first);
  return MayRun(second) && Run(second, first, b_first);
}

// inputs: [batch, k].
bool Gemm::Run(const MatrixView& w, const MatrixView& inputs, bool w_is_a) const {
  std::vector<float> x(size_t{inputs.rows} * inputs.cols);
  for (size_t i = 0; i < inputs.rows; ++i) {
    for (size_t j = 0; j < inputs.cols; ++j) {
      x[i * inputs.cols + j] = inputs.base[i * inputs.row_stride + j * inputs.col_stride];
    }
  }
  std::vector<float> products;
  std::vector<float> bounds;
  if (!RunOnFabric(w, x, inputs.rows, &products, &bounds)) return false;
  const auto at = [&](size_t vector, size_t row) -> float& {
    return w_is_a ? C(row, vector) : C(vector, row);
  };
  for (size_t i = 0; i < products.size(); ++i) {
    products[i] = Combine(alpha, products[i], beta, at(i / w.rows, i % w.rows));
  }
  if (settings.validate) OnHost(c);
  float worst = 0;
  for (size_t i = 0; i < products.size(); ++i) {
    float& result = at(i / w.rows, i % w.rows);
    if (settings.validate) {
      Compare(products[i], result, CombinedBound(alpha, bounds[i], result), &worst);
    } else {
      result = products[i];
    }
  }
  if (settings.validate) NoteWorst("cblas_sgemm", worst);
  return true;
}

// ------------------------------------------------------------------ begin and end

// "64K", "1M", "2G"; `otherwise` for anything else.
size_t BytesFrom(const char* name, size_t otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) return otherwise;
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(text, &end, 10);
  int shift = 0;
  if (*end == 'K') shift = 10;
  if (*end == 'M') shift = 20;
  if (*end == 'G') shift = 30;
  const bool sound = errno == 0 && end != text && *(end + (shift != 0 ? 1 : 0)) == '\0' &&
                     value <= (SIZE_MAX >> shift);
  if (!sound) {
    Log("tfmbs_intercept: %s is a number of bytes such as 64K or 1G, not \"%s\"; %zu is used\n",
        name, text, otherwise);
    return otherwise;
  }
  return static_cast<size_t>(value) << shift;
}

bool IsSet(const char* name) {
  const char* text = std::getenv(name);
  return text != nullptr && std::strcmp(text, "0") != 0 && *text != '\0';
}

double NumberFrom(const char* name, double least, double most, double otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) return otherwise;
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end != text && *end == '\0' && value >= least && value <= most) return value;
  Log("tfmbs_intercept: %s is a number from %g to %g, not \"%s\"; %g is used\n", name, least, most,
      text, otherwise);
  return otherwise;
}

void AfterForkInChild() {
  arena.Unlock();
  detector_busy.clear();
  forked = true;
}

__attribute__((constructor)) void Begin() {
  const Inside inside;
  Resolve();
  if (const char* path = std::getenv("TFMBS_LOG"); path != nullptr) {
    const int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file >= 0) settings.log = file;
  }
  settings.threshold = std::max<size_t>(1, BytesFrom("TFMBS_THRESHOLD", settings.threshold));
  settings.copy_threshold = BytesFrom("TFMBS_COPY_THRESHOLD", settings.copy_threshold);
  settings.validate = IsSet("TFMBS_VALIDATE");
  settings.verbose = IsSet("TFMBS_VERBOSE");
  const size_t pool = BytesFrom("TFMBS_POOL", size_t{1} << 30);
  if (!arena.Reserve(pool)) Log("tfmbs_intercept: no address space for %zu bytes\n", pool);
  detector = new (std::nothrow) RowScanDetector;
  blas = new (std::nothrow)
      FabricBlas({.planes = static_cast<uint32_t>(NumberFrom("TFMBS_PLANES", 1, 8, 8)),
                  .max_error = NumberFrom("TFMBS_MAX_ERROR", 0, 1, 0.02),
                  .uses = static_cast<uint32_t>(NumberFrom("TFMBS_USES", 1, 1e6, 2)),
                  .device = std::getenv("TFMBS_DEVICE")});
  if (detector == nullptr || blas == nullptr) return;
  pthread_atfork([] { arena.Lock(); }, [] { arena.Unlock(); }, AfterForkInChild);
  ready.store(true, std::memory_order_release);
}

__attribute__((destructor)) void End() {
  if (!ready.load() || forked.load()) return;
  const Inside inside;
  tfmbs_intercept_stats s;
  tfmbs_intercept_get_stats(&s);
  Log("tfmbs_intercept: memory: %llu blocks and %llu files on the Fabric, %llu did not fit; "
      "copies: %llu of %llu bytes; repeated row scans: %llu\n",
      static_cast<unsigned long long>(s.fabric_allocations),
      static_cast<unsigned long long>(s.fabric_files), static_cast<unsigned long long>(s.spilled),
      static_cast<unsigned long long>(s.copies), static_cast<unsigned long long>(s.copied_bytes),
      static_cast<unsigned long long>(s.row_scans));
  Log("tfmbs_intercept: products: %llu on the Fabric, %llu on the host; %llu matrices "
      "ternarised; %llu results compared, %llu beyond their bound, the worst at %.3f of it\n",
      static_cast<unsigned long long>(s.fabric_products),
      static_cast<unsigned long long>(s.host_products),
      static_cast<unsigned long long>(s.ternarised), static_cast<unsigned long long>(s.validated),
      static_cast<unsigned long long>(s.beyond_bound), s.worst_of_bound);
}

}  // namespace

// ------------------------------------------------------------------ the C library's

EXPORT void* malloc(size_t bytes) {
  if (void* block = FabricAllocate(bytes)) return block;
  return Resolve() ? next.malloc(bytes) : EarlyAllocate(bytes);
}

EXPORT void* calloc(size_t count, size_t size) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) {
    errno = ENOMEM;
    return nullptr;
  }
  if (void* block = FabricAllocate(bytes)) return block;
  return Resolve() ? next.calloc(count, size) : EarlyAllocate(bytes);
}

EXPORT void free(void* p) {
  if (p == nullptr || IsEarly(p)) return;
  if (arena.Contains(p)) {
    const int saved = errno;
    if (!arena.Free(p)) {
      Log("tfmbs_intercept: free() of %p, which is no block\n", p);
      std::abort();
    }
    errno = saved;
    return;
  }
  if (Resolve()) next.free(p);
}

EXPORT size_t malloc_usable_size(void* p) {
  if (p == nullptr) return 0;
  if (IsEarly(p)) return EarlyBytes(p);
  if (arena.Contains(p)) return arena.BlockBytes(p);
  return Resolve() ? next.malloc_usable_size(p) : 0;
}

EXPORT void* realloc(void* p, size_t bytes) {
  if (p == nullptr) return malloc(bytes);
  const bool ours = IsEarly(p) || arena.Contains(p);
  if (!ours && (bytes < settings.threshold || !Hooked())) {
    return Resolve() ? next.realloc(p, bytes) : nullptr;
  }
  const size_t held = malloc_usable_size(p);
  if (ours && bytes == 0) {
    free(p);
    return nullptr;
  }
  // Not worth moving: it fits, and at least half of it is used.
  if (arena.Contains(p) && bytes <= held && bytes > held / 2) return p;
  void* moved = malloc(bytes);
  if (moved == nullptr) return nullptr;
  (next.memcpy != nullptr ? next.memcpy : PlainMove)(moved, p, std::min(held, bytes));
  free(p);
  return moved;
}

EXPORT void* reallocarray(void* p, size_t count, size_t size) {
  size_t bytes = 0;
  if (__builtin_mul_overflow(count, size, &bytes)) {
    errno = ENOMEM;
    return nullptr;
  }
  return realloc(p, bytes);
}

EXPORT void* mmap(void* address, size_t length, int protection, int flags, int file, off_t offset) {
  if (Hooked() && CanMapOnFabric(address, length, protection, flags)) {
    if (void* block = MapOnFabric(length, protection, flags, file, offset)) return block;
  }
  if ((flags & MAP_FIXED) != 0 && arena.Meets(address, length)) arena.Retire(address);
  return SystemMmap(address, length, protection, flags, file, offset);
}

EXPORT void* mmap64(void* address, size_t length, int protection, int flags, int file,
                    off64_t offset) {
  return mmap(address, length, protection, flags, file, offset);
}

EXPORT int munmap(void* address, size_t length) {
  if (arena.Contains(address)) return UnmapFromFabric(address, length);
  return static_cast<int>(syscall(SYS_munmap, address, length));
}

EXPORT void* memcpy(void* __restrict to, const void* __restrict from, size_t bytes) {
  if (bytes >= settings.copy_threshold && Hooked()) NoteCopy(to, from, bytes);
  return next.memcpy != nullptr ? next.memcpy(to, from, bytes) : PlainMove(to, from, bytes);
}

EXPORT void* memmove(void* to, const void* from, size_t bytes) {
  if (bytes >= settings.copy_threshold && Hooked()) NoteCopy(to, from, bytes);
  return next.memmove != nullptr ? next.memmove(to, from, bytes) : PlainMove(to, from, bytes);
}

// ------------------------------------------------------------------ a BLAS's

EXPORT void cblas_sgemv(int order, int transpose, int m, int n, float alpha, const float* a,
                        int lda, const float* x, int incx, float beta, float* y, int incy) {
  const Gemv product{order, transpose, m, n, alpha, a, lda, x, incx, beta, y, incy};
  const bool hooked = Hooked();
  const Inside inside;
  if (!hooked || !product.Sound() || !TryFabric(product)) product.OnHost(y);
}

EXPORT void cblas_sgemm(int order, int transpose_a, int transpose_b, int m, int n, int k,
                        float alpha, const float* a, int lda, const float* b, int ldb, float beta,
                        float* c, int ldc) {
  const Gemm product{order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc};
  const bool hooked = Hooked();
  const Inside inside;
  if (!hooked || !product.Sound() || !TryFabric(product)) product.OnHost(c);
}

// ------------------------------------------------------------------ what programs may say

EXPORT int tfmbs_intercept_register(const float* matrix, uint32_t rows, uint32_t cols,
                                    uint64_t row_stride, uint64_t col_stride) {
  if (!Hooked() || forked.load()) return -1;
  const Inside inside;
  try {
    return blas->Register({matrix, rows, cols, row_stride, col_stride}) ? 0 : -1;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

EXPORT int tfmbs_intercept_unregister(const float* matrix) {
  if (!Hooked() || forked.load()) return -1;
  const Inside inside;
  return blas->Unregister(matrix) ? 0 : -1;
}

EXPORT void tfmbs_intercept_get_stats(tfmbs_intercept_stats* stats) {
  const Inside inside;
  *stats = {.fabric_allocations = counts.allocations,
            .fabric_files = counts.files,
            .fabric_bytes = arena.used_bytes(),
            .spilled = counts.spilled,
            .copies = counts.copies,
            .copied_bytes = counts.copied_bytes,
            .row_scans = counts.row_scans,
            .fabric_products = counts.on_fabric,
            .host_products = counts.on_host,
            .ternarised = blas == nullptr || forked.load() ? 0 : blas->ternarised(),
            .validated = counts.validated,
            .beyond_bound = counts.beyond,
            .worst_of_bound = static_cast<double>(counts.worst_in_millionths) / 1e6};
}
