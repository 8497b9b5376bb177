#include <cstring>

#include "fabric/kernels/peak.h"

namespace fabric::kernels {
namespace {

uint64_t ReadBytes(const void* data, size_t bytes) noexcept {
  const auto* at = static_cast<const unsigned char*>(data);
  uint64_t sums[8] = {};
  for (size_t i = 0; i < bytes; i += sizeof sums) {
    uint64_t words[8];
    std::memcpy(words, at + i, sizeof words);
    for (int j = 0; j < 8; ++j) sums[j] += words[j];
  }
  uint64_t total = 0;
  for (const uint64_t sum : sums) total += sum;
  return total;
}

constexpr size_t kLanes = 64;

uint64_t MultiplyInt8(uint64_t rounds) noexcept {
  int32_t sums[kLanes] = {};
  int8_t weights[kLanes];
  int8_t inputs[kLanes];
  for (size_t j = 0; j < kLanes; ++j) {
    weights[j] = static_cast<int8_t>(j % 3) - 1;
    inputs[j] = static_cast<int8_t>(j);
  }
  for (uint64_t i = 0; i < rounds; ++i) {
    // Changing inputs, so that the products are not computed once for all rounds.
    inputs[i % kLanes] = static_cast<int8_t>(i);
    for (size_t j = 0; j < kLanes; ++j) sums[j] += weights[j] * inputs[j];
  }
  uint64_t total = 0;
  for (const int32_t sum : sums) total += static_cast<uint64_t>(sum);
  return total;
}

}  // namespace

PeakKernels PeakScalar() noexcept { return {ReadBytes, MultiplyInt8, kLanes}; }

}  // namespace fabric::kernels
