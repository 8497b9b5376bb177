#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/peak.h"

// Multiplies with the 256-bit vpdpbusd: 32 products each, twelve independent sums to cover the
// latency. Reading is the AVX2 kernel's.

namespace fabric::kernels {
namespace {

constexpr int kSums = 12;

uint64_t MultiplyInt8(uint64_t rounds) noexcept {
  __m256i sums[kSums];
// Without the pragmas the sums would live in memory, and stores would be what is measured.
#pragma GCC unroll 12
  for (int k = 0; k < kSums; ++k) sums[k] = _mm256_setzero_si256();
  const __m256i codes = _mm256_set1_epi8(1);
  const __m256i inputs = _mm256_set1_epi8(3);
  for (uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < kSums; ++k) {
      sums[k] = _mm256_dpbusd_avx_epi32(sums[k], codes, inputs);
      __asm__ volatile("" : "+x"(sums[k]));
    }
  }
  __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 12
  for (int k = 0; k < kSums; ++k) total = _mm256_xor_si256(total, sums[k]);
  alignas(32) uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), total);
  return words[0] + words[1] + words[2] + words[3];
}

}  // namespace

PeakKernels PeakAvxVnni() noexcept { return {PeakAvx2().read_bytes, MultiplyInt8, 32 * kSums}; }

}  // namespace fabric::kernels
