#include "scheduler/scheduler.h"

#include <algorithm>
#include <cassert>
#include <cinttypes>
#include <compare>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <utility>

#include "scheduler/block_tables.h"

namespace scheduler {
namespace {

// Who goes first: the lower priority value, then who came first; siblings by choice. Ids are given
// in order of arrival and kept through preemption, so the order is total and never changes.
struct Rank {
  int32_t priority = 0;
  uint64_t id = 0;
  auto operator<=>(const Rank&) const = default;
};

Rank RankOf(const Sequence& sequence) { return {sequence.priority, sequence.id}; }

// Tokens that a sequence has but whose K and V it has not.
uint32_t Pending(const Sequence& sequence) {
  return static_cast<uint32_t>(sequence.tokens.size()) - sequence.num_computed;
}

SchedulerOptions Normalized(SchedulerOptions options) {
  options.max_batch_tokens = std::max(options.max_batch_tokens, 1U);
  options.prefill_chunk = std::clamp(options.prefill_chunk, 1U, options.max_batch_tokens);
  // A step has room for a token of every running sequence, so no decode ever waits for another.
  options.max_sequences = std::clamp(options.max_sequences, 1U, options.max_batch_tokens);
  return options;
}

[[noreturn]] void Broken(const char* what, uint64_t a, uint64_t b) {
  std::fprintf(stderr, "Scheduler: %s (%" PRIu64 ", %" PRIu64 ")\n", what, a, b);
  std::abort();
}

}  // namespace

struct Scheduler::Impl {
  // What the choices of a request have in common.
  struct Group {
    RequestId id = 0;
    std::vector<uint64_t> live;  // unfinished sequences, in order of choice
    uint32_t prompt_tokens = 0;
    uint32_t prompt_counted = 0;  // prompt positions that stats.prompt_tokens has counted
    bool queued = true;           // no choice has been in a step yet
    uint64_t queued_tokens = 0;
    double arrival = 0;
    bool forced = false;
    std::vector<engine::TokenId> stop_tokens;  // ascending
    std::string tenant;

    // All but the last prompt token: what a sibling takes over. It computes the last one itself,
    // because that row's logits give its first token.
    uint32_t shared_tokens() const { return prompt_tokens - 1; }
  };

  struct Entry {
    Sequence sequence;
    Group* group = nullptr;
  };

  // What a waiting sequence does about its prompt.
  enum class PromptSource : uint8_t { kOwn, kSibling, kWaitForSibling };

  Impl(const SchedulerOptions& scheduler_options, uint32_t block_size, uint32_t kv_blocks,
       uint32_t context)
      : options(Normalized(scheduler_options)),
        context_length(context),
        tables(kv_blocks, block_size) {
    assert(kv_blocks >= tables.BlocksFor(context));
  }

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
  bool Reserve(Entry& entry, uint32_t end, StepPlan* plan);
  bool MakeRoom(const Entry& head, uint32_t blocks);
  uint64_t PromisedBlocks() const;
  PromptSource FindPrompt(Entry& entry, const Entry** donor);
  void SharePrompt(const Entry& from, Entry& to);
  void AddRow(const Sequence& sequence, uint32_t count, StepPlan* plan);

  // Moving sequences between states.
  void Start(Entry& entry, double now);
  void Preempt(Entry& entry);
  bool DropIdleBlocks(const Entry* keep);
  void HandOnPrompt(const Entry& leaver);
  void Finish(Entry& entry, FinishReason reason, std::string error);
  void LeaveQueue(Group& group);
  void CommitRow(const PlannedRow& row, const RowResult& result);
  void CountPrompt(Group& group, uint32_t computed);

