#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/model_runtime.h"
#include "scheduler/step_runner.h"

namespace scheduler {

// An engine without a model: its KV cache holds token ids, its logits are a hash of what the cache
// reads back, and it fails where it is told to.
class FakeRunner : public StepRunner {
 public:
  static constexpr uint32_t kVocabulary = 64;
  static constexpr uint32_t kHidden = 4;

  struct Options {
    uint32_t kv_blocks = 256;
    uint32_t block_size = 4;
    uint32_t context_length = 128;
    bool gives_candidates = false;
    engine::AttentionWindow window = {};
    // After one in so many texts it says something else than the fake with 0: a model that is
    // nearly the same. Steps of its first layers differ so after one in three.
    uint32_t noise = 0;
  };

  // What may be made to happen. Written before the runner is used, but for the gate.
  struct Faults {
    engine::TokenId non_finite_token = -1;  // a row with it gets RowStatus::kNonFinite
    engine::TokenId device_fault_token = -1;
    engine::TokenId nan_logits_token = -1;  // a row with it gets NaN logits and status kOk
    engine::TokenId throwing_token = -1;    // a batch with it makes Step() throw
    engine::TokenId silent_token = -1;      // a row with it gets no logits
    bool drafts_fail = false;               // rows that want several logits get kNonFinite
  };

  explicit FakeRunner(Options options);

  engine::StepOutput Step(const engine::Batch& batch) override;
  void CopyBlock(engine::BlockId from, engine::BlockId to) override;
  void SaveBlock(engine::BlockId block, std::byte* out) override;
  void LoadBlock(const std::byte* bytes, engine::BlockId block) override;
  void SwapOut(engine::BlockId from, uint32_t slot) override;
  void SwapIn(uint32_t slot, engine::BlockId to) override;
  const engine::KvGeometry& kv_geometry() const override { return geometry_; }
  bool gives_candidates() const override { return options_.gives_candidates; }
  uint32_t kv_blocks() const override { return options_.kv_blocks; }
  uint32_t context_length() const override { return options_.context_length; }
  uint32_t vocabulary() const override { return kVocabulary; }
  fabric::DeviceCounters Counters() const noexcept override { return {}; }

  // While closed, steps wait before they compute. The gate closes itself in front of `step`, the
  // first being 0. Call it before the requests that it is meant for.
  void CloseGateBefore(uint64_t step);
  void OpenGate();
  // True when a step stands at the closed gate, false when none came within a minute.
  bool AwaitStepAtGate();

  Faults faults;
  std::atomic<uint64_t> steps{0};
  std::atomic<uint64_t> copies{0};
  std::atomic<uint64_t> swaps{0};  // blocks that came back from host memory
  // Called at the start of each step with the rows' sizes, on the engine thread.
  std::function<void(const engine::Batch&)> on_step;

 private:
  void PassGate();
  std::vector<engine::TokenId> WriteAndRead(const engine::BatchRow& row, size_t tokens);
  void GiveHidden(const engine::BatchRow& row, size_t index);
  static void Logits(const std::vector<engine::TokenId>& prefix, uint32_t noise,
                     std::vector<float>* logits);

  Options options_;
  engine::KvGeometry geometry_;
  std::vector<std::vector<engine::TokenId>> kv_;
  std::map<uint32_t, std::vector<engine::TokenId>> swapped_;  // by slot
  std::vector<engine::RowOutput> outputs_;
  std::vector<std::vector<engine::Candidate>> candidates_;  // parallel; what outputs_ shows
  std::vector<std::vector<float>> hidden_;                  // by row of the step

  std::mutex mutex_;
  std::condition_variable changed_;
  bool closed_ = false;
  uint64_t closes_before_ = UINT64_MAX;
};

// A runtime around a FakeRunner, with the runner in hand.
struct FakeRuntime {
  explicit FakeRuntime(const SchedulerOptions& scheduler = {}, FakeRunner::Options runner = {},
                       std::optional<FakeRunner::Options> draft = {});
  FakeRunner* runner;                  // owned by the runtime
  FakeRunner* draft_runner = nullptr;  // of a draft model
  std::shared_ptr<ModelRuntime> runtime;
};

// Collects a request's events; any thread may wait for its end.
class RecordingSink : public TokenSink {
 public:
  explicit RecordingSink(uint32_t choices) : choices_(choices) {}

  void OnEvent(TokenEvent event) noexcept override;

  // False after a minute, which a test must treat as a failure: the machine may be slow, but not
  // that slow.
  bool AwaitEnd();
  // Until at least `count` events are there.
  bool AwaitEvents(size_t count);
  bool ended() const;

  std::vector<TokenEvent> events() const;
  std::vector<engine::TokenId> tokens(uint32_t choice = 0) const;
  // The only finished event of a choice; a test failure when there is not exactly one.
  TokenEvent end(uint32_t choice = 0) const;

 private:
  const uint32_t choices_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<TokenEvent> events_;
  uint32_t ends_ = 0;
};

// A greedy request with a sink of its own.
std::pair<Request, std::shared_ptr<RecordingSink>> RecordedRequest(
    std::vector<engine::TokenId> prompt, uint32_t max_tokens, uint32_t choices = 1);

}  // namespace scheduler
