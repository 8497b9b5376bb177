#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/backend.h"
#include "engine/head.h"
#include "engine/kv_cache.h"
#include "engine/model.h"
#include "engine/state_cache.h"
#include "engine/step_rows.h"
#include "engine/transformer.h"
#include "fabric/worker_team.h"

namespace engine {

// Attention, norms and KV storage on the host; projections on a fabric device.
//
// Faults:  A device answers for a whole submission. When it fails, the rows are run again, which is
//          safe because a step writes only its rows' own cache positions; when that fails too, the
//          rows are halved until the guilty ones stand alone, and these become kDeviceFault.
// Sink:    not called for a row that has failed, nor for an output whose logits are not finite.
class CpuBackend : public Backend {
 public:
  // device and team outlive the backend. Errors: std::bad_alloc.
  CpuBackend(std::shared_ptr<const Model> model, const KvGeometry& geometry, uint32_t kv_blocks,
             const EngineOptions& options, uint32_t max_context, fabric::Device& device,
             fabric::WorkerTeam& team);

  StepOutput Step(const Batch& batch) override;
  const KvGeometry& kv_geometry() const override { return cache_.geometry(); }
  uint32_t kv_blocks() const override { return cache_.blocks(); }
  void CopyBlock(BlockId from, BlockId to) override { cache_.CopyBlock(from, to); }
  void SaveBlock(BlockId block, std::byte* out) override { cache_.SaveBlock(block, out); }
  void LoadBlock(const std::byte* bytes, BlockId block) override { cache_.LoadBlock(bytes, block); }
  const fabric::Device& device() const override { return device_; }
  HeadMode head_mode() const override { return head_.mode(); }
  std::span<const LayerActivity> layer_activities() const override {
    return transformer_.layer_activities();
  }
  size_t workspace_bytes() const override;

 private:
  // One position whose logits are wanted.
  struct HeadPosition {
    uint32_t row = 0;
    uint32_t output = 0;
    const float* hidden = nullptr;  // residual stream
  };

  void PrepareOutputs(const Batch& batch);
  void RunRows(const Batch& batch, size_t begin, size_t end);
  void MarkLostStates(const Batch& batch);
  void CommitStates(const Batch& batch);
  void MarkNonFinite();
  void EmitHidden(const Batch& batch);
  void EmitLogits(const Batch& batch);
  void EmitChunk(const Batch& batch, std::span<const HeadPosition> positions);
  bool CanScreen(const Batch& batch, std::span<const HeadPosition> positions);
  void EmitPositions(const Batch& batch, std::span<const HeadPosition> positions);
  void EmitScreened(const Batch& batch, std::span<const HeadPosition> positions);
  std::span<Candidate> CandidatesOf(const Batch& batch, const HeadPosition& position);
  void Deliver(const Batch& batch, const HeadPosition& position, std::span<float> logits);
  bool Failed(uint32_t row) const { return outputs_[row].status != RowStatus::kOk; }

  std::shared_ptr<const Model> model_;
  fabric::Device& device_;
  KvCache cache_;
  StateCache states_;
  Transformer transformer_;
  Head head_;
  uint32_t max_batch_tokens_;

  // Of the current step; kept so that a step allocates nothing once they have grown.
  StepRows rows_;
  StepStats stats_;
  std::vector<RowOutput> outputs_;
  std::vector<float> hidden_outputs_;
  std::vector<size_t> hidden_begin_;  // of each row in hidden_outputs_
  std::vector<Candidate> candidates_;
  std::vector<size_t> candidates_begin_;
  std::vector<HeadPosition> head_positions_;
  std::vector<const float*> chunk_hidden_;
  std::vector<HeadPosition> unscreened_;
};

}  // namespace engine
