#include "server/runtime_source.h"

#include <spdlog/fmt/fmt.h>

#include <string>
#include <utility>

#include "server/http_types.h"
#include "server/log.h"

namespace server {

using scheduler::ModelRuntime;

namespace {

// "1.52 s (header 0.01 s, weights 1.20 s, ...); packed cache read from ..."
std::string LoadText(const engine::LoadReport& report) {
  std::string phases;
  for (const engine::LoadPhase& phase : report.phases) {
    phases += fmt::format("{}{} {:.2f} s", phases.empty() ? "" : ", ", phase.name, phase.seconds);
  }
  std::string text = fmt::format("{:.2f} s ({})", report.seconds, phases);
  if (!report.packed_cache.empty()) text += "; packed cache " + report.packed_cache;
  return text;
}

}  // namespace

RuntimeSource::RuntimeSource(std::vector<ModelRuntime::Options> models, scheduler::EngineLoop& loop,
                             fabric::WorkerTeam& team, ChatSyntaxOptions syntax)
    : loop_(loop), team_(team), syntax_(std::move(syntax)) {
  for (ModelRuntime::Options& model : models) slots_.push_back({.options = std::move(model)});
}

ModelFacts RuntimeSource::Inspect(size_t model) {
  return ModelRuntime::Inspect(slots_[model].options);
}

ModelSource::Loaded RuntimeSource::Load(size_t model, const std::function<void(double)>& progress) {
  const ModelRuntime::Options& options = slots_[model].options;
  auto runtime = ModelRuntime::Load(
      options, team_, [&](const engine::LoadProgress& now) { progress(now.fraction); });
  LogInfo(fmt::format("model {} loaded from {} in {}", options.name, options.path,
                      LoadText(runtime->load_report())));
  RestorePrefixes(*runtime);
  auto served = std::make_shared<RuntimeModel>(loop_, runtime);
  served->SetSyntaxOptions(syntax_);
  Loaded loaded{.model = std::move(served),
                .facts = runtime->facts(),
                .phases = runtime->load_report().phases};
  const std::lock_guard lock(mutex_);
  loop_.Attach(runtime);
  slots_[model].runtime = std::move(runtime);
  return loaded;
}

void RuntimeSource::Unload(size_t model, std::shared_ptr<ServedModel> loaded) {
  std::shared_ptr<ModelRuntime> runtime;
  {
    const std::lock_guard lock(mutex_);
    runtime = std::exchange(slots_[model].runtime, nullptr);
    scheduler::AddCounters(loop_.Stats(*runtime), &slots_[model].former);
  }
  loop_.Detach(runtime);
  SavePrefixes(*runtime);
  loaded.reset();
}

RuntimeSource::View RuntimeSource::Look(size_t model) const {
  const std::lock_guard lock(mutex_);
  const Slot& slot = slots_[model];
  View view;
  if (slot.runtime != nullptr) {
    const scheduler::SchedulerOptions& options = slot.runtime->options().scheduler;
    view = {.loaded = true,
            .stats = loop_.Stats(*slot.runtime),
            .block_size = std::as_const(*slot.runtime).engine().kv_geometry().block_size,
            .max_sequences = options.max_sequences,
            .prefix_cache = options.prefix_cache != scheduler::PrefixCacheMode::kOff};
  }
  view.speculation = scheduler::DraftKind(slot.options.scheduler);
  scheduler::AddCounters(slot.former, &view.stats);
  return view;
}

// A cache that cannot be kept is no reason not to serve.
void RuntimeSource::RestorePrefixes(ModelRuntime& runtime) {
  const std::string& file = runtime.options().scheduler.prefix_cache_file;
  if (file.empty()) return;
  try {
    const uint32_t blocks = runtime.RestorePrefixes(file);
    LogInfo("prefix cache: " + std::to_string(blocks) + " blocks from " + file);
  } catch (const std::exception& error) {
    LogWarning(error.what());
  }
}

void RuntimeSource::SavePrefixes(ModelRuntime& runtime) {
  const std::string& file = runtime.options().scheduler.prefix_cache_file;
  if (file.empty()) return;
  try {
    const uint32_t blocks = runtime.SavePrefixes(file);
    LogInfo("prefix cache: " + std::to_string(blocks) + " blocks to " + file);
  } catch (const std::exception& error) {
    LogWarning(error.what());
  }
}

}  // namespace server
