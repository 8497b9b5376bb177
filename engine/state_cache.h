#pragma once

#include <cstdint>
#include <vector>

#include "engine/model_config.h"
#include "fabric/aligned_buffer.h"

namespace engine {

// The recurrent state of sequences through the Gated DeltaNet layers: what K and V are to
// attention, but of one size however long the sequence is.
//
//   slot    belongs to one running sequence; the scheduler says which (BatchRow::state_slot)
//   layer   history  [kernel - 1, channels]                  inputs of the convolution
//           state    [value_heads, key_dim, value_dim]
//
// A step reads one half of a slot and writes the other; Commit() swaps them. So a step that failed
// may be run again, and one that never succeeds has changed nothing.
//
// Threads: one writer per slot and layer at a time.
class StateCache {
 public:
  // Errors: std::bad_alloc.
  StateCache(const ModelConfig& config, uint32_t slots);

  uint32_t slots() const { return static_cast<uint32_t>(covered_.size()); }
  size_t bytes() const { return floats_.size() * sizeof(float); }
  static size_t BytesPerSlot(const ModelConfig& config);

  // Whether the slot holds the state before `position`. Before position 0 every slot does.
  bool Holds(uint32_t slot, uint32_t position) const {
    return slot < slots() && (position == 0 || covered_[slot] == position);
  }
  // layer: among the recurrent ones. first: the row begins a sequence, whose state is zero.
  const float* HistoryBefore(uint32_t slot, uint32_t layer, bool first) const;
  const float* StateBefore(uint32_t slot, uint32_t layer, bool first) const;
  float* HistoryAfter(uint32_t slot, uint32_t layer);
  float* StateAfter(uint32_t slot, uint32_t layer);

  // What was written is now the state before `position`.
  void Commit(uint32_t slot, uint32_t position);
  // The slot holds nothing until a sequence begins in it.
  void Drop(uint32_t slot) { covered_[slot] = kNothing; }

 private:
  static constexpr uint32_t kNothing = UINT32_MAX;

  const float* Half(uint32_t slot, uint32_t layer, uint32_t half) const;

  size_t history_floats_;
  size_t layer_floats_;
  uint32_t layers_;
  std::vector<uint32_t> covered_;           // positions that the state covers
  std::vector<uint8_t> live_;               // which half
  fabric::AlignedBuffer<float> floats_;     // [slots, 2, layers, layer_floats_]
  fabric::AlignedBuffer<float> beginning_;  // [layer_floats_] zeros
};

}  // namespace engine
