#pragma once

#include <cstdint>

#include "engine/weights.h"
#include "fabric/activations.h"
#include "fabric/aligned_buffer.h"

namespace engine {

// A set of activation kinds.
class ActivationKinds {
 public:
  void Add(fabric::ActivationKind kind) { bits_ |= Bit(kind); }
  void Add(const ActivationKinds& other) { bits_ |= other.bits_; }
  bool Has(fabric::ActivationKind kind) const { return (bits_ & Bit(kind)) != 0; }

 private:
  static unsigned Bit(fabric::ActivationKind kind) { return 1U << static_cast<unsigned>(kind); }
  unsigned bits_ = 0;
};

// The input of projections in the precisions that they take, quantised once and shared by all that
// read the same vectors (Q, K and V; gate and up).
//
// Use:     Begin(), then Encode() every token, then View() for the ops.
// Threads: Encode() of different tokens may run concurrently.
class ProjectionInput {
 public:
  // kinds: all that will ever be asked for; only their buffers are allocated.
  ProjectionInput(uint32_t max_tokens, uint32_t max_cols, const ActivationKinds& kinds);

  // values: [tokens, cols], borrowed until the ops that use the views are done.
  void Begin(const float* values, uint32_t tokens, uint32_t cols, const ActivationKinds& kinds);
  // False when a value is not finite and some kind quantises; the codes are then zeros.
  bool Encode(uint32_t token) noexcept;
  const fabric::ActivationView* View(fabric::ActivationKind kind) const;

  size_t bytes() const;

 private:
  struct Codes {
    fabric::AlignedBuffer<int8_t> codes;
    fabric::AlignedBuffer<float> scales;
    fabric::AlignedBuffer<int32_t> sums;
  };
  static void Point(const Codes& codes, fabric::ActivationView* view);

  ActivationKinds kinds_;  // of the current vectors
  Codes token_;
  Codes block_;
  fabric::ActivationView float_view_;
  fabric::ActivationView token_view_;
  fabric::ActivationView block_view_;
};

}  // namespace engine
