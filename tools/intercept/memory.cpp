// Allocations and private mappings above the threshold, in the Fabric's memory.

#include <malloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "tools/intercept/runtime.h"

namespace {

using intercept::arena;
using intercept::counts;
using intercept::Hooked;
using intercept::Log;
using intercept::next;
using intercept::PageArena;
using intercept::PlainMove;
using intercept::Resolve;
using intercept::settings;

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

}  // namespace

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
