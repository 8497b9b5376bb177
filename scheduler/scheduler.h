#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/batch.h"
#include "engine/kv_geometry.h"
#include "scheduler/block_move.h"
#include "scheduler/prefix_cache.h"
#include "scheduler/scheduler_options.h"
#include "scheduler/sequence.h"
#include "scheduler/siphash.h"
#include "scheduler/token_event.h"

namespace scheduler {

enum class AdmitResult : uint8_t {
  kOk,
  kQueueFull,      // too many requests or tokens wait: 503 with Retry-After
  kKeyQueueFull,   // too many requests of this API key wait: 429 with Retry-After
  kPromptTooLong,  // prompt + 1 does not fit the context
  kDraining,       // no new work is taken
};

// One row of a step: tokens [first, first + count) of a sequence, then drafted ones.
//
// Every draft is checked by the sample that the model draws at its place: while they are equal, the
// sample after it counts too. So a row accepts between one token and one more than it has drafts.
// Drafts from the text come with the plan; those of a model are put in before the step is run, up
// to draft_room, for which there are blocks.
struct PlannedRow {
  uint64_t sequence = 0;
  uint32_t first = 0;
  uint32_t count = 0;
  bool samples = false;                      // the last token's logits give the next token
  std::vector<engine::TokenId> drafts = {};  // only where count == 1 and samples
  uint32_t draft_room = 0;                   // that a model may draft
  bool never_draft = false;  // the drafting model can say nothing about the sequence
  uint32_t tokens() const { return count + static_cast<uint32_t>(drafts.size()); }
};

// What the next step does. Pointers into the scheduler stay valid until Commit().
struct StepPlan {
  std::vector<PlannedRow> rows;
  std::vector<BlockMove> moves;  // before the step, in this order
  uint32_t tokens = 0;
  bool empty() const { return rows.empty(); }
};

enum class RowOutcome : uint8_t {
  kOk,
  kFailed,
  kDropDrafts,  // failed, perhaps only because of its drafts: nothing is accepted, none come again
};

// What came of a planned row.
struct RowResult {
  RowOutcome outcome = RowOutcome::kOk;
  // In order; the first ones equal the drafts. Nothing follows a stop token or the last token that
  // is allowed. Empty for prefill chunks.
  std::vector<engine::TokenId> accepted;
  std::string error;      // kFailed: a sentence
  bool complete = false;  // nothing may follow the last token: the choice ends with kStop
};

struct StepResult {
  std::vector<RowResult> rows;  // parallel to StepPlan::rows
  // Seconds that a model took to draft one token, over those of the step that checked them; 0 =
  // nothing to tell.
  double guess_cost = 0;
};

// A sequence that ended in Commit(), Cancel() or Plan() (deadline), to be reported.
struct Finished {
  RequestId request = 0;
  uint32_t choice = 0;
  FinishReason reason = FinishReason::kStop;
  std::string error;
};

struct SchedulerStats {
  uint32_t running = 0;          // sequences
  uint32_t waiting = 0;          // sequences: in the queue, preempted, or behind a sibling's prompt
  uint32_t queued_requests = 0;  // no choice has been in a step yet; what the queue bound counts
  uint32_t waiting_tokens = 0;   // prompt tokens of queued requests, once per choice
  uint32_t kv_blocks_total = 0;
  uint32_t kv_blocks_used = 0;    // referenced
  uint32_t kv_blocks_cached = 0;  // remembered by the prefix cache alone; given away when needed
  uint32_t swap_slots_total = 0;  // blocks that host memory holds
  uint32_t swap_slots_used = 0;
  uint64_t preemptions = 0;  // swapped ones included
  uint64_t swapped_preemptions = 0;
  uint64_t prompt_tokens = 0;     // of prompts that were computed or found; each once per request
  uint64_t prefix_queries = 0;    // prompt tokens that were looked up, once per started request
  uint64_t prefix_hits = 0;       // of these, found
  uint64_t prefix_evictions = 0;  // blocks
  uint64_t generated_tokens = 0;
  uint64_t deadline_misses = 0;
  uint64_t drafts = 0;  // rows with drafted tokens
  uint64_t draft_tokens = 0;
  uint64_t accepted_draft_tokens = 0;
  uint64_t wrong_drafts = 0;  // rows of which a drafted token was wrong
  double KvUsage() const {
    return kv_blocks_total == 0
               ? 0.0
               : static_cast<double>(kv_blocks_used) / static_cast<double>(kv_blocks_total);
  }
};

// Decides what each step computes: admission, KV blocks, what the prefix cache serves, chunked
// prefill beside running decodes under one token budget, preemption when blocks run out.
//
// A pure state machine: no clock (time is an argument), no threads, no I/O, so that a seeded
// simulator can drive it.
//
// Use:      Add / Cancel any time between steps; Plan(now) -> run it -> Commit(plan, result, now).
// Threads:  one.
// Order:    running decodes first, then prefill by rank; docs/scheduling.md has the rules.
class Scheduler {
 public:
  // cache_key: of the prefix cache's hashes; secret, so that nobody can aim at a collision.
  Scheduler(const SchedulerOptions& options, const engine::KvGeometry& geometry, uint32_t kv_blocks,
            uint32_t context_length, const SipKey& cache_key = {});
  ~Scheduler();

  // Blocks that the options' host memory holds.
  static uint32_t SwapSlots(const SchedulerOptions& options, const engine::KvGeometry& geometry);

  // Adds all choices of a request. They share the prompt's KV blocks (copy-on-write). What it
  // throws (std::bad_alloc) leaves everything as it was.
  AdmitResult Add(const Request& request, double now);
  // Ends all choices of a request that have not finished; frees their blocks at once. REQUIRES: not
  // between Plan() and Commit() (the engine loop cancels between steps).
  void Cancel(RequestId request, FinishReason reason, const std::string& error = {});
  // Ends one choice (a stop string was found).
  void CancelChoice(RequestId request, uint32_t choice, FinishReason reason);

  StepPlan Plan(double now);
  void Commit(const StepPlan& plan, const StepResult& result, double now);

  // Endings since the last call, in order.
  std::vector<Finished> TakeFinished();

  // What the prefix cache knows, and putting it back; see BlockTables::Restore().
  std::vector<PrefixCache::Entry> CachedPrefixes() const;
  std::vector<std::optional<BlockId>> RestorePrefixes(
      const std::vector<PrefixCache::Entry>& entries);
  // Forgets what no sequence refers to.
  void DropCachedPrefixes();

  // nullptr when it has finished and was reported.
  const Sequence* Find(uint64_t sequence) const;
  bool idle() const;  // nothing runs or waits
  SchedulerStats stats() const;
  // Requests of each API key that no step has touched yet; keys without any are absent.
  const std::unordered_map<std::string, uint32_t>& queued_of_key() const;
  // Checks every invariant; aborts with a message. For tests and idle debug servers.
  void CheckIntegrity() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace scheduler
