#include "fabric/aligned_buffer.h"

#include <sys/mman.h>

#include <limits>

namespace fabric {
namespace {

// Streaming weights touches a new 4 KiB page every 100 ns or so; 2 MiB pages keep the walks away.
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

void* AllocateAligned(size_t bytes) {
  if (bytes == 0) return nullptr;
  const bool huge = bytes >= kHugePage;
  const size_t alignment = huge ? kHugePage : kBufferAlignment;
  if (bytes > std::numeric_limits<size_t>::max() - alignment) throw std::bad_alloc();
  const size_t rounded = (bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, rounded) != 0) throw std::bad_alloc();
  // Advice only: the zeroes below come either way.
  if (huge) madvise(memory, rounded / kHugePage * kHugePage, MADV_HUGEPAGE);
  std::memset(memory, 0, rounded);
  return memory;
}

}  // namespace fabric
