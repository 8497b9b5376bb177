#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config/config.h"
#include "engine/engine.h"
#include "engine/model.h"
#include "fabric/cpu/isa.h"
#include "fabric/device.h"
#include "fabric/machine_limits.h"
#include "fabric/worker_team.h"

namespace cli {

// A model in this process, for commands that run it without the server.
//
// Use:     construct (loads; a terminal sees the progress), PrepareKv() once, then LocalSequence.
// Threads: one.
// Errors:  gguf::FormatError, engine::ModelError, std::invalid_argument.
class LocalModel {
 public:
  // wrap: may put something in front of the device, or nothing.
  using WrapDevice =
      std::function<std::unique_ptr<fabric::Device>(std::unique_ptr<fabric::Device>)>;
  LocalModel(const std::string& path, const config::Config& config, const WrapDevice& wrap = {});

  // Makes the engine with KV storage for `sequences` of at most `context` tokens each.
  void PrepareKv(uint32_t sequences, uint32_t context);

  const engine::Model& model() const { return *model_; }
  const engine::text::Tokenizer& tokenizer() const { return model_->tokenizer(); }
  engine::Engine& engine() { return *engine_; }  // REQUIRES: PrepareKv() was called
  const fabric::Device& device() const { return *device_; }
  int threads() const { return team_.size(); }
  uint32_t max_batch_tokens() const { return options_.max_batch_tokens; }
  // Every adapter of --lora at its scale.
  std::span<const engine::AdapterScale> adapters() const { return adapters_; }

  // The instruction set of the kernels in use, and what the machine can do with it at best.
  fabric::Isa isa() const;
  fabric::MachineLimits MeasureLimits();

 private:
  engine::EngineOptions options_;
  fabric::WorkerTeam team_;
  std::unique_ptr<fabric::Device> device_;
  std::shared_ptr<const engine::Model> model_;
  std::vector<engine::AdapterScale> adapters_;
  std::unique_ptr<engine::Engine> engine_;
};

// One sequence on a LocalModel: its tokens so far and KV blocks of its own.
//
// `index` counts the sequences of PrepareKv(); each has its own share of the blocks.
class LocalSequence {
 public:
  LocalSequence(LocalModel& model, uint32_t index);

  // Which of the appended tokens give logits, and where they go: `position` is the token's place
  // in the sequence; the logits predict position + 1 and are scratch.
  using OnLogits = std::function<void(uint32_t position, std::span<float> logits)>;

  // Computes `tokens` after those before, in steps of at most max_batch_tokens. Logits are given
  // for the positions from `first_output` on.
  // Errors: std::runtime_error when an activation or logit was not finite or the device failed.
  // REQUIRES: size() + tokens.size() <= the context of PrepareKv().
  void Append(std::span<const engine::TokenId> tokens, uint32_t first_output,
              const OnLogits& on_logits);
  // Append() with the logits of the last token only, copied. Valid until the next call.
  std::span<float> AppendForLast(std::span<const engine::TokenId> tokens);

  // Forgets what follows the first `length` tokens; a recurrent model can only keep all or nothing.
  // Returns how many tokens are left.
  uint32_t Truncate(uint32_t length);

  uint32_t size() const { return size_; }
  std::span<const engine::BlockId> blocks() const { return blocks_; }

 private:
  LocalModel& model_;
  std::vector<engine::BlockId> blocks_;
  std::vector<float> last_;
  uint32_t index_;
  uint32_t size_ = 0;
};

// A sentence for a row that failed.
std::string RowStatusText(engine::RowStatus status, uint32_t position);

}  // namespace cli
