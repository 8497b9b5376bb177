#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "server/model_source.h"

namespace server {

// A model that only says whether it is loaded.
class ScriptedModel : public ServedModel {
 public:
  explicit ScriptedModel(std::string name) : name_(std::move(name)) {}

  const std::string& name() const override { return name_; }
  uint32_t context_length() const override { return 1; }
  const engine::text::Tokenizer& tokenizer() const override {
    throw std::logic_error("a scripted model has no tokenizer");
  }
  const engine::text::ChatTemplate* chat_template() const override { return nullptr; }
  scheduler::AdmitResult Submit(scheduler::Request) override {
    return scheduler::AdmitResult::kDraining;
  }
  void Cancel(scheduler::RequestId) override {}
  void CancelChoice(scheduler::RequestId, uint32_t, scheduler::FinishReason) override {}

  std::atomic<bool> loaded{true};

 private:
  std::string name_;
};

// Models of a given size whose loads wait, progress and fail as they are told to.
class ScriptedSource : public ModelSource {
 public:
  explicit ScriptedSource(std::vector<uint64_t> bytes) : bytes_(std::move(bytes)) {}

  ModelFacts Inspect(size_t model) override {
    ModelFacts facts;
    facts.architecture = "scripted";
    facts.memory_bytes = bytes_[model];
    return facts;
  }

  Loaded Load(size_t model, const std::function<void(double)>& progress) override {
    std::unique_lock lock(mutex_);
    ++loads_;
    loading_ = true;
    changed_.notify_all();
    // As a real load: it says how far it is now and then, and may be told to end.
    while (closed_) {
      lock.unlock();
      try {
        progress(0.5);
      } catch (...) {
        lock.lock();
        loading_ = false;
        throw;
      }
      lock.lock();
      changed_.wait_for(lock, std::chrono::milliseconds(2));
    }
    loading_ = false;
    if (failures_ > 0) {
      --failures_;
      throw std::runtime_error("the file is broken");
    }
    held_bytes_ += bytes_[model];
    most_bytes_ = std::max(most_bytes_, held_bytes_);
    Loaded loaded;
    loaded.model = std::make_shared<ScriptedModel>("m" + std::to_string(model));
    loaded.facts.memory_bytes = bytes_[model];
    return loaded;
  }

  void Unload(size_t model, std::shared_ptr<ServedModel> loaded) override {
    dynamic_cast<ScriptedModel&>(*loaded).loaded = false;
    const std::lock_guard lock(mutex_);
    unloaded_.push_back(model);
    held_bytes_ -= bytes_[model];
    // The registry's was the last reference: nobody else still uses what goes now.
    if (loaded.use_count() != 1 && !cutting_) ++raced_;
  }

  // Loads wait while the gate is closed.
  void CloseGate() { SetClosed(true); }
  void OpenGate() { SetClosed(false); }
  void AwaitLoading() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return loading_; });
  }
  void FailNext(int loads) {
    const std::lock_guard lock(mutex_);
    failures_ = loads;
  }
  // From now on models are cut off from their users.
  void ExpectCut() {
    const std::lock_guard lock(mutex_);
    cutting_ = true;
  }

  int loads() const { return Locked(loads_); }
  int raced() const { return Locked(raced_); }  // models that were unloaded while in use
  uint64_t most_bytes() const { return Locked(most_bytes_); }  // loaded at the same time
  uint64_t held_bytes() const { return Locked(held_bytes_); }
  std::vector<size_t> unloaded() const { return Locked(unloaded_); }

 private:
  template <typename T>
  T Locked(const T& value) const {
    const std::lock_guard lock(mutex_);
    return value;
  }
  void SetClosed(bool closed) {
    const std::lock_guard lock(mutex_);
    closed_ = closed;
    changed_.notify_all();
  }

  const std::vector<uint64_t> bytes_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  bool loading_ = false;
  bool cutting_ = false;
  int loads_ = 0;
  int raced_ = 0;
  int failures_ = 0;
  uint64_t held_bytes_ = 0;
  uint64_t most_bytes_ = 0;
  std::vector<size_t> unloaded_;
};

}  // namespace server
