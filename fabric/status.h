#pragma once

#include <cstdint>
#include <string_view>

namespace fabric {

// What a device answers. Values are those of the C ABI (docs/fabric.md).
enum class Status : int32_t {
  kOk = 0,
  kPending = 1,
  kErrAddr = 2,
  kErrPack = 3,  // an encoding fault: a byte that no packer writes
  kErrBusy = 4,
  kErrUnsupported = 5,
  kErrNoMem = 6,
  kErrTimeout = 7,
  kErrStale = 8,  // a handle of a freed or evicted generation
  kErrGone = 9,   // the device does not answer any more
};

std::string_view StatusName(Status status);

}  // namespace fabric
