#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace fabric {

// Instruction sets that kernels are written for, in the order in which they are preferred last.
enum class Isa : uint8_t { kScalar, kNeon, kAvx2, kAvxVnni, kAvx512Vnni, kAvx512Vbmi };

// The name used by TERN_FORCE_ISA, logs and metrics: "scalar", "neon", "avx2", "avxvnni", "avx512",
// "avx512vbmi".
std::string_view IsaName(Isa isa);

// What this CPU and its operating system can run: best first, scalar last, never empty.
std::span<const Isa> SupportedIsas();

// The best of `supported`, or the one that `forced` names; null and "" force nothing.
// Errors: std::runtime_error when `forced` is unknown or not in `supported`, naming the choices.
Isa SelectIsa(const char* forced, std::span<const Isa> supported);

// SelectIsa() for this machine and TERN_FORCE_ISA, decided once. Call it early in main(), where an
// exception can still be told to the user; later calls cannot fail.
Isa ActiveIsa();

}  // namespace fabric
