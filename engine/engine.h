#pragma once

#include <memory>

#include "engine/backend.h"
#include "engine/batch.h"
#include "engine/engine_options.h"
#include "engine/model.h"
#include "fabric/device.h"
#include "fabric/worker_team.h"

namespace engine {

// The most that an automatic KV pool takes beside weights of such a size, if not for one context.
uint64_t MostPoolBytes(const EngineOptions& options, uint64_t weight_bytes);

// What an engine of such a model keeps of a sequence. Errors: as the Engine constructor.
KvGeometry PlannedKvGeometry(const ModelConfig& config, const EngineOptions& options);

// Bytes of the KV pool and of recurrent states that an engine of such a model would have if it were
// made now. Errors: as the Engine constructor.
uint64_t PlannedKvBytes(const ModelConfig& config, const EngineOptions& options,
                        uint64_t weight_bytes);

// A model that can take one step.
//
// Bits:    a row's output depends on its sequence's tokens and positions only: not on the other
// rows of
//          the batch, on how a prompt was cut into rows, on threads, or on the ISA.
// Threads: one thread at a time.
class Engine {
 public:
  // Errors: ModelError when the KV pool cannot hold one full context, naming both sizes.
  Engine(std::shared_ptr<const Model> model, const EngineOptions& options, fabric::Device& device,
         fabric::WorkerTeam& team);

  // REQUIRES: as Backend::Step(). Output is valid until the next Step().
  StepOutput Step(const Batch& batch) { return backend_->Step(batch); }
  void CopyBlock(BlockId from, BlockId to) { backend_->CopyBlock(from, to); }
  void SaveBlock(BlockId block, std::byte* out) { backend_->SaveBlock(block, out); }
  void LoadBlock(const std::byte* bytes, BlockId block) { backend_->LoadBlock(bytes, block); }

  const Model& model() const { return *model_; }
  std::shared_ptr<const Model> shared_model() const { return model_; }
  const KvGeometry& kv_geometry() const { return backend_->kv_geometry(); }
  uint32_t kv_blocks() const { return backend_->kv_blocks(); }
  uint32_t context_length() const { return context_length_; }
  uint32_t max_batch_tokens() const { return max_batch_tokens_; }
  const fabric::Device& device() const { return backend_->device(); }
  HeadMode head_mode() const { return backend_->head_mode(); }
  std::span<const LayerActivity> layer_activities() const { return backend_->layer_activities(); }
  size_t workspace_bytes() const { return backend_->workspace_bytes(); }

 private:
  std::shared_ptr<const Model> model_;
  std::unique_ptr<Backend> backend_;
  uint32_t context_length_;
  uint32_t max_batch_tokens_;
};

}  // namespace engine
