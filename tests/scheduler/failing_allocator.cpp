#include "tests/scheduler/failing_allocator.h"

#include <cstdlib>
#include <new>

namespace scheduler {

thread_local int64_t allocations_left = -1;
thread_local bool allocation_failed = false;

}  // namespace scheduler

void* operator new(size_t size) {
  if (scheduler::allocations_left >= 0 && scheduler::allocations_left-- == 0) {
    scheduler::allocation_failed = true;
    throw std::bad_alloc();
  }
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

// A sanitizer's own would allocate elsewhere than operator delete below frees.
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  try {
    return operator new(size);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
