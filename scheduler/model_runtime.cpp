#include "scheduler/model_runtime.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>
#include <utility>

#include "engine/errors.h"
#include "engine/model_facts.h"
#include "engine/state_cache.h"
#include "engine/stopwatch.h"
#include "fabric/aligned_buffer.h"
#include "fabric/cpu/isa.h"
#include "scheduler/auto_limits.h"

namespace scheduler {
namespace {

class EngineRunner : public StepRunner {
 public:
  // draft_device: of the model that drafts for this one, whose work is part of its account.
  EngineRunner(engine::Engine& engine, uint32_t swap_slots,
               const fabric::Device* draft_device = nullptr)
      : engine_(engine),
        draft_device_(draft_device),
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

  bool gives_candidates() const override { return engine_.head_mode() != engine::HeadMode::kFull; }
  const engine::KvGeometry& kv_geometry() const override { return engine_.kv_geometry(); }
  uint32_t kv_blocks() const override { return engine_.kv_blocks(); }
  uint32_t context_length() const override { return engine_.context_length(); }
  uint32_t vocabulary() const override { return engine_.model().config().vocabulary; }
  fabric::DeviceCounters Counters() const noexcept override {
    fabric::DeviceCounters counters = engine_.device().Counters();
    if (draft_device_ != nullptr) fabric::AddCounters(draft_device_->Counters(), &counters);
    return counters;
  }
  std::span<const engine::LayerActivity> LayerActivities() const override {
    return engine_.layer_activities();
  }

