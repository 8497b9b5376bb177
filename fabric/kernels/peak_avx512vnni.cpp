#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#include "fabric/kernels/peak.h"

// Reads with 64-byte loads. Multiplies with vpdpbusd: 64 products each, sixteen independent sums to
// cover the latency of both ports.

namespace fabric::kernels {
namespace {

uint64_t HorizontalSum(__m512i v) noexcept {
  alignas(64) uint64_t words[8];
  _mm512_store_si512(words, v);
  uint64_t total = 0;
  for (const uint64_t word : words) total += word;
  return total;
}

uint64_t ReadBytes(const void* data, size_t bytes) noexcept {
  const char* at = static_cast<const char*>(data);
  __m512i a = _mm512_setzero_si512();
  __m512i b = a;
  __m512i c = a;
  __m512i d = a;
  for (size_t i = 0; i < bytes; i += 256) {
    for (int line = 0; line < 4; ++line) _mm_prefetch(at + i + 2048 + line * 64, _MM_HINT_T0);
    a = _mm512_xor_si512(a, _mm512_loadu_si512(at + i));
    b = _mm512_xor_si512(b, _mm512_loadu_si512(at + i + 64));
    c = _mm512_xor_si512(c, _mm512_loadu_si512(at + i + 128));
    d = _mm512_xor_si512(d, _mm512_loadu_si512(at + i + 192));
  }
  return HorizontalSum(_mm512_xor_si512(_mm512_xor_si512(a, b), _mm512_xor_si512(c, d)));
}

constexpr int kSums = 16;

uint64_t MultiplyInt8(uint64_t rounds) noexcept {
  __m512i sums[kSums];
// Without the pragmas the sums would live in memory, and stores would be what is measured.
#pragma GCC unroll 16
  for (int k = 0; k < kSums; ++k) sums[k] = _mm512_setzero_si512();
  const __m512i codes = _mm512_set1_epi8(1);
  const __m512i inputs = _mm512_set1_epi8(3);
  for (uint64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int k = 0; k < kSums; ++k) {
      sums[k] = _mm512_dpbusd_epi32(sums[k], codes, inputs);
      __asm__ volatile("" : "+v"(sums[k]));
    }
  }
  __m512i total = _mm512_setzero_si512();
#pragma GCC unroll 16
  for (int k = 0; k < kSums; ++k) total = _mm512_xor_si512(total, sums[k]);
  return HorizontalSum(total);
}

}  // namespace

PeakKernels PeakAvx512Vnni() noexcept { return {ReadBytes, MultiplyInt8, 64 * kSums}; }

}  // namespace fabric::kernels
