#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "fabric/device.h"

namespace scheduler {

// What the loop needs of an engine, so that tests can give it one that fails on purpose.
//
// Threads: the engine thread, but Counters(), which any thread may call.
class StepRunner {
 public:
  virtual ~StepRunner() = default;

  // As engine::Engine. Anything thrown fails the rows of the batch, not the loop.
  virtual engine::StepOutput Step(const engine::Batch& batch) = 0;
  virtual void CopyBlock(engine::BlockId from, engine::BlockId to) = 0;
  // Bytes of a block, kv_geometry().BytesPerBlock() of them, for the disk.
  virtual void SaveBlock(engine::BlockId block, std::byte* out) = 0;
  virtual void LoadBlock(const std::byte* bytes, engine::BlockId block) = 0;
  // Bytes of a block to host memory and back. REQUIRES: slot < the scheduler's swap slots.
  virtual void SwapOut(engine::BlockId from, uint32_t slot) = 0;
  virtual void SwapIn(uint32_t slot, engine::BlockId to) = 0;

  // Whether a row's best few logits cost less than all of them.
  virtual bool gives_candidates() const { return false; }

  virtual const engine::KvGeometry& kv_geometry() const = 0;
  virtual uint32_t kv_blocks() const = 0;
  virtual uint32_t context_length() const = 0;
  virtual uint32_t vocabulary() const = 0;
  virtual fabric::DeviceCounters Counters() const noexcept = 0;
  // As engine::Backend::layer_activities(); the engine thread only.
  virtual std::span<const engine::LayerActivity> LayerActivities() const { return {}; }
};

}  // namespace scheduler
