#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "server/api_error.h"
#include "server/http_types.h"
#include "server/model_source.h"
#include "server/served_model.h"
#include "server/server_options.h"
#include "server/wake_source.h"

namespace server {

struct ModelLimits {
  uint64_t memory_bytes = 0;   // of the loaded models together; 0 = no limit
  uint32_t max_waiting = 128;  // requests that wait for one model
};

// Waiting for a model to be loaded, or to be unloaded.
//
// Threads: any.
class ModelWait : public WakeSource {
 public:
  bool ready() const override;
  void SetNotify(std::function<void()> notify) override;
  // How it ended: throws the ApiError when it failed. REQUIRES: ready().
  void Check() const;

 private:
  friend class ModelRegistry;
  void End(std::shared_ptr<ServedModel> model, std::optional<ApiError> error);

  mutable std::mutex mutex_;
  bool ready_ = false;
  std::optional<ApiError> error_;
  std::shared_ptr<ServedModel> model_;  // stays loaded while the waiter holds this
  std::function<void()> notify_;
};

// Thrown by ModelRegistry::Get() for a model that is on its way: whoever can wait does, and then
// asks again.
class ModelNotLoaded : public std::exception {
 public:
  ModelNotLoaded(std::string model, std::shared_ptr<ModelWait> wait)
      : model_(std::move(model)), wait_(std::move(wait)) {}
  const char* what() const noexcept override { return "the model is not loaded"; }
  const std::string& model() const { return model_; }
  const std::shared_ptr<ModelWait>& wait() const { return wait_; }

 private:
  std::string model_;
  std::shared_ptr<ModelWait> wait_;
};

// The models by name, in the order of the command line; the first is the default. A thread of its
// own loads and unloads them, one at a time: at the start, for a request, for an operator, after
// idleness, and the least recently used ones to make room.
//
// Leases:  a model is handed out as a shared_ptr that is counted. While one is held the model is
//          not unloaded; a model that is to go takes no new requests and goes with the last lease.
// Room:    a load that does not fit unloads idle models that are not pinned. When that is not
//          enough for some time, busy ones get no new requests, so that a model in steady use
//          cannot keep another out for ever.
// Failure: a load that failed is tried again by the first request after a pause that doubles, from
//          1 s to 60 s.
// Threads: any. Outlives its leases and waits.
class ModelRegistry {
 public:
  enum class State { kUnloaded, kLoading, kReady, kUnloading, kFailed };
  enum class Cause { kIdle, kMemory, kOperator, kShutdown };
  static constexpr size_t kCauses = 4;

  struct Status {
    std::string name;
    State state = State::kUnloaded;
    double progress = 0;  // 0..1
    std::string error;    // kFailed
    ModelPolicy policy;
    std::optional<ModelFacts> facts;  // once the file has been read
    uint32_t in_use = 0;              // leases
    uint32_t waiting = 0;             // requests that wait for it
    uint64_t loads = 0;
    uint64_t failed_loads = 0;
    uint64_t unloads[kCauses] = {};
    double load_seconds = 0;                     // the last load
    std::vector<engine::LoadPhase> load_phases;  // of it
    bool device_in_service = true;
  };
  struct Named {
    std::string name;
    ModelPolicy policy;
  };

  // Names are unique. source: its index is the place in `models`; outlives the registry.
  ModelRegistry(const std::vector<Named>& models, ModelLimits limits, ModelSource& source);
  // As Stop().
  ~ModelRegistry();
  ModelRegistry(const ModelRegistry&) = delete;
  ModelRegistry& operator=(const ModelRegistry&) = delete;

  // Begins to load what is not lazy. Until it is loaded Get() throws model_loading. started: called
  // once on the own thread, when all are loaded or with the sentence of the first that failed;
  // not when the registry is stopped before.
  using Started = std::function<void(bool ok, const std::string& error)>;
  void Start(Started started);

  // A lease. Empty name = the default. Throws ModelNotLoaded, and ApiError: model_not_found,
  // model_loading (at the start), model_load_failed, server_is_overloaded (too many wait),
  // shutting_down.
  std::shared_ptr<ServedModel> Get(std::string_view name);
  // Leases of those that are loaded. They do not count as use.
  std::vector<std::shared_ptr<ServedModel>> Ready();
  std::vector<Status> Statuses() const;
  // Throws ApiError model_not_found.
  Status StatusOf(std::string_view name) const;
  // Whether all models of the start are loaded.
  bool started() const;
  uint64_t memory_limit() const { return limits_.memory_bytes; }

  // For operators; the pause after a failure does not hold. Unload() takes effect when no request
  // uses the model any more. Throw ApiError model_not_found, shutting_down.
  std::shared_ptr<ModelWait> Load(std::string_view name);
  std::shared_ptr<ModelWait> Unload(std::string_view name);

  // A load that nobody waits for is given up.
  void BeginDrain();
  // Ends all waiting with shutting_down and unloads all models, leases or not.
  void Cut();
  // Cut(), and the thread has ended.
  void Stop();

 private:
  struct Entry;
  class Lease;
  using Lock = std::unique_lock<std::mutex>;

  void Run();
  void LoadAtStart(Lock& lock);
  void TellStarted(Lock& lock, const std::string& error);
  bool Advance(Lock& lock);
  bool UnloadOne(Lock& lock);
  void Inspect(Lock& lock, Entry& entry);
  void LoadEntry(Lock& lock, Entry& entry);
  void UnloadEntry(Lock& lock, Entry& entry, Cause cause);
  void FailEntry(Lock& lock, Entry& entry, const std::string& error);
  void FinishLoadWaits(Lock& lock, Entry& entry, const std::optional<ApiError>& error);
  void LeaveUnloaded(Lock& lock, Entry& entry);
  void FinishUnloadWaits(Lock& lock, Entry& entry);
  void SetProgress(Entry& entry, double fraction);
  void Release(Entry& entry, bool used);
  bool Closed() const;

  // REQUIRE: the mutex is held.
  Entry& Find(std::string_view name) const;
  std::shared_ptr<ServedModel> MakeLease(Entry& entry, bool uses);
  std::shared_ptr<ModelWait> Await(Entry& entry);
  void Want(Entry& entry);
  Entry* NextWanted() const;
  void TakeFromQueue(Entry& entry);
  bool Fits(const Entry& entry) const;
  bool CanFit(const Entry& entry) const;
  bool OverLimit() const;
  bool AskToLeave(const Entry& waiting);
  uint64_t MemoryUsed() const;
  Entry* LeastRecentlyUsed(bool busy) const;
  Clock::time_point PatienceEnd(const Entry& waiting, const Entry& victim) const;
  Clock::time_point NextDeadline() const;
  std::string TooLarge(const Entry& entry) const;
  Status StatusOf(const Entry& entry) const;
  ApiError LoadFailed(const Entry& entry) const;
  int LoadSecondsLeft(const Entry& entry) const;

  const ModelLimits limits_;
  ModelSource& source_;
  std::vector<std::unique_ptr<Entry>> entries_;  // the vector does not change
  std::thread thread_;
  Started on_started_;

  mutable std::mutex mutex_;  // of all that follows and of the entries
  std::condition_variable changed_;
  std::deque<Entry*> queue_;  // wanted, in order
  bool all_started_ = false;
  bool draining_ = false;
  bool closed_ = false;  // nothing is handed out any more
  bool stopping_ = false;
};

// "unloaded", "loading", "loaded", "unloading", "failed".
std::string_view StateName(ModelRegistry::State state);

}  // namespace server
