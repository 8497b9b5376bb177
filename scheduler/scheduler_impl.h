#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <unordered_map>
#include <vector>

#include "scheduler/block_tables.h"
#include "scheduler/drafting.h"
#include "scheduler/fair_queue.h"
#include "scheduler/scheduler.h"

namespace scheduler {

// The scheduler's state, shared by the files that implement it: scheduler.cpp moves sequences
// between states, scheduler_plan.cpp decides steps, scheduler_integrity.cpp checks.
struct Scheduler::Impl {
  // What the choices of a request have in common.
  struct Group {
    RequestId id = 0;
    std::vector<uint64_t> live;  // unfinished sequences, in order of choice
    uint32_t prompt_tokens = 0;
    uint32_t prompt_counted = 0;  // prompt positions that stats.prompt_tokens has counted
    uint32_t cached_tokens = 0;   // of the prompt, found when the first choice started
    bool queued = true;           // no choice has been in a step yet
    uint64_t queued_tokens = 0;
    double arrival = 0;
    bool forced = false;
    bool embeds = false;  // ends with its prompt, without a token of its own
    // Needs the output of every prompt position, so none from the cache.
    bool scores_prompt = false;
    std::vector<engine::TokenId> stop_tokens;  // ascending
    std::string tenant;

    // All but the last prompt token: what a sibling takes over. It computes the last one itself,
    // because that row's logits give its first token.
    uint32_t shared_tokens() const { return prompt_tokens - 1; }
  };

  struct Entry {
    Sequence sequence;
    DraftControl drafting;
    Group* group = nullptr;
  };

  // What a waiting sequence does about its prompt.
  enum class PromptSource : uint8_t { kOwn, kSibling, kWaitForSibling };

  Impl(const SchedulerOptions& scheduler_options, const engine::KvGeometry& geometry,
       uint32_t kv_blocks, uint32_t context, const SipKey& cache_key);

  AdmitResult Add(const Request& request, double now);
  void Cancel(RequestId request, FinishReason reason, const std::string& error);
  void CancelChoice(RequestId request, uint32_t choice, FinishReason reason);
  StepPlan Plan(double now);
  void Commit(const StepPlan& plan, const StepResult& result);
  SchedulerStats Stats() const;
  void CheckIntegrity() const;

  // Planning.
  void ExpireQueue(double now);
  void ScheduleRunning(StepPlan* plan, uint32_t* budget);
  void AdmitWaiting(StepPlan* plan, uint32_t* budget, double now);
  void LengthenChunks(StepPlan* plan, uint32_t* budget);
  Entry* NextWaiting(const Entry** donor);
  PromptSource FindPrompt(Entry& entry, const Entry** donor);
  bool TakeBlocks(Entry& entry, const Entry* donor, StepPlan* plan);
  void TakePrefix(Entry& entry, const Entry* donor, bool whole_blocks_only);
  bool Reserve(Entry& entry, uint32_t end, StepPlan* plan);
  bool MakeRoom(const Entry& head, uint32_t blocks);
  uint64_t PromisedBlocks() const;
  void AddRow(const Entry& entry, uint32_t count, StepPlan* plan);
  void AddDrafts(StepPlan* plan, uint32_t budget);
  void AddDraft(PlannedRow& row, uint32_t most, StepPlan* plan);
  bool drafts_with_model() const {
    return options.speculation == Speculation::kSelf || options.speculation == Speculation::kModel;
  }

  // Moving sequences between states.
  AdmitResult CheckBounds(const Request& request) const;
  void FillGroup(const Request& request, double now, Group* group) const;
  void AddChoice(const Request& request, uint32_t choice, double now, Group* group);
  void TakeBack(RequestId request);
  Rank RankOf(const Sequence& sequence) const;
  void Start(Entry& entry, double now);
  void CountStart(Entry& entry);
  void Preempt(Entry& entry, StepPlan* plan);
  bool DropIdleBlocks(const Entry* keep);
  void HandOnPrompt(const Entry& leaver);
  // Room in `finished` for every sequence: Finish() must not ask for memory half-way. Whoever takes
  // the list takes the room too.
  void ReserveEndings();
  void Finish(Entry& entry, FinishReason reason, std::string error);
  void LeaveQueue(Group& group);
  void CommitRow(const PlannedRow& row, const RowResult& result);
  void CommitDraft(Entry& entry, const PlannedRow& row, std::span<const engine::TokenId> accepted);
  void CountPrompt(Group& group, uint32_t computed);

  // Positions for which a sequence needs blocks before it starts: the next token's too.
  static uint32_t NeededPositions(const Entry& entry) {
    return static_cast<uint32_t>(entry.sequence.tokens.size()) + (entry.group->embeds ? 0 : 1);
  }
  // Tokens that a sequence has but whose K and V it has not.
  static uint32_t Pending(const Sequence& sequence) {
    return static_cast<uint32_t>(sequence.tokens.size()) - sequence.num_computed;
  }

  SchedulerOptions options;
  uint32_t context_length;
  // The model keeps a state at a sequence's last position: choices share no prompt, and nothing is
  // taken from a cache or from host memory.
  bool recurrent;
  std::vector<uint32_t> free_state_slots;
  BlockTables tables;
  std::unordered_map<RequestId, Group> groups;
  std::unordered_map<uint64_t, Entry> entries;
  std::vector<Entry*> running;  // ascending rank
  FairQueue waiting;
  std::deque<RequestId> by_arrival;  // candidates for the queue deadline
  std::vector<Finished> finished;
  std::vector<uint64_t> finished_ids;  // parallel to `finished`
  uint64_t next_id = 1;
  uint32_t queued_requests = 0;
  uint64_t queued_tokens = 0;
  std::unordered_map<std::string, uint32_t> queued_of_key;  // requests; absent = 0
  SchedulerStats counters;                                  // cumulative fields only
  double guess_cost = 0;  // of a drafted token, in steps: moving mean
};

}  // namespace scheduler
