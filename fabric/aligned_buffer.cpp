#include "fabric/aligned_buffer.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <limits>

namespace fabric {
namespace {

// Streaming weights touches a new 4 KiB page every 100 ns or so; 2 MiB pages keep the walks away.
constexpr size_t kHugePage = size_t{2} << 20;

size_t RoundUp(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// Whole huge pages of a mapping of their own: zero, and there only once they are touched.
void* MapHuge(size_t bytes) {
  const size_t rounded = RoundUp(bytes, kHugePage);
  const size_t mapped = rounded + kHugePage;
  void* mapping = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  const auto start = reinterpret_cast<uintptr_t>(mapping);
  const size_t before = RoundUp(start, kHugePage) - start;
  char* memory = static_cast<char*>(mapping) + before;
  if (before > 0) munmap(mapping, before);
  if (before < kHugePage) munmap(memory + rounded, kHugePage - before);
  madvise(memory, rounded, MADV_HUGEPAGE);
  return memory;
}

}  // namespace

void* AllocateAligned(size_t bytes) {
  if (bytes == 0) return nullptr;
  if (bytes > std::numeric_limits<size_t>::max() - 2 * kHugePage) throw std::bad_alloc();
  if (bytes >= kHugePage) return MapHuge(bytes);
  const size_t rounded = RoundUp(bytes, kBufferAlignment);
  void* memory = nullptr;
  if (posix_memalign(&memory, kBufferAlignment, rounded) != 0) throw std::bad_alloc();
  std::memset(memory, 0, rounded);
  return memory;
}

void FreeAligned(void* memory, size_t bytes) noexcept {
  if (bytes >= kHugePage) {
    munmap(memory, RoundUp(bytes, kHugePage));
  } else {
    std::free(memory);
  }
}

}  // namespace fabric
