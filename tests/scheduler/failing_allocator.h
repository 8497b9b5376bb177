#pragma once

#include <cstdint>

namespace scheduler {

// A program that links failing_allocator.cpp can make one allocation of a thread fail.

// Allocations of this thread before the one that throws std::bad_alloc; negative: none does.
extern thread_local int64_t allocations_left;
// Set by the allocation that failed.
extern thread_local bool allocation_failed;

}  // namespace scheduler
