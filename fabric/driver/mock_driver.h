#pragma once

#include <memory>

#include "fabric/driver/abi.h"
#include "fabric/fabric_options.h"
#include "fabric/worker_team.h"

namespace fabric::driver {

inline constexpr uint32_t kMaxTokensPerGemv = 1024;
inline constexpr uint32_t kMaxGemvsPerSubmit = 16;
inline constexpr uint32_t kQueueDepth = 8;

// A driver and its device in user space, behind the requests of fabric/driver/abi.h and nothing
// else. Nothing that a request says is believed: structures are copied in before they are read,
// addresses are copied from and to as a kernel does, handles carry a generation, and every length
// and count is checked in 64 bits against the buffers. Products are computed by a thread of its own
// with this CPU's kernels, so that a task is under way while its caller goes on.
//
//   EFAULT      an address that is not the caller's        EINVAL   sizes or counts that do not fit
//   ESTALE      a handle that was freed or never given     EBUSY    a full queue, a pinned buffer
//   EILSEQ      a frame with a byte that is no PT-5        ENOMEM   more than memory_bytes
//   ENOTSUP     a packing, kernel or version not known     ENOTTY   a request not known
//   ETIMEDOUT   kWait: not done in time, given up          ENODEV   disconnected
//
// options: the geometry and account of the modelled fabric, and the faults that are made up.
class MockDriver final : public CharacterDevice {
 public:
  // memory_bytes: of all buffers together. team outlives the driver.
  MockDriver(const FabricOptions& options, uint64_t memory_bytes, WorkerTeam& team);
  ~MockDriver() override;

  int Ioctl(Request request, void* argument) noexcept override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fabric::driver
