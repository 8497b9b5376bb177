#pragma once

#include <cstddef>
#include <cstdint>

namespace fabric {

// Vector operations on the token path. Every one gives the same bits on every ISA: floats are
// summed in 16 virtual lanes (element i belongs to lane i mod 16) with fused multiply-add, and the
// lanes are added in one fixed tree: lane j += lane j+8, then +4, +2, +1. exp, sine and the like
// are polynomials of our own. No function allocates; none reads or writes past n elements unless it
// says so.

// y[i] = x[i] * (1 / sqrt(mean(x^2) + eps)) * weight[i]. y may be x. weight may be null (all ones).
void RmsNorm(const float* x, const float* weight, float eps, size_t n, float* y) noexcept;

// Quantises one vector to int8 (fabric/activations.h). codes: zero-filled up to padded_n. Returns
// false, and writes zeros, when some x[i] is not finite.
bool QuantizeToken(const float* x, size_t n, size_t padded_n, int8_t* codes, float* scale,
                   int32_t* sum) noexcept;
// scales (d = 1/s) and sums: [ceil(n / 32)].
bool QuantizeBlocks(const float* x, size_t n, size_t padded_n, int8_t* codes, float* scales,
                    int32_t* sums) noexcept;

// Sum of a[i] * b[i].
float Dot(const float* a, const float* b, size_t n) noexcept;

// y[i] += x[i].
void AddTo(const float* x, size_t n, float* y) noexcept;

// gate[i] = act(gate[i]) * up[i], for epilogues that could not be fused.
void ReluSquaredMul(const float* up, size_t n, float* gate) noexcept;
void SiluMul(const float* up, size_t n, float* gate) noexcept;
void GeluMul(const float* up, size_t n, float* gate) noexcept;  // with tanh, as Gemma has it

// Largest value and its lowest index; NaN counts as non-finite: *finite is set to false.
size_t ArgMax(const float* x, size_t n, bool* finite) noexcept;

// log(sum exp(x - max)) + max in float with a fixed order: the raw log-softmax is x[i] -
// LogSumExp(x).
float LogSumExp(const float* x, size_t n) noexcept;

// y[i] = exp(x[i] - shift); returns the sum in the lane order. y may be x.
float ExpShifted(const float* x, float shift, size_t n, float* y) noexcept;

// Rotates `heads` consecutive heads of head_dim floats in place by cosines and sines of one
// position (cos, sin: [rope_dim / 2]).  neox: pairs are (i, i + rope_dim/2); otherwise (2i, 2i +
// 1). Elements at rope_dim and above are left alone.
void Rope(float* x, uint32_t heads, uint32_t head_dim, uint32_t rope_dim, bool neox,
          const float* cosines, const float* sines) noexcept;

// In place on each `block` of n: y[r] = sum over c of (-1)^popcount(r & c) x[c] / sqrt(block), the
// normalised Walsh-Hadamard transform in Sylvester's order; its own inverse.
// REQUIRES: block is a power of two that divides n.
void Hadamard(float* x, size_t n, size_t block) noexcept;

// One token of one head of the gated delta rule (Yang, Kautz, Hatamizadeh 2024). The state S is
// [key_dim, value_dim], row-major:
//
//   S1 = decay * S;   S' = S1 + key (beta (value - S1^T key))^T;   out = S'^T query
//
// Sums over key_dim ascend; no lane is added to another.
struct DeltaRuleStep {
  const float* before = nullptr;
  float* after = nullptr;  // may be before
  const float* query = nullptr;
  const float* key = nullptr;
  const float* value = nullptr;
  float decay = 0;
  float beta = 0;
  uint32_t key_dim = 0;
  uint32_t value_dim = 0;
  float* out = nullptr;  // [value_dim]
};
void DeltaRule(const DeltaRuleStep& step) noexcept;

// float <-> fp16 (round to nearest even); exact the other way.
void FloatsToHalves(const float* x, size_t n, uint16_t* y) noexcept;
void HalvesToFloats(const uint16_t* x, size_t n, float* y) noexcept;

// How K and V are stored: floats, halves, or codes with one fp16 scale per row (one token's keys or
// values of one head).
enum class KvElement : uint8_t {
  kF32,
  kF16,
  kQ8,  // int8 codes
  kT2,  // ternary codes in two bits: code i of a row at bits 2 * (i % 4) of byte i / 4; 0 is 0, 1
        // is 1 and 3 is -1. Rows are padded with zeros to multiples of 16 codes.
};

// A row's codes take this many bytes.
constexpr size_t KvCodeBytes(KvElement element, size_t n) {
  switch (element) {
    case KvElement::kF32:
      return n * 4;
    case KvElement::kF16:
      return n * 2;
    case KvElement::kQ8:
      return n;
    case KvElement::kT2:
      return (n + 15) / 16 * 4;
  }
  return 0;
}
constexpr size_t KvScaleBytes(KvElement element) {
  return element == KvElement::kQ8 || element == KvElement::kT2 ? 2 : 0;
}

// Quantises one row of 0 < n < 2^16 floats and returns its fp16 scale: x[i] is about codes[i] *
// scale. codes: KvCodeBytes(). Elements too small for the smallest half become zeros; a scale above
// the largest half becomes that one. A row with NaN or infinity gets zeros with the scale NaN,
// which attention carries on. Threads: any.
//
// Q8: the scale is max|x| / 127, rounded up to a half; codes are rounded to nearest even.
uint16_t QuantizeKvQ8(const float* x, size_t n, int8_t* codes) noexcept;
// T2: the elements of the largest magnitudes become +-1, as many as give the row and its codes the
// best cosine; the scale is their mean magnitude, which is the best for these codes. Magnitudes are
// sorted into 64 equal ranges up to the largest, and a range is taken as a whole.
uint16_t QuantizeKvT2(const float* x, size_t n, uint8_t* codes) noexcept;

// Positions that attention takes at a time; running maxima are updated once per chunk, so chunk
// borders must lie at absolute multiples of this.
inline constexpr uint32_t kAttentionChunk = 16;

// Attention over kT2 rows leaves out values of less weight than this.
inline constexpr float kLeastT2Weight = 1e-6F;

// One chunk of online-softmax attention for the `group` query heads that share a KV head. A score
// is the sum of query times code, times the key's scale, times `scale`; a value counts by its
// weight times its scale. kT2: values whose weight is below kLeastT2Weight of the largest so far
// count as zero (with every head alone: the bits do not depend on the group), and are not read when
// they do so with all heads that are computed together.
struct AttentionChunk {
  KvElement element = KvElement::kF32;
  const void* keys = nullptr;              // [count] rows of KvCodeBytes(), contiguous
  const void* values = nullptr;            // the same
  const uint16_t* key_scales = nullptr;    // [count] halves; kQ8 and kT2 only
  const uint16_t* value_scales = nullptr;  // the same
  const void* next_keys = nullptr;    // of the chunk that comes next, to be fetched; may be null
  const void* next_values = nullptr;  // the same
  uint32_t count = 0;                 // 1..kAttentionChunk visible positions
  const float* queries = nullptr;     // [group, head_dim]
  uint32_t group = 0;
  uint32_t head_dim = 0;         // any multiple of 2; fast at multiples of 16
  float scale = 0;               // multiplies q.k
  float* max = nullptr;          // [group]; -infinity at first
  float* sum = nullptr;          // [group]; 0 at first
  float* accumulator = nullptr;  // [group, head_dim]; 0 at first
};
void AttendChunk(const AttentionChunk& chunk) noexcept;

// Merges the state of a later partition of positions into an earlier one (same definition as one
// chunk following another), for contexts that are split over threads.
void MergeAttention(uint32_t group, uint32_t head_dim, const float* later_max,
                    const float* later_sum, const float* later_accumulator, float* max, float* sum,
                    float* accumulator) noexcept;

// out[h][d] = accumulator[h][d] / sum[h].
void FinishAttention(uint32_t group, uint32_t head_dim, const float* sum, const float* accumulator,
                     float* out) noexcept;

}  // namespace fabric
