#include "engine/text/tokenizer_index.h"

#include <bit>
#include <cassert>
#include <utility>

namespace engine::text {

FlatMap::FlatMap(size_t expected)
    : slots_(std::bit_ceil(expected + expected / 2 + 16)), mask_(slots_.size() - 1) {}

bool FlatMap::Insert(uint64_t key, uint64_t value) {
  assert(key != kFree);
  if (Find(key) != nullptr) return false;
  if ((size_ + 1) * 3 > slots_.size() * 2) Grow();
  size_t slot = Mix(key) & mask_;
  while (slots_[slot].key != kFree) slot = (slot + 1) & mask_;
  slots_[slot] = {key, value};
  ++size_;
  return true;
}

void FlatMap::Grow() {
  std::vector<Slot> old(slots_.size() * 2);
  std::swap(old, slots_);
  mask_ = slots_.size() - 1;
  for (const Slot& entry : old) {
    if (entry.key == kFree) continue;
    size_t slot = Mix(entry.key) & mask_;
    while (slots_[slot].key != kFree) slot = (slot + 1) & mask_;
    slots_[slot] = entry;
  }
}

StringIndex::StringIndex(size_t capacity)
    : slots_(std::bit_ceil(capacity * 2 + 16)), mask_(slots_.size() - 1) {}

void StringIndex::Insert(std::string_view key, TokenId token) {
  const uint64_t hash = Hash(key);
  size_t slot = hash & mask_;
  for (; slots_[slot].token >= 0; slot = (slot + 1) & mask_) {
    if (slots_[slot].key == key) return;
  }
  slots_[slot] = {key, static_cast<uint32_t>(hash >> 32), token};
}

std::optional<TokenId> StringIndex::Find(std::string_view key) const {
  const uint64_t hash = Hash(key);
  for (size_t slot = hash & mask_;; slot = (slot + 1) & mask_) {
    const Slot& entry = slots_[slot];
    if (entry.token < 0) return std::nullopt;
    if (entry.hash == static_cast<uint32_t>(hash >> 32) && entry.key == key) return entry.token;
  }
}

}  // namespace engine::text
