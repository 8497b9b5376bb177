#pragma once

#include <cstdint>

namespace fabric::sparse {

// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection that spreads every bit.
constexpr uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace fabric::sparse
