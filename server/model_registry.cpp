#include "server/model_registry.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <utility>

#include "fabric/seconds_since.h"
#include "server/log.h"

namespace server {
namespace {

// Pauses after failed loads.
constexpr double kFirstPause = 1;
constexpr double kLongestPause = 60;

// How long a load waits for idle models before busy ones get no new requests: so long, or longer
// for models that take long to come back, so that most of the time goes to answers, not to loads.
constexpr double kPatience = 1;
constexpr double kPatiencePerLoadSecond = 2;

constexpr double kFarAway = 3600;

std::string Mebibytes(uint64_t bytes) { return std::to_string((bytes + (1u << 20) - 1) >> 20); }

struct LoadAborted : std::exception {
  const char* what() const noexcept override { return "the load was given up"; }
};

std::string_view CauseText(ModelRegistry::Cause cause) {
  switch (cause) {
    case ModelRegistry::Cause::kIdle:
      return "it was idle";
    case ModelRegistry::Cause::kMemory:
      return "another needs its memory";
    case ModelRegistry::Cause::kOperator:
      return "an operator asked for it";
    case ModelRegistry::Cause::kShutdown:
      return "the server is shutting down";
  }
  return "";
}

}  // namespace

std::string_view StateName(ModelRegistry::State state) {
  switch (state) {
    case ModelRegistry::State::kUnloaded:
      return "unloaded";
    case ModelRegistry::State::kLoading:
      return "loading";
    case ModelRegistry::State::kReady:
      return "loaded";
    case ModelRegistry::State::kUnloading:
      return "unloading";
    case ModelRegistry::State::kFailed:
      return "failed";
  }
  return "failed";
}

bool ModelWait::ready() const {
  const std::lock_guard lock(mutex_);
  return ready_;
}

void ModelWait::SetNotify(std::function<void()> notify) {
  const std::lock_guard lock(mutex_);
  notify_ = std::move(notify);
}

void ModelWait::Check() const {
  const std::lock_guard lock(mutex_);
  if (error_) throw ApiError(*error_);
}

void ModelWait::End(std::shared_ptr<ServedModel> model, std::optional<ApiError> error) {
  std::function<void()> notify;
  {
    const std::lock_guard lock(mutex_);
    ready_ = true;
    model_ = std::move(model);
    error_ = std::move(error);
    notify = notify_;
  }
  try {
    if (notify) notify();
  } catch (const std::bad_alloc&) {
    // Whoever waits looks now and then by itself.
  }
}

struct ModelRegistry::Entry {
  size_t index = 0;
  Status status;
  bool starting = false;  // loaded at the start, and not yet
  std::shared_ptr<ServedModel> model;
  uint32_t leases = 0;
  std::optional<Cause> leaving;  // takes no new requests; unloaded when the last lease ends
  bool wanted = false;           // in the queue
  Clock::time_point wanted_since;
  Clock::time_point load_begin;
  Clock::time_point last_used;
  Clock::time_point retry_at;
  uint32_t failures = 0;  // in a row
  std::vector<std::weak_ptr<ModelWait>> load_waits;
  std::vector<std::weak_ptr<ModelWait>> unload_waits;

