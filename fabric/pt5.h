#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "fabric/status.h"

namespace fabric {

// PT-5, the canonical encoding of trits: five per byte, byte = sum of digit_i * 3^i, i = 0..4, trit
// 0 least significant. Lengths are in trits; the tail digits of the last byte are written as zero
// trits and ignored when read. Bytes 243..255 are an encoding fault, never zeros.
inline constexpr size_t kTritsPerByte = 5;
inline constexpr unsigned kPt5Codes = 243;

enum class Pt5Alphabet : uint8_t {
  kCanonical,  // digit = trit + 1; five zeros are 121
  kHardware,   // -1 is digit 2, 0 is 0, +1 is 1; five zeros are 0
};

constexpr size_t Pt5Bytes(size_t trits) { return (trits + kTritsPerByte - 1) / kTritsPerByte; }

// REQUIRES: trits in {-1, 0, 1}; bytes.size() == Pt5Bytes(trits.size()).
void PackPt5(std::span<const int8_t> trits, Pt5Alphabet alphabet, std::span<uint8_t> bytes);

// Reads trits.size() trits. kErrAddr when bytes.size() != Pt5Bytes(trits.size()); kErrPack on a
// byte that no packer writes; trits are unspecified then.
Status UnpackPt5(std::span<const uint8_t> bytes, Pt5Alphabet alphabet, std::span<int8_t> trits);

// Rewrites bytes from one alphabet to the other, in place. kErrPack as above, with the bytes before
// the fault rewritten.
Status ConvertPt5(Pt5Alphabet from, Pt5Alphabet to, std::span<uint8_t> bytes);

}  // namespace fabric
