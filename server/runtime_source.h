#pragma once

#include <mutex>
#include <vector>

#include "fabric/worker_team.h"
#include "scheduler/engine_loop.h"
#include "server/chat_syntax.h"
#include "server/model_source.h"

namespace server {

// Loads model files into runtimes of one engine loop, and keeps what they counted.
//
// Threads: as ModelSource; Look() from any thread.
class RuntimeSource : public ModelSource {
 public:
  // loop and team outlive the source.
  RuntimeSource(std::vector<scheduler::ModelRuntime::Options> models, scheduler::EngineLoop& loop,
                fabric::WorkerTeam& team, ChatSyntaxOptions syntax);

  ModelFacts Inspect(size_t model) override;
  Loaded Load(size_t model, const std::function<void(double)>& progress) override;
  void Unload(size_t model, std::shared_ptr<ServedModel> loaded) override;

  struct View {
    bool loaded = false;
    scheduler::LoopStats stats;  // counters since the start of the server, over all loads
    uint32_t block_size = 0;
    uint32_t max_sequences = 0;
    bool prefix_cache = false;
    scheduler::Speculation speculation = scheduler::Speculation::kOff;  // also when not loaded
  };
  View Look(size_t model) const;

 private:
  struct Slot {
    scheduler::ModelRuntime::Options options;
    std::shared_ptr<scheduler::ModelRuntime> runtime = nullptr;
    scheduler::LoopStats former = {};  // of runtimes that were unloaded
  };
  void RestorePrefixes(scheduler::ModelRuntime& runtime);
  void SavePrefixes(scheduler::ModelRuntime& runtime);

  scheduler::EngineLoop& loop_;
  fabric::WorkerTeam& team_;
  ChatSyntaxOptions syntax_;
  mutable std::mutex mutex_;
  std::vector<Slot> slots_;
};

}  // namespace server
