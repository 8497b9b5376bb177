#pragma once

#include <cstdint>
#include <string_view>

namespace fabric {

// Instruction sets that kernels are written for, in the order in which they are preferred last.
enum class Isa : uint8_t { kScalar, kAvx2, kAvx512Vnni };

// The name used by TERN_FORCE_ISA, logs and metrics: "scalar", "avx2", "avx512".
std::string_view IsaName(Isa isa);

}  // namespace fabric
