#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "engine/engine.h"
#include "engine/engine_options.h"
#include "fabric/device.h"
#include "fabric/worker_team.h"
#include "scheduler/model_drafter.h"
#include "scheduler/prefix_store.h"
#include "scheduler/scheduler.h"
#include "scheduler/scheduler_options.h"
#include "scheduler/step_runner.h"

namespace scheduler {

// Everything that one served model needs: device, weights, engine with its KV pool, scheduler. The
// engine loop serves runtimes round-robin; HTTP threads hold shared_ptr snapshots of a runtime, so
// unloading never races a request.
//
// Threads: const members from any thread; engine() and scheduler() from the engine thread only.
class ModelRuntime {
 public:
  struct Options {
    std::string name;  // the `model` field of requests
    std::string path;
    fabric::FabricOptions fabric;
    engine::EngineOptions engine;
    SchedulerOptions scheduler;
  };

  // What can be said of a model file without loading it; memory_bytes is about what it will take.
  struct Facts {
    std::string architecture;
    uint32_t context_length = 0;
    uint32_t vocabulary = 0;
    uint64_t parameters = 0;
    uint64_t memory_bytes = 0;  // weights, KV pool, recurrent states, swap; workspace once loaded
  };
  // Errors: as Load().
  static Facts Inspect(const Options& options);

  // Errors: as engine::Model::Load and the Engine constructor; ModelError when the draft model's
  // vocabulary is another one, or when the model cannot be drafted for as asked. team outlives the
  // runtime.
  static std::shared_ptr<ModelRuntime> Load(
      const Options& options, fabric::WorkerTeam& team,
      const std::function<void(const engine::LoadProgress&)>& progress = {});

  // A runtime whose steps are made by `runner`: it has a scheduler and a name but no model or
  // engine. For tests of the loop.
  // draft_runner: of Speculation::kModel.
  static std::shared_ptr<ModelRuntime> WithRunner(
      const Options& options, std::unique_ptr<StepRunner> runner,
      std::unique_ptr<StepRunner> draft_runner = nullptr);

  // The prefix cache to and from a file (scheduler/prefix_store.h), with a key beside it
  // (PATH.key). Return the number of blocks; a file that is not there has none. Errors:
  // PrefixStoreError; the cache is empty then. REQUIRES: not attached to a loop.
  uint32_t SavePrefixes(const std::string& path);
  uint32_t RestorePrefixes(const std::string& path);

  // Of the loaded model: memory_bytes is what it takes. REQUIRES: made by Load().
  Facts facts() const;
  // The model's, and the phase "engine" after it. REQUIRES: made by Load().
  const engine::LoadReport& load_report() const { return load_report_; }

  const std::string& name() const { return options_.name; }
  const Options& options() const { return options_; }  // with the limits that were chosen
  const engine::Model& model() const { return engine_->model(); }
  engine::Engine& engine() { return *engine_; }
  Scheduler& scheduler() { return *scheduler_; }
  StepRunner& runner() { return *runner_; }
  const StepRunner& runner() const { return *runner_; }
  // What drafts for it, if a model does.
  std::optional<DraftSource> draft_source() const;
  const engine::Engine& engine() const { return *engine_; }

 private:
  // A model that drafts.
  struct Draft {
    std::unique_ptr<fabric::Device> device;
    std::unique_ptr<engine::Engine> engine;
    std::unique_ptr<StepRunner> runner;
  };

  ModelRuntime() = default;
  PrefixStoreFormat StoreFormat() const;
  static Draft LoadDraft(const Options& options, const engine::Engine& served,
                         fabric::WorkerTeam& team);

  Options options_;
  engine::LoadReport load_report_;
  std::unique_ptr<fabric::Device> device_;
  std::unique_ptr<engine::Engine> engine_;
  std::unique_ptr<StepRunner> runner_;
  std::unique_ptr<Scheduler> scheduler_;
  Draft draft_;
};

}  // namespace scheduler
