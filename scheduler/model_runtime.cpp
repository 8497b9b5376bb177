#include "scheduler/model_runtime.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <utility>

#include "engine/model_facts.h"
#include "engine/state_cache.h"
#include "fabric/aligned_buffer.h"
#include "fabric/cpu/isa.h"
#include "scheduler/auto_limits.h"

namespace scheduler {
namespace {

class EngineRunner : public StepRunner {
 public:
  EngineRunner(engine::Engine& engine, uint32_t swap_slots)
      : engine_(engine),
        block_bytes_(engine.kv_geometry().BytesPerBlock()),
        swap_(block_bytes_ * swap_slots) {}

  engine::StepOutput Step(const engine::Batch& batch) override { return engine_.Step(batch); }
  void CopyBlock(engine::BlockId from, engine::BlockId to) override { engine_.CopyBlock(from, to); }
  void SaveBlock(engine::BlockId block, std::byte* out) override { engine_.SaveBlock(block, out); }
  void LoadBlock(const std::byte* bytes, engine::BlockId block) override {
    engine_.LoadBlock(bytes, block);
  }
  void SwapOut(engine::BlockId from, uint32_t slot) override {
    SaveBlock(from, swap_.data() + slot * block_bytes_);
  }
  void SwapIn(uint32_t slot, engine::BlockId to) override {
    LoadBlock(swap_.data() + slot * block_bytes_, to);
  }

  bool gives_candidates() const override { return engine_.screens_head(); }
  const engine::KvGeometry& kv_geometry() const override { return engine_.kv_geometry(); }
  uint32_t kv_blocks() const override { return engine_.kv_blocks(); }
  uint32_t context_length() const override { return engine_.context_length(); }
  uint32_t vocabulary() const override { return engine_.model().config().vocabulary; }
  fabric::DeviceCounters Counters() const noexcept override { return engine_.device().Counters(); }
  std::span<const engine::LayerActivity> LayerActivities() const override {
    return engine_.layer_activities();
  }

