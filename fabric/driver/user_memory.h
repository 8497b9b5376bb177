#pragma once

#include <cstddef>
#include <cstdint>

namespace fabric::driver {

// Copies between the driver and addresses that its caller named, as a kernel does: false when the
// address is not mapped or not writable, instead of a fault. Where the system does not let a
// process read itself this way (some sandboxes), it is a plain copy.
//
// to, from: at least `bytes` bytes. Threads: any.
bool CopyFromUser(uint64_t address, void* to, size_t bytes) noexcept;
bool CopyToUser(uint64_t address, const void* from, size_t bytes) noexcept;

}  // namespace fabric::driver
