#include <arm_neon.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/peak.h"

// Reads with 16-byte loads. Multiplies with sdot: 16 products each, sixteen independent sums to
// cover the latency.

namespace fabric::kernels {
namespace {

uint64_t ReadBytes(const void* data, size_t bytes) noexcept {
  const auto* at = static_cast<const uint8_t*>(data);
  uint8x16_t sums[4] = {vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0), vdupq_n_u8(0)};
  for (size_t i = 0; i < bytes; i += 64) {
    __builtin_prefetch(at + i + 1024);
#pragma GCC unroll 4
    for (size_t q = 0; q < 4; ++q) sums[q] = veorq_u8(sums[q], vld1q_u8(at + i + 16 * q));
  }
  return vaddlvq_u8(veorq_u8(veorq_u8(sums[0], sums[1]), veorq_u8(sums[2], sums[3])));
}

constexpr int kSums = 16;

uint64_t MultiplyInt8(uint64_t rounds) noexcept {
  int32x4_t sums[kSums];
// Without the pragmas the sums would live in memory, and stores would be what is measured.
#pragma GCC unroll 16
  for (int k = 0; k < kSums; ++k) sums[k] = vdupq_n_s32(0);
  const int8x16_t codes = vdupq_n_s8(1);
  const int8x16_t inputs = vdupq_n_s8(3);
  for (uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int k = 0; k < kSums; ++k) {
      sums[k] = vdotq_s32(sums[k], codes, inputs);
      __asm__ volatile("" : "+w"(sums[k]));
    }
  }
  int32x4_t total = vdupq_n_s32(0);
#pragma GCC unroll 16
  for (int k = 0; k < kSums; ++k) total = veorq_s32(total, sums[k]);
  return static_cast<uint32_t>(vaddvq_s32(total));
}

}  // namespace

PeakKernels PeakNeon() noexcept { return {ReadBytes, MultiplyInt8, 16 * kSums}; }

}  // namespace fabric::kernels
