#pragma once

#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "tools/intercept/fabric_blas.h"
#include "tools/intercept/page_arena.h"
#include "tools/intercept/row_scan.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// What the files of this library share: the functions that a preloaded library puts in front of the
// C library's and of a BLAS.
//
// malloc() is called before constructors, from inside dlsym(), between fork() and exec(), and by
// the Fabric's own threads. So: until the constructor has run everything goes to the C library;
// what is allocated while its functions are being looked up comes from a small static buffer; a
// thread that is inside this library gets the C library's functions; and nothing on the way of
// malloc(), free(), mmap(), munmap() or memcpy() allocates or takes a lock that is held across a
// call.
namespace intercept {

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
extern constinit NextFunctions next;
extern constinit Settings settings;
extern constinit PageArena arena;
extern constinit Counts counts;
extern constinit std::atomic<bool> ready;   // the constructor has run
extern constinit std::atomic<bool> forked;  // a child without the Fabric's threads
extern constinit RowScanDetector* detector;
extern constinit std::atomic_flag detector_busy;
extern constinit FabricBlas* blas;

// Calls of this library that this thread is in.
extern constinit __attribute__((tls_model("initial-exec"))) thread_local int calls_inside;

class Inside {
 public:
  Inside() { ++calls_inside; }
  ~Inside() { --calls_inside; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;
};

inline bool Hooked() { return calls_inside == 0 && ready.load(std::memory_order_acquire); }

// Looks `next` up; false while this thread is doing so.
bool Resolve();
// A line, with its end, of at most 511 bytes.
__attribute__((format(printf, 1, 2))) void Log(const char* format, ...);
// memmove() before the C library's is known.
void* PlainMove(void* to, const void* from, size_t bytes);

}  // namespace intercept