 private:
  engine::Engine& engine_;
  size_t block_bytes_;
  fabric::AlignedBuffer<std::byte> swap_;  // pages are touched when they are first used
};

// Tells one model file from another without reading all of it.
std::string FileIdentity(const std::string& path) {
  constexpr size_t kSample = 1 << 16;
  std::ifstream file(path, std::ios::binary);
  file.seekg(0, std::ios::end);
  const auto size = static_cast<uint64_t>(file.tellg());
  uint64_t hash = size;
  std::vector<char> sample(std::min<uint64_t>(size, kSample));
  for (const uint64_t from : {uint64_t{0}, size / 2, size}) {
    file.seekg(static_cast<std::streamoff>(std::min(from, size - sample.size())));
    file.read(sample.data(), static_cast<std::streamsize>(sample.size()));
    hash = SipHash({}, {&hash, 1}, std::as_bytes(std::span(sample)));
  }
  return std::to_string(size) + "-" + std::to_string(hash);
}

// What keys and values depend on beside the tokens.
std::string KvIdentity(const ModelRuntime::Options& options, const engine::KvGeometry& geometry) {
  std::string identity = FileIdentity(options.path);
  for (const engine::LoraSource& lora : options.engine.lora)
    identity += "," + FileIdentity(lora.path);
  for (const uint32_t number :
       {geometry.layers, geometry.kv_heads, geometry.head_dim, geometry.block_size,
        static_cast<uint32_t>(geometry.type), geometry.window.tokens, geometry.window.sinks,
        static_cast<uint32_t>(options.engine.activation)}) {
    identity += ";" + std::to_string(number);
  }
  return identity + ";" + options.engine.i2s_layout;
}

std::unique_ptr<Scheduler> MakeScheduler(const SchedulerOptions& options,
                                         const StepRunner& runner) {
  std::random_device random;
  const auto word = [&random] { return uint64_t{random()} << 32 | random(); };
  return std::make_unique<Scheduler>(options, runner.kv_geometry(), runner.kv_blocks(),
                                     runner.context_length(), SipKey{word(), word()});
}

}  // namespace

ModelRuntime::Facts ModelRuntime::Inspect(const Options& options) {
  // As Load() does with what is set.
  engine::EngineOptions engine_options = options.engine;
  const SchedulerOptions& limits = options.scheduler;
  if (limits.max_sequences > 0) engine_options.max_sequences = limits.max_sequences;
  if (limits.max_batch_tokens > 0) engine_options.max_batch_tokens = limits.max_batch_tokens;
  const engine::ModelFacts file = engine::InspectModel(options.path, engine_options);
  return {.architecture = file.architecture,
          .context_length = file.context_length,
          .vocabulary = file.vocabulary,
          .parameters = file.parameters,
          .memory_bytes = file.weight_bytes + file.kv_bytes + options.scheduler.swap_bytes};
}

ModelRuntime::Facts ModelRuntime::facts() const {
  const engine::ModelConfig& config = model().config();
  const engine::KvGeometry& kv = engine().kv_geometry();
  Facts facts{.architecture = config.architecture,
              .context_length = engine().context_length(),
              .vocabulary = config.vocabulary};
  for (const engine::TensorPlacement& placement : model().weights().placements) {
    facts.parameters += placement.rows * placement.cols;
  }
  facts.memory_bytes = model().weights().resident_bytes + engine().workspace_bytes() +
                       kv.BytesPerBlock() * engine().kv_blocks() + options_.scheduler.swap_bytes;
  if (kv.recurrent()) {
    facts.memory_bytes += kv.state_slots * engine::StateCache::BytesPerSlot(config);
  }
  return facts;
}

std::shared_ptr<ModelRuntime> ModelRuntime::Load(
    const Options& options, fabric::WorkerTeam& team,
    const std::function<void(const engine::LoadProgress&)>& progress) {
  const std::shared_ptr<ModelRuntime> runtime(new ModelRuntime());
  runtime->options_ = options;
  runtime->device_ = fabric::CreateDevice(options.fabric, team);
  std::shared_ptr<const engine::Model> model =
      engine::Model::Load(options.path, options.engine, *runtime->device_, team, progress);
  const SchedulerOptions& limits = runtime->options_.scheduler = WithAutomaticLimits(
      options.scheduler,
      EstimateStepCost(*model, options.engine, fabric::ActiveIsa(), team.size()));
  // The scheduler plans the steps, so its budget is the size of the engine's workspace.
  engine::EngineOptions& engine_options = runtime->options_.engine;
  engine_options.max_batch_tokens = limits.max_batch_tokens;
  engine_options.max_sequences = limits.max_sequences;
  runtime->engine_ =
      std::make_unique<engine::Engine>(std::move(model), engine_options, *runtime->device_, team);
  runtime->runner_ = std::make_unique<EngineRunner>(
      *runtime->engine_, Scheduler::SwapSlots(options.scheduler, runtime->engine_->kv_geometry()));
  runtime->scheduler_ = MakeScheduler(limits, *runtime->runner_);
  return runtime;
}

PrefixStoreFormat ModelRuntime::StoreFormat() const {
  const engine::KvGeometry& geometry = runner_->kv_geometry();
  return {.identity = KvIdentity(options_, geometry),
          .block_size = geometry.block_size,
          .block_bytes = geometry.BytesPerBlock()};
}

uint32_t ModelRuntime::SavePrefixes(const std::string& path) {
  const std::vector<PrefixCache::Entry> entries = scheduler_->CachedPrefixes();
  scheduler::SavePrefixes(
      path, LoadOrMakeKey(path + ".key"), StoreFormat(), entries,
      [this](BlockId block, std::byte* out) { runner_->SaveBlock(block, out); });
  return static_cast<uint32_t>(entries.size());
}

uint32_t ModelRuntime::RestorePrefixes(const std::string& path) {
  if (!std::filesystem::exists(path)) return 0;
  std::vector<std::optional<BlockId>> blocks;
  uint32_t restored = 0;
  try {
    LoadPrefixes(
        path, LoadOrMakeKey(path + ".key"), StoreFormat(),
        [&](const std::vector<PrefixCache::Entry>& entries) {
          blocks = scheduler_->RestorePrefixes(entries);
          std::vector<bool> wanted;
          for (const auto& block : blocks) wanted.push_back(block.has_value());
          return wanted;
        },
        [&](size_t entry, std::span<const std::byte> bytes) {
          runner_->LoadBlock(bytes.data(), *blocks[entry]);
          ++restored;
        });
  } catch (...) {
    scheduler_->DropCachedPrefixes();
    throw;
  }
  return restored;
}

std::shared_ptr<ModelRuntime> ModelRuntime::WithRunner(const Options& options,
                                                       std::unique_ptr<StepRunner> runner) {
  const std::shared_ptr<ModelRuntime> runtime(new ModelRuntime());
  runtime->options_ = options;
  runtime->runner_ = std::move(runner);
  runtime->scheduler_ = MakeScheduler(options.scheduler, *runtime->runner_);
  return runtime;
}

}  // namespace scheduler
