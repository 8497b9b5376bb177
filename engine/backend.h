#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/batch.h"
#include "engine/engine_options.h"
#include "engine/kv_geometry.h"
#include "fabric/device.h"

namespace engine {

// Owns what one step needs beside the weights: activation buffers, KV storage and attention. The
// CPU is the first backend; a GPU is another with its own device.
//
// Threads: the engine thread only.
class Backend {
 public:
  virtual ~Backend() = default;

  // Output stays valid until the next Step(). Never throws for a bad row: see RowStatus.
  // REQUIRES: the sum of row tokens <= max_batch_tokens of the options.
  virtual StepOutput Step(const Batch& batch) = 0;

  virtual const KvGeometry& kv_geometry() const = 0;
  virtual uint32_t kv_blocks() const = 0;
  // Copies the K and V of a whole block (copy-on-write).
  virtual void CopyBlock(BlockId from, BlockId to) = 0;
  // K and V of a whole block to and from host memory, kv_geometry().BytesPerBlock() bytes
  // (swapping, saving).
  virtual void SaveBlock(BlockId block, std::byte* out) = 0;
  virtual void LoadBlock(const std::byte* bytes, BlockId block) = 0;

  virtual const fabric::Device& device() const = 0;
  // How rows that need only the best few logits are computed (engine/head.h).
  virtual HeadMode head_mode() const = 0;
  // One per layer, cumulative; zeros when the device keeps no account.
  virtual std::span<const LayerActivity> layer_activities() const = 0;
  virtual size_t workspace_bytes() const = 0;
};

}  // namespace engine
