#pragma once

#include <bit>
#include <cstdint>
#include <span>

namespace engine {

// True when no value is a NaN or an infinity. Looks at exponent bits, without branches, so that the
// compiler can use vectors.
inline bool AllFinite(std::span<const float> values) {
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t found = 0;
  for (const float value : values) {
    found |= (std::bit_cast<uint32_t>(value) & kExponent) == kExponent ? 1U : 0U;
  }
  return found == 0;
}

}  // namespace engine
