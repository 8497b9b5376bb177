#include "scheduler/model_runtime.h"

#include <chrono>
#include <random>
#include <utility>

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
  void SwapOut(engine::BlockId from, uint32_t slot) override {
    engine_.SaveBlock(from, swap_.data() + slot * block_bytes_);
  }
  void SwapIn(uint32_t slot, engine::BlockId to) override {
    engine_.LoadBlock(swap_.data() + slot * block_bytes_, to);
  }

  const engine::KvGeometry& kv_geometry() const override { return engine_.kv_geometry(); }
  uint32_t kv_blocks() const override { return engine_.kv_blocks(); }
  uint32_t context_length() const override { return engine_.context_length(); }
  uint32_t vocabulary() const override { return engine_.model().config().vocabulary; }
  fabric::DeviceCounters Counters() const noexcept override { return engine_.device().Counters(); }

 private:
  engine::Engine& engine_;
  size_t block_bytes_;
  fabric::AlignedBuffer<std::byte> swap_;  // pages are touched when they are first used
};

int64_t UnixSeconds() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(since_epoch).count();
}

std::unique_ptr<Scheduler> MakeScheduler(const SchedulerOptions& options,
                                         const StepRunner& runner) {
  std::random_device random;
  const auto word = [&random] { return uint64_t{random()} << 32 | random(); };
  return std::make_unique<Scheduler>(options, runner.kv_geometry(), runner.kv_blocks(),
                                     runner.context_length(), SipKey{word(), word()});
}

}  // namespace

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
  runtime->engine_ =
      std::make_unique<engine::Engine>(std::move(model), engine_options, *runtime->device_, team);
  runtime->runner_ = std::make_unique<EngineRunner>(
      *runtime->engine_, Scheduler::SwapSlots(options.scheduler, runtime->engine_->kv_geometry()));
  runtime->scheduler_ = MakeScheduler(limits, *runtime->runner_);
  runtime->created_ = UnixSeconds();
  return runtime;
}

std::shared_ptr<ModelRuntime> ModelRuntime::WithRunner(const Options& options,
                                                       std::unique_ptr<StepRunner> runner) {
  const std::shared_ptr<ModelRuntime> runtime(new ModelRuntime());
  runtime->options_ = options;
  runtime->runner_ = std::move(runner);
  runtime->scheduler_ = MakeScheduler(options.scheduler, *runtime->runner_);
  runtime->created_ = UnixSeconds();
  return runtime;
}

}  // namespace scheduler
