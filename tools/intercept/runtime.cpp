#include "tools/intercept/runtime.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>

namespace intercept {

constinit NextFunctions next = {};
constinit Settings settings;
constinit PageArena arena;
constinit Counts counts = {};
constinit std::atomic<bool> ready{false};
constinit std::atomic<bool> forked{false};
constinit RowScanDetector* detector = nullptr;
constinit std::atomic_flag detector_busy = ATOMIC_FLAG_INIT;
constinit FabricBlas* blas = nullptr;
constinit __attribute__((tls_model("initial-exec"))) thread_local int calls_inside = 0;

namespace {

constinit __attribute__((tls_model("initial-exec"))) thread_local bool resolving = false;

template <typename Function>
void Look(const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

}  // namespace

bool Resolve() {
  if (next.free != nullptr) return true;
  if (resolving) return false;
  resolving = true;
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
  resolving = false;
  return true;
}

// No builtins: GCC would make a call of memcpy() out of a loop.
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

void Log(const char* format, ...) {
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

}  // namespace intercept
