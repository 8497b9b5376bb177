#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "engine/token.h"

namespace engine::text {

// A map from 64-bit keys to 64-bit values that is filled once and then only read: open addressing
// in one array, at most two thirds full.
class FlatMap {
 public:
  // expected: entries that the first allocation holds; more are welcome.
  explicit FlatMap(size_t expected = 0);

  // False when the key is there already; its value then stays. REQUIRES: key != ~0.
  bool Insert(uint64_t key, uint64_t value);
  const uint64_t* Find(uint64_t key) const {
    for (size_t slot = Mix(key) & mask_;; slot = (slot + 1) & mask_) {
      if (slots_[slot].key == key) return &slots_[slot].value;
      if (slots_[slot].key == kFree) return nullptr;
    }
  }
  size_t size() const { return size_; }

 private:
  static constexpr uint64_t kFree = ~uint64_t{0};
  struct Slot {
    uint64_t key = kFree;
    uint64_t value = 0;
  };
  // MurmurHash3's finaliser: every input bit reaches every output bit.
  static size_t Mix(uint64_t x) {
    x = (x ^ (x >> 33)) * 0xff51afd7ed558ccdULL;
    x = (x ^ (x >> 33)) * 0xc4ceb9fe1a85ec53ULL;
    return static_cast<size_t>(x ^ (x >> 33));
  }
  void Grow();

  std::vector<Slot> slots_;
  size_t mask_;
  size_t size_ = 0;
};

// Finds the token of a string. Of equal strings the first inserted wins; the strings are viewed and
// must outlive the index.
class StringIndex {
 public:
  explicit StringIndex(size_t capacity);

  // REQUIRES: fewer than `capacity` insertions so far.
  void Insert(std::string_view key, TokenId token);
  std::optional<TokenId> Find(std::string_view key) const;

 private:
  struct Slot {
    std::string_view key;
    uint32_t hash = 0;
    TokenId token = -1;  // -1: free
  };
  static uint64_t Hash(std::string_view key) { return std::hash<std::string_view>{}(key); }

  std::vector<Slot> slots_;
  size_t mask_;
};

}  // namespace engine::text
