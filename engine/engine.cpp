#include "engine/engine.h"

#include <algorithm>
#include <string>

#include "engine/cpu_backend.h"
#include "engine/errors.h"
#include "engine/memory.h"
#include "engine/state_cache.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

// The pool when its size is left to us: room for many full contexts of a small model, but never
// more than half of the memory that is left after loading.
constexpr uint64_t kAutoContexts = 16;
constexpr uint64_t kAutoBytes = uint64_t{256} << 20;

uint32_t ResolveContext(const ModelConfig& config, const EngineOptions& options) {
  if (options.context_length > config.context_length) {
    throw ModelError("A context of " + std::to_string(options.context_length) +
                     " tokens was asked for, but the model was made for " +
                     std::to_string(config.context_length) + ".");
  }
  return options.context_length == 0 ? config.context_length : options.context_length;
}

// As many as sequences may run, but no more than a quarter of the memory that is left after loading
// holds, and at least one.
uint32_t ResolveStateSlots(const ModelConfig& config, const EngineOptions& options) {
  if (!config.recurrent()) return 0;
  const uint64_t fitting = AvailableMemoryBytes() / 4 / StateCache::BytesPerSlot(config);
  return static_cast<uint32_t>(
      std::max<uint64_t>(1, std::min<uint64_t>(fitting, options.max_sequences)));
}

AttentionWindow ResolveWindow(const EngineOptions& options) {
  if (options.sliding_window == 0) return {};
  if (options.sliding_window < fabric::kAttentionChunk) {
    throw ModelError("--sliding-window (engine.sliding_window) must be at least " +
                     std::to_string(fabric::kAttentionChunk) + " tokens, but it is " +
                     std::to_string(options.sliding_window) + ".");
  }
  return {.tokens = options.sliding_window, .sinks = options.attention_sinks};
}

uint32_t ResolveBlocks(const KvGeometry& geometry, uint32_t context_length,
                       const EngineOptions& options, uint64_t weight_bytes) {
  const uint64_t block = geometry.BytesPerBlock();
  // With a sliding window, what one context has in sight: longer rows only make prompts faster.
  uint64_t context_bytes = block * geometry.MostBlocks(context_length, fabric::kAttentionChunk);
  uint64_t pool = options.kv_bytes;
  if (pool == 0) {
    context_bytes =
        block * geometry.MostBlocks(context_length, std::max(1U, options.max_batch_tokens));
    pool = std::max(context_bytes, std::min(std::max(kAutoBytes, kAutoContexts * context_bytes),
                                            MostPoolBytes(options, weight_bytes)));
  }
  if (pool < context_bytes) {
    throw ModelError("The KV pool of " + std::to_string(pool) +
                     " bytes cannot hold one full context of " + std::to_string(context_length) +
                     " tokens, which takes " + std::to_string(context_bytes) +
                     " bytes; enlarge the pool, or shorten the context or its sliding window.");
  }
  return static_cast<uint32_t>(std::min<uint64_t>(pool / block, UINT32_MAX));
}

}  // namespace

uint64_t MostPoolBytes(const EngineOptions& options, uint64_t weight_bytes) {
  const uint64_t half = AvailableMemoryBytes() / 2;
  if (options.memory_share == 0) return half;
  return std::min(half, options.memory_share - std::min(options.memory_share, weight_bytes));
}

KvGeometry PlannedKvGeometry(const ModelConfig& config, const EngineOptions& options) {
  if (options.kv_block_size == 0 || options.kv_block_size % fabric::kAttentionChunk != 0 ||
      options.kv_block_size > 4096) {
    throw ModelError("The KV block size must be a multiple of " +
                     std::to_string(fabric::kAttentionChunk) + " and at most 4096, but it is " +
                     std::to_string(options.kv_block_size) + ".");
  }
  return {.layers = config.attention_layers(),
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .block_size = options.kv_block_size,
          .type = options.kv_type,
          .state_slots = ResolveStateSlots(config, options),
          .window = ResolveWindow(options)};
}

uint64_t PlannedKvBytes(const ModelConfig& config, const EngineOptions& options,
                        uint64_t weight_bytes) {
  const KvGeometry geometry = PlannedKvGeometry(config, options);
  const uint32_t blocks =
      ResolveBlocks(geometry, ResolveContext(config, options), options, weight_bytes);
  uint64_t bytes = geometry.BytesPerBlock() * blocks;
  if (config.recurrent()) bytes += geometry.state_slots * StateCache::BytesPerSlot(config);
  return bytes;
}

Engine::Engine(std::shared_ptr<const Model> model, const EngineOptions& options,
               fabric::Device& device, fabric::WorkerTeam& team)
    : model_(std::move(model)),
      context_length_(ResolveContext(model_->config(), options)),
      max_batch_tokens_(std::max(1U, options.max_batch_tokens)) {
  const KvGeometry geometry = PlannedKvGeometry(model_->config(), options);
  const uint32_t blocks =
      ResolveBlocks(geometry, context_length_, options, model_->weights().resident_bytes);
  backend_ = std::make_unique<CpuBackend>(model_, geometry, blocks, options, context_length_,
                                          device, team);
}

}  // namespace engine
