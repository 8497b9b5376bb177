#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "engine/model.h"
#include "scheduler/model_runtime.h"
#include "server/served_model.h"

namespace server {

using ModelFacts = scheduler::ModelRuntime::Facts;

// Where a ModelRegistry has its models from; tests put a scripted one here.
//
// Threads: one at a time, but Unload(), which the thread that shuts down may call beside a load.
class ModelSource {
 public:
  struct Loaded {
    std::shared_ptr<ServedModel> model;
    ModelFacts facts;
    std::vector<engine::LoadPhase> phases = {};
  };

  virtual ~ModelSource() = default;

  // Without loading. Errors: as Load().
  virtual ModelFacts Inspect(size_t model) = 0;
  // progress: called with the fraction done; what it throws ends the load. Errors: std::bad_alloc,
  // or any std::exception with a sentence.
  virtual Loaded Load(size_t model, const std::function<void(double)>& progress) = 0;
  // Ends what still runs on the model and lets go of it.
  virtual void Unload(size_t model, std::shared_ptr<ServedModel> loaded) = 0;
};

}  // namespace server
