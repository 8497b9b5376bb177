#include "fabric/pt5.h"

#include <algorithm>
#include <array>
#include <cassert>

namespace fabric {
namespace {

using Trits = std::array<int8_t, kTritsPerByte>;

constexpr unsigned DigitOf(int trit, Pt5Alphabet alphabet) {
  if (alphabet == Pt5Alphabet::kCanonical) return static_cast<unsigned>(trit + 1);
  return trit < 0 ? 2 : static_cast<unsigned>(trit);
}

constexpr uint8_t ByteOf(const Trits& trits, Pt5Alphabet alphabet) {
  unsigned byte = 0;
  for (size_t i = kTritsPerByte; i > 0; --i) byte = byte * 3 + DigitOf(trits[i - 1], alphabet);
  return static_cast<uint8_t>(byte);
}

// Trits of every canonical byte.
constexpr std::array<Trits, kPt5Codes> MakeCanonicalTrits() {
  std::array<Trits, kPt5Codes> table{};
  for (unsigned byte = 0; byte < kPt5Codes; ++byte) {
    unsigned rest = byte;
    for (int8_t& trit : table[byte]) {
      trit = static_cast<int8_t>(static_cast<int>(rest % 3) - 1);
      rest /= 3;
    }
  }
  return table;
}
constexpr std::array<Trits, kPt5Codes> kCanonicalTrits = MakeCanonicalTrits();

// Canonical byte -> hardware byte, and back.
constexpr std::array<uint8_t, kPt5Codes> MakeToHardware() {
  std::array<uint8_t, kPt5Codes> table{};
  for (unsigned byte = 0; byte < kPt5Codes; ++byte) {
    table[byte] = ByteOf(kCanonicalTrits[byte], Pt5Alphabet::kHardware);
  }
  return table;
}
constexpr std::array<uint8_t, kPt5Codes> kToHardware = MakeToHardware();

constexpr std::array<uint8_t, kPt5Codes> MakeFromHardware() {
  std::array<uint8_t, kPt5Codes> table{};
  for (unsigned byte = 0; byte < kPt5Codes; ++byte) {
    table[kToHardware[byte]] = static_cast<uint8_t>(byte);
  }
  return table;
}
constexpr std::array<uint8_t, kPt5Codes> kFromHardware = MakeFromHardware();
static_assert(kToHardware[121] == 0 && kFromHardware[0] == 121);

}  // namespace

void PackPt5(std::span<const int8_t> trits, Pt5Alphabet alphabet, std::span<uint8_t> bytes) {
  assert(bytes.size() == Pt5Bytes(trits.size()));
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto five =
        trits.subspan(i * kTritsPerByte, std::min(kTritsPerByte, trits.size() - i * kTritsPerByte));
    Trits padded{};
    std::copy(five.begin(), five.end(), padded.begin());
    bytes[i] = ByteOf(padded, alphabet);
  }
}

Status UnpackPt5(std::span<const uint8_t> bytes, Pt5Alphabet alphabet, std::span<int8_t> trits) {
  if (bytes.size() != Pt5Bytes(trits.size())) return Status::kErrAddr;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] >= kPt5Codes) return Status::kErrPack;
    const uint8_t byte = alphabet == Pt5Alphabet::kHardware ? kFromHardware[bytes[i]] : bytes[i];
    const size_t first = i * kTritsPerByte;
    std::copy_n(kCanonicalTrits[byte].begin(), std::min(kTritsPerByte, trits.size() - first),
                trits.begin() + static_cast<ptrdiff_t>(first));
  }
  return Status::kOk;
}

Status ConvertPt5(Pt5Alphabet from, Pt5Alphabet to, std::span<uint8_t> bytes) {
  for (uint8_t& byte : bytes) {
    if (byte >= kPt5Codes) return Status::kErrPack;
    if (from == to) continue;
    byte = to == Pt5Alphabet::kHardware ? kToHardware[byte] : kFromHardware[byte];
  }
  return Status::kOk;
}

}  // namespace fabric
