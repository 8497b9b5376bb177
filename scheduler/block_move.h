#pragma once

#include <cstdint>

namespace scheduler {

// Bytes of a whole KV block that move before a step runs. Moves of a step run in the order given:
// a block may be the source of one and the target of a later one.
struct BlockMove {
  enum class Kind : uint8_t {
    kCopy,     // block `from` to block `to` (copy-on-write)
    kSwapOut,  // block `from` to host slot `to`
    kSwapIn,   // host slot `from` to block `to`
  };
  Kind kind = Kind::kCopy;
  uint32_t from = 0;
  uint32_t to = 0;
  bool operator==(const BlockMove&) const = default;
};

}  // namespace scheduler
