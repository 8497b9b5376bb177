#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "fabric/device.h"
#include "fabric/driver/abi.h"

namespace fabric::driver {

// The host's side of the driver interface: ternary matrices become frames in device memory, and
// products go through the requests of fabric/driver/abi.h alone. The driver's answers are checked
// as far as they can be (handles, tickets, states); whether results are right is for
// fabric::SupervisedDevice to find out.
//
// Takes:   ternary matrices of fewer than 2^32 trits, ops with the epilogue kStore and no bias;
//          others are kErrUnsupported. y is written during Wait().
// Threads: as fabric::Device.
class IoctlDevice final : public Device {
 public:
  // Errors: std::runtime_error when the driver speaks another version.
  IoctlDevice(std::unique_ptr<CharacterDevice> driver, uint32_t watchdog_ms);
  ~IoctlDevice() override;

  std::string_view name() const override { return "ioctl"; }
  Status Upload(Matrix matrix, MatrixId* id) override;
  Status Free(MatrixId id) noexcept override;
  Status Submit(std::span<const ProjectionOp> ops, Ticket* ticket) noexcept override;
  Status Wait(Ticket ticket) noexcept override;
  // The last ones that the driver told, once it is gone.
  DeviceCounters Counters() const noexcept override;
  // Bytes of device memory, as asked of the driver.
  size_t resident_bytes() const noexcept override;
  Residency residency(MatrixId id) const noexcept override {
    return {.place = Find(id) != nullptr ? MatrixPlace::kDevice : MatrixPlace::kHost};
  }

 private:
  // A frame in device memory.
  struct Frame {
    uint32_t generation = 1;
    bool used = false;
    FrameDescriptor descriptor;
    uint64_t trits = 0;
    uint64_t scales = 0;
    ScaleKind scale_kind = ScaleKind::kTensor;
    uint32_t group = 0;
  };
  // What one Submit() has under way.
  struct Flight {
    Ticket ticket = 0;
    std::vector<uint64_t> driver_tickets;
  };

  Status Store(const void* bytes, size_t size, uint64_t* handle) noexcept;
  void Release(uint64_t handle) noexcept;
  const Frame* Find(MatrixId id) const noexcept;
  Status Check(const ProjectionOp& op) const noexcept;
  GemvRequest GemvOf(const ProjectionOp& op, uint32_t token_begin, uint32_t tokens) const noexcept;
  Status SendAll(std::span<const ProjectionOp> ops, Flight* flight);
  Status Send(std::span<const GemvRequest> gemvs, Flight* flight) noexcept;
  Status WaitForFirst(Flight* flight) noexcept;
  void GiveUp(const Flight& flight) noexcept;
  void ReadCounters() const noexcept;

  std::unique_ptr<CharacterDevice> driver_;
  uint32_t watchdog_ms_;
  InfoRequest info_;
  std::vector<Frame> frames_;
  std::vector<Flight> flights_;
  Ticket last_ticket_ = 0;
  mutable std::mutex counters_mutex_;
  mutable DeviceCounters counters_;
};

}  // namespace fabric::driver