 private:
  engine::Engine& engine_;
  const fabric::Device* draft_device_;
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

std::string Quoted(const std::string& text) { return "\"" + text + "\""; }

// Drafts are token ids: they mean the same to both models or nothing.
void CheckSameVocabulary(const std::string& model_path, const std::string& draft_path,
                         const engine::EngineOptions& options) {
  const auto model = engine::ReadTokenizer(model_path, options);
  const auto draft = engine::ReadTokenizer(draft_path, options);
  const std::string subject = "The draft model " + Quoted(draft_path);
  if (model->size() != draft->size()) {
    throw engine::ModelError(subject + " must have the vocabulary of " + Quoted(model_path) +
                             ", but it has " + std::to_string(draft->size()) + " tokens and not " +
                             std::to_string(model->size()) + ".");
  }
  for (engine::TokenId token = 0; token < static_cast<engine::TokenId>(model->size()); ++token) {
    if (model->piece(token) == draft->piece(token)) continue;
    throw engine::ModelError(subject + " must have the vocabulary of " + Quoted(model_path) +
                             ", but its token " + std::to_string(token) + " is " +
                             Quoted(draft->piece(token)) + " and not " +
                             Quoted(model->piece(token)) + ".");
  }
}

void CheckDraftOptions(const ModelRuntime::Options& options) {
  if (DraftKind(options.scheduler) != Speculation::kModel) return;
  if (options.scheduler.draft_model.empty()) {
    throw engine::ModelError("Drafting with another model needs the file of a draft model.");
  }
  if (options.engine.sliding_window > 0) {
    throw engine::ModelError(
        "A draft model cannot be used with a sliding window, because it may have to compute what "
        "the window has left behind; let the model draft for itself instead.");
  }
  CheckSameVocabulary(options.path, options.scheduler.draft_model, options.engine);
}

// Of the served model's layers, those that draft.
uint32_t DraftLayers(const SchedulerOptions& options, const engine::ModelConfig& config) {
  if (options.speculation_layers >= config.layers) {
    throw engine::ModelError("Drafts must come from fewer than the model's " +
                             std::to_string(config.layers) + " layers, but " +
                             std::to_string(options.speculation_layers) + " were asked for.");
  }
  return options.speculation_layers > 0 ? options.speculation_layers
                                        : std::max(1U, config.layers / 2);
}

// How the draft model is run: as the served one, but for what belongs to that alone.
engine::EngineOptions DraftEngineOptions(const engine::EngineOptions& options) {
  engine::EngineOptions own = options;
  own.context_length = 0;
  own.memory_share = 0;
  own.lora.clear();
  own.pooling.reset();
  return own;
}

engine::ModelFacts InspectDraft(const ModelRuntime::Options& options) {
  return engine::InspectModel(options.scheduler.draft_model, DraftEngineOptions(options.engine));
}

// Where memory is limited, of what the weights leave the draft model's pool of as many blocks takes
// its part.
engine::EngineOptions EngineOptionsOf(const ModelRuntime::Options& options) {
  engine::EngineOptions own = options.engine;
  const bool shares = own.memory_share > 0 && own.kv_bytes == 0;
  if (DraftKind(options.scheduler) != Speculation::kModel || !shares) return own;
  const engine::ModelFacts model = engine::InspectModel(options.path, own);
  const engine::ModelFacts draft = InspectDraft(options);
  const uint64_t weights = model.weight_bytes + draft.weight_bytes;
  const uint64_t left = own.memory_share - std::min(own.memory_share, weights);
  own.memory_share = model.weight_bytes +
                     left / std::max<uint64_t>(model.kv_block_bytes + draft.kv_block_bytes, 1) *
                         model.kv_block_bytes;
  return own;
}

// Of weights behind a bounded pool: the matrices that are in it, and those that wait in memory.
uint64_t HeldBytes(uint64_t weight_bytes, const fabric::FabricOptions& fabric) {
  if (fabric.pool_bytes == 0) return weight_bytes;
  const uint64_t pools = weight_bytes / fabric.devices < fabric.pool_bytes
                             ? weight_bytes
                             : fabric.pool_bytes * fabric.devices;
  return fabric.store.empty() ? weight_bytes + pools : pools;
}

}  // namespace

ModelRuntime::Facts ModelRuntime::Inspect(const Options& options) {
  // As Load() does with what is set.
  engine::EngineOptions engine_options = EngineOptionsOf(options);
  const SchedulerOptions& limits = options.scheduler;
  if (limits.max_sequences > 0) engine_options.max_sequences = limits.max_sequences;
  if (limits.max_batch_tokens > 0) engine_options.max_batch_tokens = limits.max_batch_tokens;
  const engine::ModelFacts file = engine::InspectModel(options.path, engine_options);
  Facts facts{.architecture = file.architecture,
              .context_length = file.context_length,
              .vocabulary = file.vocabulary,
              .parameters = file.parameters,
              .memory_bytes = HeldBytes(file.weight_bytes, options.fabric) + file.kv_bytes +
                              options.scheduler.swap_bytes};
  if (DraftKind(options.scheduler) == Speculation::kModel) {
    const engine::ModelFacts draft = InspectDraft(options);
    facts.memory_bytes +=
        HeldBytes(draft.weight_bytes, options.fabric) +
        file.kv_bytes / std::max<uint64_t>(file.kv_block_bytes, 1) * draft.kv_block_bytes;
  }
  return facts;
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
  if (draft_.engine) {
    const engine::Engine& draft = *draft_.engine;
    facts.memory_bytes += draft.model().weights().resident_bytes + draft.workspace_bytes() +
                          draft.kv_geometry().BytesPerBlock() * draft.kv_blocks();
  }
  return facts;
}

std::shared_ptr<ModelRuntime> ModelRuntime::Load(
    const Options& options, fabric::WorkerTeam& team,
    const std::function<void(const engine::LoadProgress&)>& progress) {
  const engine::Stopwatch stopwatch;
  CheckDraftOptions(options);
  const std::shared_ptr<ModelRuntime> runtime(new ModelRuntime());
  runtime->options_ = options;
  runtime->options_.engine = EngineOptionsOf(options);
  runtime->device_ = fabric::CreateDevice(options.fabric, team);
  std::shared_ptr<const engine::Model> model =
      engine::Model::Load(options.path, options.engine, *runtime->device_, team, progress);
  SchedulerOptions& limits = runtime->options_.scheduler = WithAutomaticLimits(
      options.scheduler,
      EstimateStepCost(*model, runtime->options_.engine, fabric::ActiveIsa(), team.size()));
  // A recurrent model cannot take wrong guesses back.
  limits.speculation =
      model->config().recurrent() ? Speculation::kOff : DraftKind(options.scheduler);
  if (limits.speculation == Speculation::kSelf) {
    limits.speculation_layers = DraftLayers(limits, model->config());
  }
  // The scheduler plans the steps, so its budget is the size of the engine's workspace.
  engine::EngineOptions& engine_options = runtime->options_.engine;
  engine_options.max_batch_tokens = limits.max_batch_tokens;
  engine_options.max_sequences = limits.max_sequences;
  runtime->engine_ =
      std::make_unique<engine::Engine>(std::move(model), engine_options, *runtime->device_, team);
  if (limits.speculation == Speculation::kModel) {
    runtime->draft_ = LoadDraft(runtime->options_, *runtime->engine_, team);
  }
  runtime->runner_ = std::make_unique<EngineRunner>(
      *runtime->engine_, Scheduler::SwapSlots(options.scheduler, runtime->engine_->kv_geometry()),
      runtime->draft_.device.get());
  runtime->scheduler_ = MakeScheduler(limits, *runtime->runner_);
  engine::LoadReport& report = runtime->load_report_ = runtime->model().load_report();
  const double seconds = stopwatch.Seconds();
  report.phases.push_back({.name = "engine", .seconds = seconds - report.seconds});
  report.seconds = seconds;
  return runtime;
}

ModelRuntime::Draft ModelRuntime::LoadDraft(const Options& options, const engine::Engine& served,
                                            fabric::WorkerTeam& team) {
  Draft draft;
  draft.device = fabric::CreateDevice(options.fabric, team);
  engine::EngineOptions own = DraftEngineOptions(options.engine);
  own.placement.layers = {};  // numbers are those of the served model
  auto model = engine::Model::Load(options.scheduler.draft_model, own, *draft.device, team);
  const engine::KvGeometry geometry = engine::PlannedKvGeometry(model->config(), own);
  if (geometry.recurrent()) {
    throw engine::ModelError("The draft model " + Quoted(model->path()) +
                             " has a recurrent state, which cannot take wrong guesses back.");
  }
  own.context_length = std::min(served.context_length(), model->config().context_length);
  own.kv_bytes = geometry.BytesPerBlock() * served.kv_blocks();
  draft.engine = std::make_unique<engine::Engine>(std::move(model), own, *draft.device, team);
  draft.runner = std::make_unique<EngineRunner>(*draft.engine, 0);
  return draft;
}

std::optional<DraftSource> ModelRuntime::draft_source() const {
  const SchedulerOptions& options = options_.scheduler;
  DraftSource source{.max_batch_tokens = std::max(1U, options.max_batch_tokens),
                     .vocabulary = runner_->vocabulary()};
  switch (options.speculation) {
    case Speculation::kSelf:
      source.runner = runner_.get();
      source.layers = options.speculation_layers;
      return source;
    case Speculation::kModel:
      source.runner = draft_.runner.get();
      return source;
    default:
      return std::nullopt;
  }
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
                                                       std::unique_ptr<StepRunner> runner,
                                                       std::unique_ptr<StepRunner> draft_runner) {
  const std::shared_ptr<ModelRuntime> runtime(new ModelRuntime());
  runtime->options_ = options;
  runtime->runner_ = std::move(runner);
  runtime->draft_.runner = std::move(draft_runner);
  runtime->scheduler_ = MakeScheduler(options.scheduler, *runtime->runner_);
  return runtime;
}

}  // namespace scheduler
