#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/ternary_tile.h"

// Plain C++ that compilers vectorise well. Included by one file per target, which compiles its own
// copy for its own instructions: hence the anonymous namespace.

namespace fabric::kernels {
namespace {

inline ActivityCount CountActivity(const int8_t* codes, const uint32_t* nonzeros,
                                   uint32_t cols) noexcept {
  uint64_t ops = 0;
  uint64_t columns = 0;
  for (uint32_t col = 0; col < cols; ++col) {
    const uint32_t active = codes[col] != 0 ? 1 : 0;
    ops += active * nonzeros[col];
    columns += active;
  }
  return {ops, columns};
}

}  // namespace
}  // namespace fabric::kernels
