#pragma once

#include <cstddef>
#include <cstdint>

#include "fabric/vector_ops.h"

namespace fabric::kernels {

// What becomes of a tile of projections v; the same meanings as fabric::Epilogue.
enum class TileEpilogue : uint8_t { kStore, kAdd, kReluSquaredMul, kSiluMul, kGeluMul };

// y = epilogue(y, v + bias) for one token's rows. bias may be null.
using ApplyEpilogueFn = void (*)(TileEpilogue epilogue, const float* v, const float* bias, size_t n,
                                 float* y) noexcept;

// The functions of fabric/vector_ops.h, per instruction set.
struct FloatOps {
  void (*rms_norm)(const float*, const float*, float, size_t, float*) noexcept;
  bool (*quantize_token)(const float*, size_t, size_t, int8_t*, float*, int32_t*) noexcept;
  bool (*quantize_blocks)(const float*, size_t, size_t, int8_t*, float*, int32_t*) noexcept;
  float (*dot)(const float*, const float*, size_t) noexcept;
  void (*add_to)(const float*, size_t, float*) noexcept;
  void (*relu_squared_mul)(const float*, size_t, float*) noexcept;
  void (*silu_mul)(const float*, size_t, float*) noexcept;
  void (*gelu_mul)(const float*, size_t, float*) noexcept;
  size_t (*arg_max)(const float*, size_t, bool*) noexcept;
  float (*max)(const float*, size_t) noexcept;
  float (*exp_shifted)(const float*, float, size_t, float*) noexcept;
  void (*rope)(float*, uint32_t, uint32_t, uint32_t, bool, const float*, const float*) noexcept;
  void (*hadamard)(float*, size_t, size_t) noexcept;
  void (*delta_rule)(const DeltaRuleStep&) noexcept;
  void (*floats_to_halves)(const float*, size_t, uint16_t*) noexcept;
  void (*halves_to_floats)(const uint16_t*, size_t, float*) noexcept;
  uint16_t (*quantize_kv_q8)(const float*, size_t, int8_t*) noexcept;
  uint16_t (*quantize_kv_t2)(const float*, size_t, uint8_t*) noexcept;
  void (*attend_chunk)(const AttentionChunk&) noexcept;
  void (*merge_attention)(uint32_t, uint32_t, const float*, const float*, const float*, float*,
                          float*, float*) noexcept;
  void (*finish_attention)(uint32_t, uint32_t, const float*, const float*, float*) noexcept;
  ApplyEpilogueFn apply_epilogue;
};

FloatOps FloatOpsScalar() noexcept;
#if defined(__x86_64__)
FloatOps FloatOpsAvx2() noexcept;
FloatOps FloatOpsAvx512Vnni() noexcept;
#endif

}  // namespace fabric::kernels
