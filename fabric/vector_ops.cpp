#include "fabric/vector_ops.h"

#include <bit>

#include "fabric/kernels/kernel_table.h"

namespace fabric {
namespace {

const kernels::FloatOps& Ops() { return kernels::ActiveKernels().floats; }

// ln(x) for finite x >= 2^-126, in double: x = 2^e m with sqrt(1/2) <= m < sqrt(2), and
// ln m = 2 atanh(z), z = (m - 1) / (m + 1), |z| < 0.172; the first dropped term is below 1e-15.
double Log(double x) {
  constexpr double kLn2 = 0.693147180559945309417;
  constexpr double kSqrt2 = 1.41421356237309504880;
  const auto bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000);
  if (m > kSqrt2) {
    m *= 0.5;
    ++exponent;
  }
  const double z = (m - 1.0) / (m + 1.0);
  const double square = z * z;
  double series = 0.0;
  for (int n = 17; n >= 1; n -= 2) series = series * square + 1.0 / n;
  return exponent * kLn2 + 2.0 * z * series;
}

}  // namespace

void RmsNorm(const float* x, const float* weight, float eps, size_t n, float* y) noexcept {
  Ops().rms_norm(x, weight, eps, n, y);
}

bool QuantizeToken(const float* x, size_t n, size_t padded_n, int8_t* codes, float* scale,
                   int32_t* sum) noexcept {
  return Ops().quantize_token(x, n, padded_n, codes, scale, sum);
}

bool QuantizeBlocks(const float* x, size_t n, size_t padded_n, int8_t* codes, float* scales,
                    int32_t* sums) noexcept {
  return Ops().quantize_blocks(x, n, padded_n, codes, scales, sums);
}

float Dot(const float* a, const float* b, size_t n) noexcept { return Ops().dot(a, b, n); }

void AddTo(const float* x, size_t n, float* y) noexcept { Ops().add_to(x, n, y); }

void ReluSquaredMul(const float* up, size_t n, float* gate) noexcept {
  Ops().relu_squared_mul(up, n, gate);
}

void SiluMul(const float* up, size_t n, float* gate) noexcept { Ops().silu_mul(up, n, gate); }

void GeluMul(const float* up, size_t n, float* gate) noexcept { Ops().gelu_mul(up, n, gate); }

size_t ArgMax(const float* x, size_t n, bool* finite) noexcept {
  return Ops().arg_max(x, n, finite);
}

float LogSumExp(const float* x, size_t n) noexcept {
  const float largest = Ops().max(x, n);
  const float sum = Ops().exp_shifted(x, largest, n, nullptr);
  // NaN somewhere, or nothing above -infinity: the sum says which, and has no logarithm.
  if (!(sum >= 1.0F)) return largest + sum;
  return static_cast<float>(Log(sum)) + largest;
}

float ExpShifted(const float* x, float shift, size_t n, float* y) noexcept {
  return Ops().exp_shifted(x, shift, n, y);
}

void Rope(float* x, uint32_t heads, uint32_t head_dim, uint32_t rope_dim, bool neox,
          const float* cosines, const float* sines) noexcept {
  Ops().rope(x, heads, head_dim, rope_dim, neox, cosines, sines);
}

void Hadamard(float* x, size_t n, size_t block) noexcept { Ops().hadamard(x, n, block); }

void DeltaRule(const DeltaRuleStep& step) noexcept { Ops().delta_rule(step); }

void FloatsToHalves(const float* x, size_t n, uint16_t* y) noexcept {
  Ops().floats_to_halves(x, n, y);
}

void HalvesToFloats(const uint16_t* x, size_t n, float* y) noexcept {
  Ops().halves_to_floats(x, n, y);
}

uint16_t QuantizeKvQ8(const float* x, size_t n, int8_t* codes) noexcept {
  return Ops().quantize_kv_q8(x, n, codes);
}

uint16_t QuantizeKvT2(const float* x, size_t n, uint8_t* codes) noexcept {
  return Ops().quantize_kv_t2(x, n, codes);
}

void AttendChunk(const AttentionChunk& chunk) noexcept { Ops().attend_chunk(chunk); }

void MergeAttention(uint32_t group, uint32_t head_dim, const float* later_max,
                    const float* later_sum, const float* later_accumulator, float* max, float* sum,
                    float* accumulator) noexcept {
  Ops().merge_attention(group, head_dim, later_max, later_sum, later_accumulator, max, sum,
                        accumulator);
}

void FinishAttention(uint32_t group, uint32_t head_dim, const float* sum, const float* accumulator,
                     float* out) noexcept {
  Ops().finish_attention(group, head_dim, sum, accumulator, out);
}

}  // namespace fabric
