#pragma once

#include <cstdint>

namespace engine {

// Memory that this process may still take: the system's available memory, limited by what cgroup v2
// leaves. 0 when neither can be read.
uint64_t AvailableMemoryBytes();

}  // namespace engine