  bool usable() const { return status.state == State::kReady && !leaving; }
  uint64_t memory_bytes() const { return status.facts ? status.facts->memory_bytes : 0; }
  double idle_seconds() const { return status.policy.pinned ? 0 : status.policy.idle_seconds; }
  // Those that still wait.
  uint32_t waiting() const {
    return static_cast<uint32_t>(std::count_if(load_waits.begin(), load_waits.end(),
                                               [](const auto& wait) { return !wait.expired(); }));
  }
};

// What a shared_ptr that Get() gave out owns.
class ModelRegistry::Lease {
 public:
  // REQUIRES: the registry is locked.
  Lease(ModelRegistry& registry, Entry& entry, bool uses)
      : registry_(registry), entry_(entry), model_(entry.model), uses_(uses) {
    ++entry.leases;
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  // The reference first: when the registry hears of it, nothing of the model is held here.
  ~Lease() {
    model_.reset();
    registry_.Release(entry_, uses_);
  }
  ServedModel* model() const { return model_.get(); }

 private:
  ModelRegistry& registry_;
  Entry& entry_;
  std::shared_ptr<ServedModel> model_;
  bool uses_;
};

ModelRegistry::ModelRegistry(const std::vector<Named>& models, ModelLimits limits,
                             ModelSource& source)
    : limits_(limits), source_(source) {
  for (const Named& model : models) {
    auto entry = std::make_unique<Entry>();
    entry->index = entries_.size();
    entry->status.name = model.name;
    entry->status.policy = model.policy;
    entry->starting = !model.policy.lazy;
    if (entry->starting) entry->status.state = State::kLoading;
    entries_.push_back(std::move(entry));
  }
}

ModelRegistry::~ModelRegistry() { Stop(); }

void ModelRegistry::Start(Started started) {
  on_started_ = std::move(started);
  thread_ = std::thread([this] { Run(); });
}

ModelRegistry::Entry& ModelRegistry::Find(std::string_view name) const {
  for (const auto& entry : entries_) {
    if (name.empty() || entry->status.name == name) return *entry;
  }
  throw ModelNotFound(name);
}

std::shared_ptr<ServedModel> ModelRegistry::MakeLease(Entry& entry, bool uses) {
  const auto lease = std::make_shared<Lease>(*this, entry, uses);
  return {lease, lease->model()};
}

void ModelRegistry::Release(Entry& entry, bool used) {
  const std::lock_guard lock(mutex_);
  --entry.leases;
  if (used) entry.last_used = Clock::now();
  if (entry.leases == 0) changed_.notify_all();
}

std::shared_ptr<ServedModel> ModelRegistry::Get(std::string_view name) {
  const std::lock_guard lock(mutex_);
  Entry& entry = Find(name);
  if (closed_) throw ShuttingDown();
  if (entry.usable()) return MakeLease(entry, true);
  if (entry.starting && entry.status.state == State::kFailed) throw LoadFailed(entry);
  if (entry.starting) {
    throw ModelLoading(entry.status.name, entry.status.progress, LoadSecondsLeft(entry));
  }
  if (entry.status.state == State::kFailed && Clock::now() < entry.retry_at) {
    throw LoadFailed(entry);
  }
  if (entry.waiting() >= limits_.max_waiting) {
    throw Overloaded("Too many requests wait for the model '" + entry.status.name +
                     "' to be loaded. Try again soon.");
  }
  throw ModelNotLoaded(entry.status.name, Await(entry));
}

// As the load has gone so far; at least 1.
int ModelRegistry::LoadSecondsLeft(const Entry& entry) const {
  constexpr double kLongest = 60;
  const double progress = entry.status.progress;
  if (progress <= 0) return 1;
  const double passed = fabric::SecondsSince(entry.load_begin);
  return static_cast<int>(std::ceil(std::clamp(passed * (1 - progress) / progress, 1.0, kLongest)));
}

std::shared_ptr<ModelWait> ModelRegistry::Await(Entry& entry) {
  auto wait = std::make_shared<ModelWait>();
  std::erase_if(entry.load_waits, [](const auto& other) { return other.expired(); });
  entry.load_waits.push_back(wait);
  Want(entry);
  return wait;
}

void ModelRegistry::Want(Entry& entry) {
  if (entry.wanted || (entry.status.state == State::kLoading && !entry.leaving)) return;
  entry.wanted = true;
  entry.wanted_since = Clock::now();
  queue_.push_back(&entry);
  changed_.notify_all();
}

std::shared_ptr<ModelWait> ModelRegistry::Load(std::string_view name) {
  const std::lock_guard lock(mutex_);
  Entry& entry = Find(name);
  if (closed_) throw ShuttingDown();
  if (!entry.usable()) return Await(entry);
  auto wait = std::make_shared<ModelWait>();
  wait->End(nullptr, std::nullopt);
  return wait;
}

std::shared_ptr<ModelWait> ModelRegistry::Unload(std::string_view name) {
  const std::lock_guard lock(mutex_);
  Entry& entry = Find(name);
  if (closed_) throw ShuttingDown();
  auto wait = std::make_shared<ModelWait>();
  if (entry.status.state == State::kUnloaded || entry.status.state == State::kFailed) {
    wait->End(nullptr, std::nullopt);
    return wait;
  }
  if (!entry.leaving) entry.leaving = Cause::kOperator;
  std::erase_if(entry.unload_waits, [](const auto& other) { return other.expired(); });
  entry.unload_waits.push_back(wait);
  changed_.notify_all();
  return wait;
}

std::vector<std::shared_ptr<ServedModel>> ModelRegistry::Ready() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<ServedModel>> ready;
  for (const auto& entry : entries_) {
    if (entry->model != nullptr) ready.push_back(MakeLease(*entry, false));
  }
  return ready;
}

ModelRegistry::Status ModelRegistry::StatusOf(const Entry& entry) const {
  Status status = entry.status;
  if (status.state == State::kReady && entry.leaving) status.state = State::kUnloading;
  status.in_use = entry.leases;
  status.waiting = entry.waiting();
  if (entry.model != nullptr) status.device_in_service = entry.model->device_in_service();
  return status;
}

std::vector<ModelRegistry::Status> ModelRegistry::Statuses() const {
  const std::lock_guard lock(mutex_);
  std::vector<Status> statuses;
  for (const auto& entry : entries_) statuses.push_back(StatusOf(*entry));
  return statuses;
}

ModelRegistry::Status ModelRegistry::StatusOf(std::string_view name) const {
  const std::lock_guard lock(mutex_);
  return StatusOf(Find(name));
}

bool ModelRegistry::started() const {
  const std::lock_guard lock(mutex_);
  return all_started_;
}

void ModelRegistry::BeginDrain() {
  const std::lock_guard lock(mutex_);
  draining_ = true;
}

// The own thread: what is to go goes before anything new comes.
void ModelRegistry::Run() {
  Lock lock(mutex_);
  LoadAtStart(lock);
  while (!stopping_) {
    if (UnloadOne(lock) || Advance(lock)) continue;
    changed_.wait_until(lock, NextDeadline());
  }
}

// A drain ends it: what has not been loaded then comes only for who waits for it.
void ModelRegistry::LoadAtStart(Lock& lock) {
  for (const auto& entry : entries_) {
    if (stopping_) return;
    if (limits_.memory_bytes > 0 || !entry->starting) Inspect(lock, *entry);
    if (!entry->starting) continue;
    if (draining_) {
      LeaveUnloaded(lock, *entry);
    } else if (Fits(*entry)) {
      LoadEntry(lock, *entry);
    } else if (!CanFit(*entry)) {
      FailEntry(lock, *entry, TooLarge(*entry));
    } else {
      LogInfo("model " + entry->status.name + " is left for its first request: it needs about " +
              Mebibytes(entry->memory_bytes()) + " MiB beside the loaded models");
      LeaveUnloaded(lock, *entry);
    }
    if (entry->status.state == State::kFailed) return TellStarted(lock, entry->status.error);
    entry->starting = false;
    if (entry->model == nullptr && entry->waiting() > 0) Want(*entry);
  }
  if (draining_) return;
  all_started_ = true;
  TellStarted(lock, "");
}

void ModelRegistry::TellStarted(Lock& lock, const std::string& error) {
  lock.unlock();
  on_started_(error.empty(), error);
  lock.lock();
}

// What the file says. One that cannot be read is told now, and tried again when it is wanted.
void ModelRegistry::Inspect(Lock& lock, Entry& entry) {
  if (entry.status.facts) return;
  lock.unlock();
  std::optional<ModelFacts> facts;
  try {
    facts = source_.Inspect(entry.index);
  } catch (const std::exception& error) {
    LogWarning("model " + entry.status.name + " cannot be read now: " + error.what());
  }
  lock.lock();
  entry.status.facts = std::move(facts);
}

// The first that is wanted and does not have to go first.
ModelRegistry::Entry* ModelRegistry::NextWanted() const {
  const auto next = std::find_if(queue_.begin(), queue_.end(),
                                 [](const Entry* entry) { return !entry->leaving; });
  return next == queue_.end() ? nullptr : *next;
}

void ModelRegistry::TakeFromQueue(Entry& entry) {
  entry.wanted = false;
  std::erase(queue_, &entry);
}

// Takes the next step towards a model that is wanted. False when there is nothing to do but wait.
bool ModelRegistry::Advance(Lock& lock) {
  Entry* const entry = NextWanted();
  if (entry == nullptr) return false;
  if (entry->usable()) {
    TakeFromQueue(*entry);
    FinishLoadWaits(lock, *entry, std::nullopt);
    return true;
  }
  if (entry->waiting() == 0) {  // all have gone
    TakeFromQueue(*entry);
    return true;
  }
  if (limits_.memory_bytes > 0 && !entry->status.facts) Inspect(lock, *entry);
  if (Fits(*entry)) {
    TakeFromQueue(*entry);
    LoadEntry(lock, *entry);
    return true;
  }
  if (!CanFit(*entry)) {
    TakeFromQueue(*entry);
    FailEntry(lock, *entry, TooLarge(*entry));
    return true;
  }
  return AskToLeave(*entry);
}

// One that is to go and that nobody uses: asked for, idle, or in the way of the next load.
bool ModelRegistry::UnloadOne(Lock& lock) {
  const auto now = Clock::now();
  for (const auto& entry : entries_) {
    if (entry->model == nullptr || entry->leases > 0) continue;
    const bool idle = entry->idle_seconds() > 0 && entry->waiting() == 0 &&
                      now >= entry->last_used + Seconds(entry->idle_seconds());
    if (!entry->leaving && !idle) continue;
    UnloadEntry(lock, *entry, entry->leaving.value_or(Cause::kIdle));
    return true;
  }
  const Entry* const next = NextWanted();
  const bool makes_room = next != nullptr && !next->usable() && !Fits(*next) && CanFit(*next);
  if (!makes_room && !OverLimit()) return false;
  Entry* const victim = LeastRecentlyUsed(false);
  if (victim == nullptr) return false;
  UnloadEntry(lock, *victim, Cause::kMemory);
  return true;
}

bool ModelRegistry::Fits(const Entry& entry) const {
  return limits_.memory_bytes == 0 || MemoryUsed() + entry.memory_bytes() <= limits_.memory_bytes;
}

// Whether it fits when all that may go has gone.
bool ModelRegistry::CanFit(const Entry& entry) const {
  uint64_t pinned = 0;
  for (const auto& other : entries_) {
    if (other->model != nullptr && other->status.policy.pinned) pinned += other->memory_bytes();
  }
  return limits_.memory_bytes == 0 || pinned + entry.memory_bytes() <= limits_.memory_bytes;
}

std::string ModelRegistry::TooLarge(const Entry& entry) const {
  return "it needs about " + Mebibytes(entry.memory_bytes()) + " MiB, but server.model_memory is " +
         Mebibytes(limits_.memory_bytes) + " MiB for it and the pinned models together.";
}

uint64_t ModelRegistry::MemoryUsed() const {
  uint64_t used = 0;
  for (const auto& entry : entries_) {
    if (entry->model != nullptr) used += entry->memory_bytes();
  }
  return used;
}

// A model may turn out larger than was estimated. The last one stays.
bool ModelRegistry::OverLimit() const {
  const auto loaded = std::count_if(entries_.begin(), entries_.end(),
                                    [](const auto& entry) { return entry->model != nullptr; });
  return limits_.memory_bytes > 0 && loaded > 1 && MemoryUsed() > limits_.memory_bytes;
}

// Of those that may be unloaded to make room, or nullptr.
ModelRegistry::Entry* ModelRegistry::LeastRecentlyUsed(bool busy) const {
  Entry* oldest = nullptr;
  for (const auto& entry : entries_) {
    if (!entry->usable() || entry->status.policy.pinned || (entry->leases > 0) != busy) continue;
    if (oldest == nullptr || entry->last_used < oldest->last_used) oldest = entry.get();
  }
  return oldest;
}

Clock::time_point ModelRegistry::PatienceEnd(const Entry& waiting, const Entry& victim) const {
  return waiting.wanted_since +
         Seconds(std::max(kPatience, kPatiencePerLoadSecond * victim.status.load_seconds));
}

// After a while of waiting: the busy models in the way take no new requests. True when one more was
// asked. REQUIRES: no idle one can go.
bool ModelRegistry::AskToLeave(const Entry& waiting) {
  uint64_t staying = waiting.memory_bytes();
  for (const auto& entry : entries_) {
    if (entry->model != nullptr && !entry->leaving) staying += entry->memory_bytes();
  }
  Entry* const victim = LeastRecentlyUsed(true);
  if (staying <= limits_.memory_bytes || victim == nullptr ||
      Clock::now() < PatienceEnd(waiting, *victim)) {
    return false;
  }
  victim->leaving = Cause::kMemory;
  return true;
}

Clock::time_point ModelRegistry::NextDeadline() const {
  auto next = Clock::now() + Seconds(kFarAway);
  for (const auto& entry : entries_) {
    if (entry->model == nullptr || entry->leases > 0 || entry->idle_seconds() <= 0) continue;
    next = std::min(next, entry->last_used + Seconds(entry->idle_seconds()));
  }
  const Entry* const waiting = NextWanted();
  const Entry* const victim = waiting == nullptr ? nullptr : LeastRecentlyUsed(true);
  // Also to see that those who waited have gone.
  if (waiting != nullptr) next = std::min(next, Clock::now() + Seconds(kPatience));
  if (victim != nullptr) next = std::min(next, PatienceEnd(*waiting, *victim));
  return std::max(next, Clock::now() + std::chrono::milliseconds(1));
}

void ModelRegistry::SetProgress(Entry& entry, double fraction) {
  constexpr double kLogStep = 0.25;
  const Lock lock(mutex_);
  if (stopping_ || closed_ || (draining_ && entry.waiting() == 0)) throw LoadAborted();
  if (std::floor(fraction / kLogStep) > std::floor(entry.status.progress / kLogStep) &&
      fraction < 1) {
    LogInfo("model " + entry.status.name + ": " + std::to_string(static_cast<int>(fraction * 100)) +
            " % loaded");
  }
  entry.status.progress = fraction;
}

// Without the lock while it loads.
void ModelRegistry::LoadEntry(Lock& lock, Entry& entry) {
  entry.status.state = State::kLoading;
  entry.status.progress = 0;
  entry.status.error.clear();
  entry.load_begin = Clock::now();
  std::optional<ModelSource::Loaded> loaded;
  std::string error;
  bool aborted = false;
  lock.unlock();
  try {
    loaded = source_.Load(entry.index, [&](double fraction) { SetProgress(entry, fraction); });
  } catch (const LoadAborted&) {
    aborted = true;
  } catch (const std::bad_alloc&) {
    error = "there is not enough memory to load it with its KV pool.";
  } catch (const std::exception& thrown) {
    error = thrown.what();
  }
  if (loaded && Closed()) source_.Unload(entry.index, std::exchange(loaded->model, nullptr));
  lock.lock();
  if (aborted || (loaded && loaded->model == nullptr)) {
    FinishLoadWaits(lock, entry, ShuttingDown());
    return LeaveUnloaded(lock, entry);
  }
  if (!loaded) return FailEntry(lock, entry, error);
  entry.model = std::move(loaded->model);
  entry.status.facts = std::move(loaded->facts);
  entry.status.load_phases = std::move(loaded->phases);
  entry.status.state = State::kReady;
  entry.status.progress = 1;
  entry.status.load_seconds = fabric::SecondsSince(entry.load_begin);
  ++entry.status.loads;
  entry.failures = 0;
  entry.last_used = Clock::now();
  FinishLoadWaits(lock, entry, std::nullopt);
}

bool ModelRegistry::Closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

void ModelRegistry::FailEntry(Lock& lock, Entry& entry, const std::string& error) {
  const double pause = std::min(kLongestPause, kFirstPause * std::exp2(entry.failures));
  ++entry.failures;
  ++entry.status.failed_loads;
  entry.status.state = State::kFailed;
  entry.status.error = error;
  entry.retry_at = Clock::now() + Seconds(pause);
  entry.leaving.reset();
  LogError("model " + entry.status.name + ": " + error);
  FinishLoadWaits(lock, entry, LoadFailed(entry));
  FinishUnloadWaits(lock, entry);
}

ApiError ModelRegistry::LoadFailed(const Entry& entry) const {
  const double pause = std::chrono::duration<double>(entry.retry_at - Clock::now()).count();
  return ModelLoadFailed(entry.status.name, entry.status.error,
                         std::max(1, static_cast<int>(std::ceil(pause))));
}

// Tells all who wait how the load went; on success each of them holds the model. That is no use of
// it yet: the last of these leases may end here, after the model was used.
void ModelRegistry::FinishLoadWaits(Lock& lock, Entry& entry,
                                    const std::optional<ApiError>& error) {
  std::vector<std::pair<std::shared_ptr<ModelWait>, std::shared_ptr<ServedModel>>> told;
  for (const auto& weak : std::exchange(entry.load_waits, {})) {
    if (auto wait = weak.lock()) {
      told.emplace_back(std::move(wait), error ? nullptr : MakeLease(entry, false));
    }
  }
  lock.unlock();
  for (auto& [wait, lease] : told) wait->End(std::move(lease), error);
  told.clear();
  lock.lock();
}

// Without the lock while it unloads. REQUIRES: no leases, or the registry is closed.
void ModelRegistry::UnloadEntry(Lock& lock, Entry& entry, Cause cause) {
  entry.status.state = State::kUnloading;
  std::shared_ptr<ServedModel> model = std::exchange(entry.model, nullptr);
  LogInfo("unloading model " + entry.status.name + ": " + std::string(CauseText(cause)));
  lock.unlock();
  source_.Unload(entry.index, std::move(model));
  lock.lock();
  entry.status.state = State::kUnloaded;
  entry.status.progress = 0;
  entry.leaving.reset();
  ++entry.status.unloads[static_cast<size_t>(cause)];
  FinishUnloadWaits(lock, entry);
}

// A load that did not come to be; it has done what an unload asked for meanwhile.
void ModelRegistry::LeaveUnloaded(Lock& lock, Entry& entry) {
  entry.status.state = State::kUnloaded;
  entry.leaving.reset();
  FinishUnloadWaits(lock, entry);
}

void ModelRegistry::FinishUnloadWaits(Lock& lock, Entry& entry) {
  const auto waits = std::exchange(entry.unload_waits, {});
  lock.unlock();
  for (const auto& weak : waits) {
    if (const auto wait = weak.lock()) wait->End(nullptr, std::nullopt);
  }
  lock.lock();
}

void ModelRegistry::Cut() {
  Lock lock(mutex_);
  closed_ = true;
  queue_.clear();
  for (const auto& entry : entries_) {
    entry->wanted = false;
    FinishLoadWaits(lock, *entry, ShuttingDown());
    if (entry->model != nullptr) UnloadEntry(lock, *entry, Cause::kShutdown);
  }
}

void ModelRegistry::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    closed_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
  Cut();
}

}  // namespace server
