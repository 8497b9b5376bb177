#include "engine/state_cache.h"

#include <cassert>

namespace engine {
namespace {

size_t HistoryFloats(const DeltaNetShape& shape) {
  return size_t{shape.kernel - 1} * shape.channels();
}

// Rounded up to cache lines, so that no two layers share one.
size_t LayerFloats(const DeltaNetShape& shape) {
  const size_t floats =
      HistoryFloats(shape) + size_t{shape.value_heads} * shape.key_dim * shape.value_dim;
  return (floats + 15) / 16 * 16;
}

}  // namespace

StateCache::StateCache(const ModelConfig& config, uint32_t slots)
    : history_floats_(HistoryFloats(config.delta_net)),
      layer_floats_(LayerFloats(config.delta_net)),
      layers_(config.layers - config.attention_layers()),
      covered_(slots, kNothing),
      live_(slots, 0),
      floats_(size_t{slots} * 2 * layers_ * layer_floats_),
      beginning_(layer_floats_) {}

size_t StateCache::BytesPerSlot(const ModelConfig& config) {
  return 2 * (config.layers - config.attention_layers()) * LayerFloats(config.delta_net) *
         sizeof(float);
}

const float* StateCache::Half(uint32_t slot, uint32_t layer, uint32_t half) const {
  assert(slot < slots() && layer < layers_);
  return floats_.data() + ((size_t{slot} * 2 + half) * layers_ + layer) * layer_floats_;
}

const float* StateCache::HistoryBefore(uint32_t slot, uint32_t layer, bool first) const {
  return first ? beginning_.data() : Half(slot, layer, live_[slot]);
}

const float* StateCache::StateBefore(uint32_t slot, uint32_t layer, bool first) const {
  return HistoryBefore(slot, layer, first) + history_floats_;
}

float* StateCache::HistoryAfter(uint32_t slot, uint32_t layer) {
  return const_cast<float*>(Half(slot, layer, 1U - live_[slot]));
}

float* StateCache::StateAfter(uint32_t slot, uint32_t layer) {
  return HistoryAfter(slot, layer) + history_floats_;
}

void StateCache::Commit(uint32_t slot, uint32_t position) {
  live_[slot] ^= 1;
  covered_[slot] = position;
}

}  // namespace engine
