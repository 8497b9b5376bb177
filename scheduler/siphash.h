#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace scheduler {

using SipKey = std::array<uint64_t, 2>;

// SipHash-2-4 (Aumasson and Bernstein 2012): a 64-bit hash that nobody can aim at without the key.
// The message is the words of `head`, little-endian, followed by `bytes`.
uint64_t SipHash(const SipKey& key, std::span<const uint64_t> head,
                 std::span<const std::byte> bytes);

}  // namespace scheduler
