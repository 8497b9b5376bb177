#pragma once

#include <cstdint>
#include <string_view>

namespace gguf {

// Tensor element types by their id in the file. Where forks gave one id two meanings, the reader
// resolves the meaning from the tensor's byte span and the architecture (docs/ternary_format.md),
// so TensorInfo::type is never ambiguous; values above 0x10000 exist in memory only.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kBF16 = 30,
  kTQ1_0 = 34,
  kTQ2_0 = 35,
  kI2_S = 36,
  kQ1_0 = 41,
  kQ2_0 = 42,  // 64 weights per 18-byte block
  kIQ1_BN = 134,
  kIQ2_BN = 135,
  kPQ2_0 = 142,   // 128 weights per 34-byte block
  kPTQ1_0 = 143,  // 128 weights per 28-byte block
  kIQ2_BN_R4 = 335,
  kQ2_0_G128 = 0x10000 | 42,  // id 42 in files older than the 64-weight block
};

// "TQ2_0"; "?" for a value that is not an enumerator.
std::string_view TypeName(TensorType type);

// True when every weight is one of {-1, 0, +1} times a scale, by the type alone.
bool IsTernaryType(TensorType type);

}  // namespace gguf
