#include "scheduler/siphash.h"

#include <bit>

namespace scheduler {
namespace {

struct State {
  uint64_t v0;
  uint64_t v1;
  uint64_t v2;
  uint64_t v3;

  void Round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }

  void Absorb(uint64_t word) {
    v3 ^= word;
    Round();
    Round();
    v0 ^= word;
  }
};

uint64_t LittleEndian(std::span<const std::byte> bytes) {
  uint64_t word = 0;
  for (size_t i = 0; i < bytes.size(); ++i)
    word |= uint64_t{std::to_integer<uint8_t>(bytes[i])} << (8 * i);
  return word;
}

}  // namespace

uint64_t SipHash(const SipKey& key, std::span<const uint64_t> head,
                 std::span<const std::byte> bytes) {
  State state{key[0] ^ 0x736f6d6570736575U, key[1] ^ 0x646f72616e646f6dU,
              key[0] ^ 0x6c7967656e657261U, key[1] ^ 0x7465646279746573U};
  const uint64_t length = head.size_bytes() + bytes.size();
  for (const uint64_t word : head) state.Absorb(word);
  for (; bytes.size() >= 8; bytes = bytes.subspan(8)) state.Absorb(LittleEndian(bytes.first(8)));
  state.Absorb(LittleEndian(bytes) | length << 56);
  state.v2 ^= 0xff;
  for (int i = 0; i < 4; ++i) state.Round();
  return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

}  // namespace scheduler