  SchedulerOptions options;
  uint32_t context_length;
  BlockTables tables;
  std::unordered_map<RequestId, Group> groups;
  std::unordered_map<uint64_t, Entry> entries;
  std::vector<Entry*> running;       // ascending rank
  std::map<Rank, Entry*> waiting;    // ascending rank
  std::deque<RequestId> by_arrival;  // candidates for the queue deadline
  std::vector<Finished> finished;
  std::vector<uint64_t> finished_ids;  // parallel to `finished`
  uint64_t next_id = 1;
  uint32_t queued_requests = 0;
  uint64_t queued_tokens = 0;
  SchedulerStats counters;  // cumulative fields only
};

AdmitResult Scheduler::Impl::Add(const Request& request, double now) {
  assert(!request.prompt.empty() && request.choices > 0 && !groups.contains(request.id));
  if (request.prompt.size() >= context_length) return AdmitResult::kPromptTooLong;
  const uint64_t tokens = uint64_t{request.prompt.size()} * request.choices;
  if (queued_requests >= options.max_queued_requests) return AdmitResult::kQueueFull;
  // One request is taken however long it is, or it could never be served.
  if (queued_requests > 0 && queued_tokens + tokens > options.max_queued_tokens) {
    return AdmitResult::kQueueFull;
  }

  Group& group = groups[request.id];
  group.id = request.id;
  group.prompt_tokens = static_cast<uint32_t>(request.prompt.size());
  group.queued_tokens = tokens;
  group.arrival = now;
  group.forced = !request.forced_tokens.empty();
  group.stop_tokens = request.stop_tokens;
  std::sort(group.stop_tokens.begin(), group.stop_tokens.end());
  group.tenant = request.tenant;
  queued_requests += 1;
  queued_tokens += tokens;
  if (options.queue_deadline_seconds > 0) by_arrival.push_back(request.id);

  const uint32_t room = context_length - group.prompt_tokens;
  const uint64_t wanted = group.forced ? request.forced_tokens.size() : request.max_tokens;
  for (uint32_t choice = 0; choice < request.choices; ++choice) {
    const uint64_t id = next_id++;
    Entry& entry = entries[id];
    entry.group = &group;
    Sequence& sequence = entry.sequence;
    sequence.id = id;
    sequence.request = request.id;
    sequence.choice = choice;
    sequence.tokens = request.prompt;
    sequence.prompt_tokens = group.prompt_tokens;
    sequence.max_tokens = wanted == 0 || wanted > room ? room : static_cast<uint32_t>(wanted);
    sequence.priority = request.priority;
    sequence.arrival = now;
    group.live.push_back(id);
    waiting.emplace(RankOf(sequence), &entry);
  }
  return AdmitResult::kOk;
}

void Scheduler::Impl::Cancel(RequestId request, FinishReason reason, const std::string& error) {
  const auto it = groups.find(request);
  if (it == groups.end()) return;
  // Backwards, so that the prompt is not handed from choice to choice. The group goes with the
  // last.
  const std::vector<uint64_t> live = it->second.live;
  for (auto id = live.rbegin(); id != live.rend(); ++id) Finish(entries.at(*id), reason, error);
}

void Scheduler::Impl::CancelChoice(RequestId request, uint32_t choice, FinishReason reason) {
  const auto it = groups.find(request);
  if (it == groups.end()) return;
  for (const uint64_t id : it->second.live) {
    Entry& entry = entries.at(id);
    if (entry.sequence.choice == choice) return Finish(entry, reason, {});
  }
}

StepPlan Scheduler::Impl::Plan(double now) {
  StepPlan plan;
  ExpireQueue(now);
  uint32_t budget = options.max_batch_tokens;
  ScheduleRunning(&plan, &budget);
  AdmitWaiting(&plan, &budget, now);
  std::stable_partition(plan.rows.begin(), plan.rows.end(),
                        [](const PlannedRow& row) { return row.count == 1 && row.samples; });
  return plan;
}

void Scheduler::Impl::ExpireQueue(double now) {
  while (!by_arrival.empty()) {
    const auto it = groups.find(by_arrival.front());
    if (it != groups.end() && it->second.queued) {
      const double waited = now - it->second.arrival;
      if (waited <= options.queue_deadline_seconds) return;
      ++counters.deadline_misses;
      char error[128];
      std::snprintf(error, sizeof error,
                    "The request waited %.1f s in the queue; the limit is %.1f s.", waited,
                    options.queue_deadline_seconds);
      Cancel(it->first, FinishReason::kError, error);
    }
    by_arrival.pop_front();
  }
}

// Gives every running sequence its share of the step. Decodes get their token off the budget first;
// blocks are given in order of rank, so that only sequences without a row yet are preempted.
void Scheduler::Impl::ScheduleRunning(StepPlan* plan, uint32_t* budget) {
  for (const Entry* entry : running) *budget -= Pending(entry->sequence) == 1 ? 1 : 0;
  for (size_t i = 0; i < running.size(); ++i) {
    Entry& entry = *running[i];
    const uint32_t pending = Pending(entry.sequence);
    const bool decode = pending == 1;
    const uint32_t count = decode ? 1 : std::min({pending, options.prefill_chunk, *budget});
    if (count == 0) continue;
    if (!Reserve(entry, entry.sequence.num_computed + count, plan)) return;
    if (!decode) *budget -= count;
    AddRow(entry.sequence, count, plan);
  }
}

// Gets the blocks for [num_computed, end), from the last in rank if none are free. False when that
// was the sequence itself.
bool Scheduler::Impl::Reserve(Entry& entry, uint32_t end, StepPlan* plan) {
  while (tables.Missing(entry.sequence, end) > tables.pool().free()) {
    if (DropIdleBlocks(nullptr)) continue;
    Entry& victim = *running.back();
    Preempt(victim);
    if (&victim == &entry) return false;
  }
  tables.Extend(entry.sequence, end, &plan->copies);
  return true;
}

// Starts waiting sequences in order of rank while there is room. The first that does not fit stops
// the rest, so that a long request is not overtaken for ever; one that waits for its sibling's
// prompt is passed over.
void Scheduler::Impl::AdmitWaiting(StepPlan* plan, uint32_t* budget, double now) {
  for (auto it = waiting.begin(); it != waiting.end();) {
    if (*budget == 0 || running.size() >= options.max_sequences) return;
    Entry& entry = *it->second;
    ++it;
    const Entry* donor = nullptr;
    const PromptSource source = FindPrompt(entry, &donor);
    if (source == PromptSource::kWaitForSibling) continue;

    Sequence& sequence = entry.sequence;
    const auto size = static_cast<uint32_t>(sequence.tokens.size());
    const uint32_t shared_blocks = donor ? entry.group->shared_tokens() / tables.block_size() : 0;
    if (!MakeRoom(entry, tables.Missing(sequence, size + 1) - shared_blocks)) return;
    if (donor) SharePrompt(*donor, entry);
    const uint32_t count = std::min({Pending(sequence), options.prefill_chunk, *budget});
    Start(entry, now);
    tables.Extend(sequence, sequence.num_computed + count, &plan->copies);
    *budget -= count;
    AddRow(sequence, count, plan);
  }
}

// Where the prompt of a waiting sequence comes from: its own computation, the blocks of a running
// sibling (*donor), or a sibling that computes it now. Blocks of a waiting sibling move here, for
// the first in rank is the one to run.
Scheduler::Impl::PromptSource Scheduler::Impl::FindPrompt(Entry& entry, const Entry** donor) {
  const uint32_t shared = entry.group->shared_tokens();
  if (entry.sequence.num_computed > 0 || shared == 0) return PromptSource::kOwn;
  bool computing = false;
  Entry* idle = nullptr;
  for (const uint64_t id : entry.group->live) {
    Entry& sibling = entries.at(id);
    const bool is_running = sibling.sequence.state == SequenceState::kRunning;
    const bool has_prompt = sibling.sequence.num_computed >= shared;
    if (has_prompt && is_running) {
      *donor = &sibling;
      return PromptSource::kSibling;
    }
    if (has_prompt) idle = &sibling;
    computing |= is_running;
  }
  if (idle != nullptr) {
    SharePrompt(*idle, entry);
    tables.Release(idle->sequence);
    return PromptSource::kOwn;
  }
  return computing ? PromptSource::kWaitForSibling : PromptSource::kOwn;
}

void Scheduler::Impl::SharePrompt(const Entry& from, Entry& to) {
  tables.Share(from.sequence, to.sequence, to.group->shared_tokens());
  to.sequence.cached_tokens = to.sequence.num_computed;
}

// True when `blocks` are free beside what the running sequences still need for the tokens they
// have. Preempts nobody: a sequence starts when it fits.
bool Scheduler::Impl::MakeRoom(const Entry& head, uint32_t blocks) {
  const uint64_t needed = PromisedBlocks() + blocks;
  while (tables.pool().free() < needed) {
    if (!DropIdleBlocks(&head)) return false;
  }
  return true;
}

uint64_t Scheduler::Impl::PromisedBlocks() const {
  uint64_t blocks = 0;
  for (const Entry* entry : running) {
    const auto size = static_cast<uint32_t>(entry->sequence.tokens.size());
    blocks += tables.Missing(entry->sequence, size + 1);
  }
  return blocks;
}

void Scheduler::Impl::AddRow(const Sequence& sequence, uint32_t count, StepPlan* plan) {
  plan->rows.push_back({.sequence = sequence.id,
                        .first = sequence.num_computed,
                        .count = count,
                        .samples = count == Pending(sequence)});
  plan->tokens += count;
}

void Scheduler::Impl::Start(Entry& entry, double now) {
  waiting.erase(RankOf(entry.sequence));
  LeaveQueue(*entry.group);
  entry.sequence.state = SequenceState::kRunning;
  if (entry.sequence.first_scheduled < 0) entry.sequence.first_scheduled = now;
  const auto place = std::upper_bound(
      running.begin(), running.end(), &entry,
      [](const Entry* a, const Entry* b) { return RankOf(a->sequence) < RankOf(b->sequence); });
  running.insert(place, &entry);
}

// Back to waiting. The generated tokens are kept, so the sequence computes prompt and generated
// tokens again and goes on with the same bits.
void Scheduler::Impl::Preempt(Entry& entry) {
  assert(running.back() == &entry);
  running.pop_back();
  tables.Release(entry.sequence);
  entry.sequence.state = SequenceState::kWaiting;
  waiting.emplace(RankOf(entry.sequence), &entry);
  ++counters.preemptions;
}

// Blocks of a waiting sequence are a cache of its prompt (see HandOnPrompt): the last in rank gives
// them up. False when there are none but those of `keep`.
bool Scheduler::Impl::DropIdleBlocks(const Entry* keep) {
  for (auto it = waiting.rbegin(); it != waiting.rend(); ++it) {
    Entry& entry = *it->second;
    if (entry.sequence.blocks.empty() || &entry == keep) continue;
    tables.Release(entry.sequence);
    return true;
  }
  return false;
}

// A sequence that ends leaves the prompt's blocks to a sibling that has yet to start, if no other
// sibling has them, so that the prompt is computed once however short the choices are.
void Scheduler::Impl::HandOnPrompt(const Entry& leaver) {
  const uint32_t shared = leaver.group->shared_tokens();
  if (shared == 0 || leaver.sequence.num_computed < shared) return;
  Entry* heir = nullptr;
  for (const uint64_t id : leaver.group->live) {
    Entry& sibling = entries.at(id);
    if (&sibling == &leaver) continue;
    if (sibling.sequence.num_computed >= shared) return;
    const bool idle =
        sibling.sequence.state == SequenceState::kWaiting && sibling.sequence.blocks.empty();
    if (idle && heir == nullptr) heir = &sibling;
  }
  if (heir != nullptr) SharePrompt(leaver, *heir);
}

void Scheduler::Impl::Finish(Entry& entry, FinishReason reason, std::string error) {
  Sequence& sequence = entry.sequence;
  Group& group = *entry.group;
  HandOnPrompt(entry);
  tables.Release(sequence);
  if (sequence.state == SequenceState::kRunning) {
    running.erase(std::find(running.begin(), running.end(), &entry));
  } else {
    waiting.erase(RankOf(sequence));
  }
  sequence.state = SequenceState::kFinished;
  finished.push_back({sequence.request, sequence.choice, reason, std::move(error)});
  finished_ids.push_back(sequence.id);
  std::erase(group.live, sequence.id);
  entry.group = nullptr;
  if (!group.live.empty()) return;
  LeaveQueue(group);
  groups.erase(group.id);
}

void Scheduler::Impl::LeaveQueue(Group& group) {
  if (!group.queued) return;
  group.queued = false;
  queued_requests -= 1;
  queued_tokens -= group.queued_tokens;
}

void Scheduler::Impl::Commit(const StepPlan& plan, const StepResult& result) {
  assert(plan.rows.size() == result.rows.size());
  for (size_t i = 0; i < plan.rows.size(); ++i) CommitRow(plan.rows[i], result.rows[i]);
}

void Scheduler::Impl::CommitRow(const PlannedRow& row, const RowResult& result) {
  Entry& entry = entries.at(row.sequence);
  if (result.outcome == RowOutcome::kFailed) {
    return Finish(entry, FinishReason::kError, result.error);
  }
  Sequence& sequence = entry.sequence;
  Group& group = *entry.group;
  sequence.num_computed = row.first + row.count;
  CountPrompt(group, sequence.num_computed);
  assert(row.samples != result.accepted.empty());
  for (const engine::TokenId token : result.accepted) {
    sequence.tokens.push_back(token);
    ++counters.generated_tokens;
    const bool stops = !group.forced && std::binary_search(group.stop_tokens.begin(),
                                                           group.stop_tokens.end(), token);
    if (stops) return Finish(entry, FinishReason::kStop, {});
    if (sequence.generated() == sequence.max_tokens) {
      return Finish(entry, FinishReason::kLength, {});
    }
  }
}

// Each prompt position of a request counts once, whichever choice computed it and however often.
void Scheduler::Impl::CountPrompt(Group& group, uint32_t computed) {
  const uint32_t reached = std::min(computed, group.prompt_tokens);
  if (reached <= group.prompt_counted) return;
  counters.prompt_tokens += reached - group.prompt_counted;
  group.prompt_counted = reached;
}

SchedulerStats Scheduler::Impl::Stats() const {
  SchedulerStats stats = counters;
  stats.running = static_cast<uint32_t>(running.size());
  stats.waiting = static_cast<uint32_t>(waiting.size());
  stats.queued_requests = queued_requests;
  stats.waiting_tokens = static_cast<uint32_t>(queued_tokens);
  stats.kv_blocks_total = tables.pool().capacity();
  stats.kv_blocks_used = tables.pool().used();
  return stats;
}

void Scheduler::Impl::CheckIntegrity() const {
  const BlockPool& pool = tables.pool();
  pool.CheckIntegrity();
  std::vector<uint32_t> references(pool.capacity(), 0);
  uint64_t live = 0;
  for (const auto& [id, entry] : entries) {
    const Sequence& sequence = entry.sequence;
    for (const BlockId block : sequence.blocks) ++references[block];
    if (sequence.num_computed > sequence.tokens.size()) {
      Broken("a sequence has computed more than it has", id, sequence.num_computed);
    }
    if (tables.BlocksFor(sequence.num_computed) > sequence.blocks.size()) {
      Broken("a block table is shorter than what was computed", id, sequence.blocks.size());
    }
    if (sequence.state == SequenceState::kFinished) {
      if (!sequence.blocks.empty()) Broken("a finished sequence holds blocks", id, 0);
      continue;
    }
    ++live;
    if (sequence.tokens.size() >= context_length) {
      Broken("an unfinished sequence fills the context", id, sequence.tokens.size());
    }
    if (sequence.state == SequenceState::kWaiting && !waiting.contains(RankOf(sequence))) {
      Broken("a waiting sequence is not in the queue", id, 0);
    }
  }
  for (BlockId block = 0; block < pool.capacity(); ++block) {
    if (references[block] != pool.references(block)) {
      Broken("a block's references are not those of the tables", block, references[block]);
    }
  }
  if (live != running.size() + waiting.size()) {
    Broken("sequences are lost", live, running.size() + waiting.size());
  }
  uint64_t queued = 0;
  uint64_t tokens = 0;
  for (const auto& [id, group] : groups) {
    if (group.live.empty()) Broken("a request without choices stayed", id, 0);
    queued += group.queued ? 1 : 0;
    tokens += group.queued ? group.queued_tokens : 0;
  }
  if (queued != queued_requests)
    Broken("the queue's requests are miscounted", queued, queued_requests);
  if (tokens != queued_tokens) Broken("the queue's tokens are miscounted", tokens, queued_tokens);
}

Scheduler::Scheduler(const SchedulerOptions& options, const engine::KvGeometry& geometry,
                     uint32_t kv_blocks, uint32_t context_length)
    : impl_(std::make_unique<Impl>(options, geometry.block_size, kv_blocks, context_length)) {}

Scheduler::~Scheduler() = default;

AdmitResult Scheduler::Add(const Request& request, double now) { return impl_->Add(request, now); }

void Scheduler::Cancel(RequestId request, FinishReason reason) {
  impl_->Cancel(request, reason, {});
}

void Scheduler::CancelChoice(RequestId request, uint32_t choice, FinishReason reason) {
  impl_->CancelChoice(request, choice, reason);
}

StepPlan Scheduler::Plan(double now) { return impl_->Plan(now); }

void Scheduler::Commit(const StepPlan& plan, const StepResult& result, double /*now*/) {
  impl_->Commit(plan, result);
}

std::vector<Finished> Scheduler::TakeFinished() {
  for (const uint64_t id : impl_->finished_ids) impl_->entries.erase(id);
  impl_->finished_ids.clear();
  return std::exchange(impl_->finished, {});
}

const Sequence* Scheduler::Find(uint64_t sequence) const {
  const auto it = impl_->entries.find(sequence);
  return it == impl_->entries.end() ? nullptr : &it->second.sequence;
}

bool Scheduler::idle() const { return impl_->running.empty() && impl_->waiting.empty(); }

SchedulerStats Scheduler::stats() const { return impl_->Stats(); }

void Scheduler::CheckIntegrity() const { impl_->CheckIntegrity(); }

}  // namespace scheduler
