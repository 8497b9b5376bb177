#include "fabric/cpu/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace fabric {
namespace {

#if defined(__x86_64__)

struct CpuidRegisters {
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
};

CpuidRegisters Cpuid(uint32_t leaf, uint32_t subleaf) {
  CpuidRegisters r;
  if (__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx) == 0) return {};
  return r;
}

constexpr bool HasAll(uint64_t value, uint64_t bits) { return (value & bits) == bits; }

// Register state that the operating system saves on a context switch.
uint64_t SavedState() {
  uint32_t low = 0;
  uint32_t high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

// Bit numbers are those of the Intel Software Developer's Manual, volume 2A, CPUID.
std::vector<Isa> DetectIsas() {
  constexpr uint32_t kFma = 1U << 12;
  constexpr uint32_t kOsxsave = 1U << 27;
  constexpr uint32_t kAvx = 1U << 28;
  constexpr uint32_t kF16c = 1U << 29;
  constexpr uint32_t kAvx2 = 1U << 5;
  constexpr uint32_t kAvx512F = 1U << 16;
  constexpr uint32_t kAvx512Dq = 1U << 17;
  constexpr uint32_t kAvx512Bw = 1U << 30;
  constexpr uint32_t kAvx512Vl = 1U << 31;
  constexpr uint32_t kAvx512Vbmi = 1U << 1;
  constexpr uint32_t kAvx512Vnni = 1U << 11;
  constexpr uint32_t kAvxVnni = 1U << 4;  // leaf 7.1, EAX
  constexpr uint64_t kYmmState = 0x06;
  constexpr uint64_t kZmmState = 0xE6;

  const CpuidRegisters basic = Cpuid(1, 0);
  const CpuidRegisters extended = Cpuid(7, 0);
  std::vector<Isa> isas;
  if (HasAll(basic.ecx, kFma | kOsxsave | kAvx | kF16c) && HasAll(extended.ebx, kAvx2)) {
    const uint64_t saved = SavedState();
    if (HasAll(saved, kZmmState) &&
        HasAll(extended.ebx, kAvx512F | kAvx512Dq | kAvx512Bw | kAvx512Vl) &&
        HasAll(extended.ecx, kAvx512Vnni)) {
      if (HasAll(extended.ecx, kAvx512Vbmi)) isas.push_back(Isa::kAvx512Vbmi);
      isas.push_back(Isa::kAvx512Vnni);
    }
    if (HasAll(saved, kYmmState)) {
      if (HasAll(Cpuid(7, 1).eax, kAvxVnni)) isas.push_back(Isa::kAvxVnni);
      isas.push_back(Isa::kAvx2);
    }
  }
  isas.push_back(Isa::kScalar);
  return isas;
}

#elif defined(__aarch64__)

std::vector<Isa> DetectIsas() {
  // The dot products of ARMv8.2; without them int8 is not worth a kernel of its own.
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0) return {Isa::kNeon, Isa::kScalar};
  return {Isa::kScalar};
}

#else

std::vector<Isa> DetectIsas() { return {Isa::kScalar}; }

#endif

std::string ListNames(std::span<const Isa> isas) {
  std::string names;
  for (const Isa isa : isas) {
    if (!names.empty()) names += ", ";
    names += IsaName(isa);
  }
  return names;
}

}  // namespace

std::string_view IsaName(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kNeon:
      return "neon";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512Vnni:
      return "avx512";
    case Isa::kAvx512Vbmi:
      return "avx512vbmi";
  }
  return "?";
}

std::span<const Isa> SupportedIsas() {
  static const std::vector<Isa> isas = DetectIsas();
  return isas;
}

Isa SelectIsa(const char* forced, std::span<const Isa> supported) {
  if (forced == nullptr || *forced == '\0') return supported.front();
  for (const Isa isa : supported) {
    if (IsaName(isa) == forced) return isa;
  }
  throw std::runtime_error("TERN_FORCE_ISA is \"" + std::string(forced) +
                           "\", but this machine supports " + ListNames(supported) + ".");
}

Isa ActiveIsa() {
  static const Isa isa = SelectIsa(std::getenv("TERN_FORCE_ISA"), SupportedIsas());
  return isa;
}

}  // namespace fabric
