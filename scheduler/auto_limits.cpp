#include "scheduler/auto_limits.h"

#include <algorithm>

#include "engine/engine.h"

namespace scheduler {
namespace {

constexpr double kStepSeconds = 0.25;
constexpr uint32_t kFewestBatchTokens = 64;
constexpr uint32_t kMostBatchTokens = 512;
constexpr uint32_t kFewestSequences = 4;
constexpr uint32_t kMostSequences = 64;
constexpr uint32_t kTokensOfSequence = 256;
// Room for prompts when all sequences decode.
constexpr uint32_t kPromptRoom = 32;

// What one thread's kernels reach on long prompts, rounded down: measured on a machine of 2024.
double MacsPerSecond(fabric::Isa isa) {
  switch (isa) {
    case fabric::Isa::kScalar:
      return 1.5e9;
    case fabric::Isa::kNeon:  // not measured: taken to be like AVX2
    case fabric::Isa::kAvx2:
      return 80e9;
    case fabric::Isa::kAvxVnni:
      return 120e9;
    case fabric::Isa::kAvx512Vnni:
    case fabric::Isa::kAvx512Vbmi:
      return 250e9;
  }
  return 1.5e9;
}

}  // namespace

StepCost EstimateStepCost(const engine::Model& model, const engine::EngineOptions& options,
                          fabric::Isa isa, int threads) {
  StepCost cost;
  for (const engine::LinearInfo& linear : model.weights().linears) {
    cost.macs_per_token += static_cast<double>(linear.rows) * static_cast<double>(linear.cols);
  }
  const engine::ModelConfig& config = model.config();
  // Gate, up and down of the experts that a token uses, which are no projections of every token.
  cost.macs_per_token += 3.0 * config.layers * config.experts.used *
                         static_cast<double>(config.experts.ffn) * config.hidden;
  cost.macs_per_second = MacsPerSecond(isa) * threads;
  const engine::KvGeometry geometry = engine::PlannedKvGeometry(model.config(), options);
  const uint64_t pool = options.kv_bytes > 0
                            ? options.kv_bytes
                            : engine::MostPoolBytes(options, model.weights().resident_bytes);
  cost.kv_tokens =
      pool / std::max<uint64_t>(geometry.BytesPerBlock(), 1) * uint64_t{geometry.block_size};
  return cost;
}

SchedulerOptions WithAutomaticLimits(SchedulerOptions options, const StepCost& cost) {
  const double tokens = cost.macs_per_token > 0
                            ? kStepSeconds * cost.macs_per_second / cost.macs_per_token
                            : kMostBatchTokens;
  const auto in_time = static_cast<uint32_t>(std::clamp<double>(tokens, 1, kMostBatchTokens));
  if (options.max_sequences == 0) {
    const uint64_t in_memory = cost.kv_tokens / kTokensOfSequence;
    const auto most = static_cast<uint32_t>(std::min<uint64_t>({in_memory, in_time}));
    options.max_sequences = std::clamp(most, kFewestSequences, kMostSequences);
    if (options.max_batch_tokens > 0) {
      options.max_sequences = std::min(options.max_sequences, options.max_batch_tokens);
    }
  }
  if (options.max_batch_tokens == 0) {
    const uint32_t rounded = in_time / 16 * 16;
    options.max_batch_tokens =
        std::max({rounded, kFewestBatchTokens, options.max_sequences + kPromptRoom});
  }
  if (options.prefill_chunk == 0) options.prefill_chunk = (options.max_batch_tokens + 3) / 4;
  return options;
}

}  // namespace scheduler
