#pragma once

#include <cstdint>
#include <cstring>

#include "gguf/codec.h"

namespace gguf {

// Unaligned little-endian access: blocks lie at any byte.
template <typename T>
T Load(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

template <typename T>
void Store(T value, uint8_t* bytes) {
  std::memcpy(bytes, &value, sizeof(T));
}

inline float LoadHalf(const uint8_t* bytes) { return HalfToFloat(Load<uint16_t>(bytes)); }
inline void StoreHalf(float value, uint8_t* bytes) { Store(FloatToHalf(value), bytes); }

// The value as it comes back from float16: quantising with it instead of the exact one rounds every
// weight to the nearest level that the reader will see.
inline float RoundToHalf(float value) { return HalfToFloat(FloatToHalf(value)); }

}  // namespace gguf
