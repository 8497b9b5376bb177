#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/peak.h"

// Reads with 32-byte loads. Multiplies with vpmaddubsw + vpaddw, the int8 path of AVX2 for ternary
// codes, whose pairs may be added up in int16 for a while: 32 products per pair of instructions,
// twelve independent sums to cover the latency.

namespace fabric::kernels {
namespace {

uint64_t HorizontalSum(__m256i v) noexcept {
  alignas(32) uint64_t words[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(words), v);
  return words[0] + words[1] + words[2] + words[3];
}

uint64_t ReadBytes(const void* data, size_t bytes) noexcept {
  const char* at = static_cast<const char*>(data);
  __m256i a = _mm256_setzero_si256();
  __m256i b = a;
  __m256i c = a;
  __m256i d = a;
  for (size_t i = 0; i < bytes; i += 128) {
    _mm_prefetch(at + i + 1024, _MM_HINT_T0);
    _mm_prefetch(at + i + 1088, _MM_HINT_T0);
    const auto* p = reinterpret_cast<const __m256i*>(at + i);
    a = _mm256_xor_si256(a, _mm256_loadu_si256(p));
    b = _mm256_xor_si256(b, _mm256_loadu_si256(p + 1));
    c = _mm256_xor_si256(c, _mm256_loadu_si256(p + 2));
    d = _mm256_xor_si256(d, _mm256_loadu_si256(p + 3));
  }
  return HorizontalSum(_mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_xor_si256(c, d)));
}

constexpr int kSums = 12;

uint64_t MultiplyInt8(uint64_t rounds) noexcept {
  __m256i sums[kSums];
// Without the pragmas the sums would live in memory, and stores would be what is measured.
#pragma GCC unroll 12
  for (int k = 0; k < kSums; ++k) sums[k] = _mm256_setzero_si256();
  __m256i codes = _mm256_set1_epi8(1);
  const __m256i inputs = _mm256_set1_epi8(3);
  for (uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 12
    for (int k = 0; k < kSums; ++k) {
      // The compiler must believe that the operand changed.
      __asm__ volatile("" : "+x"(codes));
      sums[k] = _mm256_add_epi16(sums[k], _mm256_maddubs_epi16(codes, inputs));
      __asm__ volatile("" : "+x"(sums[k]));
    }
  }
  __m256i total = _mm256_setzero_si256();
#pragma GCC unroll 12
  for (int k = 0; k < kSums; ++k) total = _mm256_xor_si256(total, sums[k]);
  return HorizontalSum(total);
}

}  // namespace

PeakKernels PeakAvx2() noexcept { return {ReadBytes, MultiplyInt8, 32 * kSums}; }

}  // namespace fabric::kernels
