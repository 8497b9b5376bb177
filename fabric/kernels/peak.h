#pragma once

#include <cstddef>
#include <cstdint>

namespace fabric::kernels {

// What a core can do at best, per instruction set: the yardsticks of `tern bench`. Results only
// keep the compiler from dropping the work.

// Reads `bytes` bytes (a multiple of 4096) once, in order.
using ReadBytesFn = uint64_t (*)(const void* data, size_t bytes) noexcept;

// `rounds` rounds of independent int8 multiply-adds on registers.
using MultiplyInt8Fn = uint64_t (*)(uint64_t rounds) noexcept;

struct PeakKernels {
  ReadBytesFn read_bytes = nullptr;
  MultiplyInt8Fn multiply_int8 = nullptr;
  uint64_t macs_per_round = 0;
};

PeakKernels PeakScalar() noexcept;
#if defined(__x86_64__)
PeakKernels PeakAvx2() noexcept;
PeakKernels PeakAvxVnni() noexcept;
PeakKernels PeakAvx512Vnni() noexcept;
#elif defined(__aarch64__)
PeakKernels PeakNeon() noexcept;
#endif

}  // namespace fabric::kernels
