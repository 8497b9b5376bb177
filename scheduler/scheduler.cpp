#include "scheduler/scheduler.h"

#include <algorithm>
#include <cassert>
#include <new>
#include <utility>

#include "scheduler/scheduler_impl.h"

namespace scheduler {
namespace {

// Beyond this, priorities make no further difference, so that aging reaches every request in time.
constexpr int32_t kMostUrgent = -1000;
constexpr int32_t kLeastUrgent = 1000;
// Until a model's guesses have been timed, and the weight of the latest ones in the mean.
constexpr double kFirstGuessCost = 0.2;
constexpr double kNewestCost = 0.1;

// Without a model there is nothing to derive the automatic limits from.
SchedulerOptions Normalized(SchedulerOptions options, const engine::KvGeometry& geometry) {
  options.speculation = DraftKind(options);
  if (options.max_sequences == 0) options.max_sequences = 64;
  if (options.max_batch_tokens == 0) options.max_batch_tokens = 512;
  if (options.prefill_chunk == 0) options.prefill_chunk = (options.max_batch_tokens + 3) / 4;
  options.prefill_chunk = std::clamp(options.prefill_chunk, 1U, options.max_batch_tokens);
  // A step has room for a token of every running sequence, so no decode ever waits for another.
  options.max_sequences = std::clamp(options.max_sequences, 1U, options.max_batch_tokens);
  if (geometry.recurrent()) {
    options.max_sequences = std::min(options.max_sequences, geometry.state_slots);
    options.prefix_cache = PrefixCacheMode::kOff;
    options.swap_bytes = 0;
    options.speculation = Speculation::kOff;
  }
  return options;
}

// Where the prefix cache looks for a request's prompt. Each part ends where only it can, so no salt
// can claim the space of another set of adapters.
std::string CacheSpace(const Request& request, PrefixCacheMode mode) {
  std::string space = engine::AdapterSetKey(request.adapters) + "|";
  space += std::to_string(request.cache_salt.size()) + ":" + request.cache_salt;
  if (mode == PrefixCacheMode::kPerKey) space += request.tenant;
  return space;
}

}  // namespace

Scheduler::Impl::Impl(const SchedulerOptions& scheduler_options, const engine::KvGeometry& geometry,
                      uint32_t kv_blocks, uint32_t context, const SipKey& cache_key)
    : options(Normalized(scheduler_options, geometry)),
      context_length(context),
      recurrent(geometry.recurrent()),
      tables({.capacity = kv_blocks,
              .geometry = geometry,
              .most_row_tokens = BlockTables::MostRowTokens(geometry, kv_blocks, context,
                                                            options.max_batch_tokens),
              .prefix_cache = options.prefix_cache != PrefixCacheMode::kOff,
              .cache_key = cache_key,
              .swap_slots = SwapSlots(options, geometry)}) {
  assert(kv_blocks >= geometry.MostBlocks(context, 1));
  guess_cost = drafts_with_model() ? kFirstGuessCost : 0;
  running.reserve(options.max_sequences);
  for (uint32_t slot = geometry.state_slots; slot > 0; --slot) free_state_slots.push_back(slot - 1);
}

AdmitResult Scheduler::Impl::CheckBounds(const Request& request) const {
  if (request.positions() > context_length) return AdmitResult::kPromptTooLong;
  const uint64_t tokens = uint64_t{request.prompt.size()} * request.choices;
  if (queued_requests >= options.max_queued_requests) return AdmitResult::kQueueFull;
  // One request is taken however long it is, or it could never be served.
  if (queued_requests > 0 && queued_tokens + tokens > options.max_queued_tokens) {
    return AdmitResult::kQueueFull;
  }
  const auto of_key = queued_of_key.find(request.tenant);
  const bool full = options.max_queued_per_key > 0 && of_key != queued_of_key.end() &&
                    of_key->second >= options.max_queued_per_key;
  return full ? AdmitResult::kKeyQueueFull : AdmitResult::kOk;
}

AdmitResult Scheduler::Impl::Add(const Request& request, double now) {
  assert(!request.prompt.empty() && request.choices > 0 && !groups.contains(request.id));
  const AdmitResult result = CheckBounds(request);
  if (result != AdmitResult::kOk) return result;
  uint32_t* queued_of_tenant = nullptr;
  try {
    Group& group = groups[request.id];
    FillGroup(request, now, &group);
    for (uint32_t choice = 0; choice < request.choices; ++choice) {
      AddChoice(request, choice, now, &group);
    }
    if (options.queue_deadline_seconds > 0) by_arrival.push_back(request.id);
    queued_of_tenant = &queued_of_key[request.tenant];
  } catch (...) {
    TakeBack(request.id);
    throw;
  }
  queued_requests += 1;
  queued_tokens += groups.at(request.id).queued_tokens;
  ++*queued_of_tenant;
  return result;
}

void Scheduler::Impl::FillGroup(const Request& request, double now, Group* group) const {
  group->id = request.id;
  group->prompt_tokens = static_cast<uint32_t>(request.prompt.size());
  group->queued_tokens = uint64_t{request.prompt.size()} * request.choices;
  group->arrival = now;
  group->forced = !request.forced_tokens.empty();
  group->embeds = request.pooling.has_value();
  group->scores_prompt =
      request.prompt_logprobs || (group->embeds && *request.pooling != engine::Pooling::kLast);
  group->stop_tokens = request.stop_tokens;
  std::sort(group->stop_tokens.begin(), group->stop_tokens.end());
  group->tenant = request.tenant;
}

void Scheduler::Impl::AddChoice(const Request& request, uint32_t choice, double now, Group* group) {
  const uint32_t room = context_length - group->prompt_tokens;
  const uint64_t wanted = group->forced ? request.forced_tokens.size() : request.max_tokens;
  const uint64_t id = next_id++;
  group->live.push_back(id);
  Entry& entry = entries[id];
  entry.group = group;
  Sequence& sequence = entry.sequence;
  sequence.id = id;
  sequence.request = request.id;
  sequence.choice = choice;
  sequence.tokens = request.prompt;
  sequence.prompt_tokens = group->prompt_tokens;
  sequence.max_tokens = wanted == 0 || wanted > room ? room : static_cast<uint32_t>(wanted);
  sequence.cache_space = CacheSpace(request, options.prefix_cache);
  if (options.fair_share) sequence.tenant = request.tenant;
  sequence.priority = request.priority;
  sequence.arrival = now;
  waiting.Insert(sequence, RankOf(sequence));
}

// Undoes an Add() that ran out of memory on the way.
void Scheduler::Impl::TakeBack(RequestId request) {
  const auto group = groups.find(request);
  if (group == groups.end()) return;
  for (const uint64_t id : group->second.live) {
    const auto entry = entries.find(id);
    if (entry == entries.end()) continue;
    const Sequence& sequence = entry->second.sequence;
    if (waiting.Contains(sequence, RankOf(sequence))) waiting.Erase(sequence, RankOf(sequence));
    entries.erase(entry);
  }
  groups.erase(group);
}

// With aging, who waits for one level's time is as urgent as one of the next level that comes now:
// "arrival + level * time" orders them so, and never changes.
Rank Scheduler::Impl::RankOf(const Sequence& sequence) const {
  const double level = std::clamp(sequence.priority, kMostUrgent, kLeastUrgent);
  const double aging = options.priority_aging_seconds;
  return {aging > 0 ? sequence.arrival + level * aging : level, sequence.id};
}

void Scheduler::Impl::Cancel(RequestId request, FinishReason reason, const std::string& error) {
  const auto it = groups.find(request);
  if (it == groups.end()) return;
  ReserveEndings();
  // Backwards, so that the prompt is not handed from choice to choice. The group goes with the
  // last.
  const std::vector<uint64_t> live = it->second.live;
  for (auto id = live.rbegin(); id != live.rend(); ++id) Finish(entries.at(*id), reason, error);
}

void Scheduler::Impl::CancelChoice(RequestId request, uint32_t choice, FinishReason reason) {
  const auto it = groups.find(request);
  if (it == groups.end()) return;
  ReserveEndings();
  for (const uint64_t id : it->second.live) {
    Entry& entry = entries.at(id);
    if (entry.sequence.choice == choice) return Finish(entry, reason, {});
  }
}

void Scheduler::Impl::Start(Entry& entry, double now) {
  // First what may find no memory: a sequence is in one of the lists whatever happens.
  if (running.size() == running.capacity()) running.reserve(2 * running.size() + 1);
  Sequence& sequence = entry.sequence;
  waiting.Erase(sequence, RankOf(sequence));
  CountStart(entry);
  LeaveQueue(*entry.group);
  sequence.state = SequenceState::kRunning;
  if (recurrent) {
    sequence.state_slot = free_state_slots.back();
    free_state_slots.pop_back();
  }
  if (sequence.first_scheduled < 0) sequence.first_scheduled = now;
  const auto place = std::upper_bound(
      running.begin(), running.end(), &entry,
      [this](const Entry* a, const Entry* b) { return RankOf(a->sequence) < RankOf(b->sequence); });
  running.insert(place, &entry);
}

// A prompt is looked up once for the figures, however often its request starts again. What a key is
// charged for is what its sequences let the machine compute, once.
void Scheduler::Impl::CountStart(Entry& entry) {
  Sequence& sequence = entry.sequence;
  Group& group = *entry.group;
  if (group.queued && tables.cache() != nullptr && !group.scores_prompt) {
    group.cached_tokens = sequence.num_computed;
    counters.prefix_queries += group.prompt_tokens;
    counters.prefix_hits += group.cached_tokens;
  }
  if (sequence.first_scheduled >= 0) return;
  sequence.cached_tokens = group.cached_tokens;
  waiting.Charge(sequence.tenant, Pending(sequence));
}

// Back to waiting. The generated tokens are kept, so the sequence gets the K and V of prompt and
// generated tokens again, from host memory or by computing them, and goes on with the same bits.
void Scheduler::Impl::Preempt(Entry& entry, StepPlan* plan) {
  assert(running.back() == &entry);
  waiting.Insert(entry.sequence, RankOf(entry.sequence));
  running.pop_back();
  entry.sequence.state = SequenceState::kWaiting;
  if (recurrent) free_state_slots.push_back(entry.sequence.state_slot);
  if (tables.CanSwapOut(entry.sequence)) {
    tables.SwapOut(entry.sequence, &plan->moves);
    ++counters.swapped_preemptions;
  } else {
    tables.Release(entry.sequence, true);
  }
  ++counters.preemptions;
}

// Blocks of a waiting sequence are a cache of its prompt (see HandOnPrompt): the last in rank gives
// them up. False when there are none but those of `keep`.
bool Scheduler::Impl::DropIdleBlocks(const Entry* keep) {
  for (const uint64_t id : waiting.Backwards()) {
    Entry& entry = entries.at(id);
    if (entry.sequence.blocks.empty() || &entry == keep) continue;
    tables.Release(entry.sequence, true);
    return true;
  }
  return false;
}

// A sequence that ends leaves the prompt's blocks to a sibling that has yet to start, if no other
// sibling has them, so that the prompt is computed once however short the choices are.
void Scheduler::Impl::HandOnPrompt(const Entry& leaver) {
  const uint32_t shared = leaver.group->shared_tokens();
  if (recurrent || shared == 0 || !tables.CanShare(leaver.sequence, shared)) return;
  Entry* heir = nullptr;
  for (const uint64_t id : leaver.group->live) {
    Entry& sibling = entries.at(id);
    if (&sibling == &leaver) continue;
    if (tables.CanShare(sibling.sequence, shared)) return;
    const bool idle = sibling.sequence.state == SequenceState::kWaiting &&
                      sibling.sequence.blocks.empty() && sibling.sequence.swap_slots.empty();
    if (idle && heir == nullptr) heir = &sibling;
  }
  if (heir != nullptr) tables.Share(leaver.sequence, heir->sequence, shared);
}

void Scheduler::Impl::ReserveEndings() {
  finished.reserve(finished.size() + entries.size());
  finished_ids.reserve(finished.capacity());
}

void Scheduler::Impl::Finish(Entry& entry, FinishReason reason, std::string error) {
  Sequence& sequence = entry.sequence;
  Group& group = *entry.group;
  // After an error nobody relies on what the sequence's last step left in its blocks.
  const bool sound = reason != FinishReason::kError;
  if (sound) HandOnPrompt(entry);
  tables.Release(sequence, sound);
  tables.DropSwap(sequence);
  if (sequence.state == SequenceState::kRunning) {
    running.erase(std::find(running.begin(), running.end(), &entry));
    if (recurrent) free_state_slots.push_back(sequence.state_slot);
  } else {
    waiting.Erase(sequence, RankOf(sequence));
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
  const auto of_key = queued_of_key.find(group.tenant);
  if (--of_key->second == 0) queued_of_key.erase(of_key);
}

void Scheduler::Impl::Commit(const StepPlan& plan, const StepResult& result) {
  assert(plan.rows.size() == result.rows.size());
  ReserveEndings();
  if (result.guess_cost > 0) guess_cost += kNewestCost * (result.guess_cost - guess_cost);
  for (size_t i = 0; i < plan.rows.size(); ++i) {
    try {
      CommitRow(plan.rows[i], result.rows[i]);
    } catch (const std::bad_alloc&) {
      Entry& entry = entries.at(plan.rows[i].sequence);
      if (entry.group != nullptr) Finish(entry, FinishReason::kError, "out of memory");
    }
  }
}

void Scheduler::Impl::CommitRow(const PlannedRow& row, const RowResult& result) {
  Entry& entry = entries.at(row.sequence);
  if (result.outcome == RowOutcome::kFailed) {
    return Finish(entry, FinishReason::kError, result.error);
  }
  Sequence& sequence = entry.sequence;
  Group& group = *entry.group;
  CommitDraft(entry, row, result.accepted);
  if (result.outcome == RowOutcome::kDropDrafts) return tables.Trim(sequence);

  assert(row.samples != result.accepted.empty());
  assert(result.accepted.size() <= row.drafts.size() + 1);
  // The last accepted token is a sample: nothing has computed its K and V yet.
  const auto accepted = static_cast<uint32_t>(result.accepted.size());
  sequence.num_computed = row.first + row.count + (accepted > 1 ? accepted - 1 : 0);
  sequence.tokens.insert(sequence.tokens.end(), result.accepted.begin(), result.accepted.end());
  tables.Trim(sequence);
  tables.Index(sequence);
  tables.DropUnseen(sequence);
  CountPrompt(group, sequence.num_computed);
  counters.generated_tokens += accepted;
  waiting.Charge(sequence.tenant, accepted);
  if (group.embeds && Pending(sequence) == 0) return Finish(entry, FinishReason::kStop, {});
  if (accepted == 0) return;
  const bool stops =
      !group.forced && std::binary_search(group.stop_tokens.begin(), group.stop_tokens.end(),
                                          sequence.tokens.back());
  if (stops || result.complete) return Finish(entry, FinishReason::kStop, {});
  assert(sequence.generated() <= sequence.max_tokens);
  if (sequence.generated() == sequence.max_tokens) Finish(entry, FinishReason::kLength, {});
}

void Scheduler::Impl::CommitDraft(Entry& entry, const PlannedRow& row,
                                  std::span<const engine::TokenId> accepted) {
  if (row.never_draft) entry.drafting.Stop();
  if (row.drafts.empty()) {
    if (!accepted.empty()) entry.drafting.OnPlainToken();
    return;
  }
  const auto drafted = static_cast<uint32_t>(row.drafts.size());
  ++counters.drafts;
  counters.draft_tokens += drafted;
  if (accepted.empty()) return entry.drafting.Stop();
  const auto [wrong, sample] =
      std::mismatch(row.drafts.begin(), row.drafts.end(), accepted.begin(), accepted.end());
  const auto right = static_cast<uint32_t>(wrong - row.drafts.begin());
  counters.accepted_draft_tokens += right;
  counters.wrong_drafts += sample != accepted.end() && right < drafted ? 1 : 0;
  entry.drafting.OnDraft(drafted, right, guess_cost);
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
  stats.kv_blocks_cached = tables.pool().idle();
  stats.swap_slots_total = tables.slots().capacity();
  stats.swap_slots_used = tables.slots().used();
  stats.prefix_evictions = tables.evictions();
  return stats;
}

Scheduler::Scheduler(const SchedulerOptions& options, const engine::KvGeometry& geometry,
                     uint32_t kv_blocks, uint32_t context_length, const SipKey& cache_key)
    : impl_(std::make_unique<Impl>(options, geometry, kv_blocks, context_length, cache_key)) {}

Scheduler::~Scheduler() = default;

uint32_t Scheduler::SwapSlots(const SchedulerOptions& options, const engine::KvGeometry& geometry) {
  const uint64_t bytes = std::max<uint64_t>(geometry.BytesPerBlock(), 1);
  return static_cast<uint32_t>(std::min<uint64_t>(options.swap_bytes / bytes, UINT32_MAX));
}

AdmitResult Scheduler::Add(const Request& request, double now) { return impl_->Add(request, now); }

void Scheduler::Cancel(RequestId request, FinishReason reason, const std::string& error) {
  impl_->Cancel(request, reason, error);
}

void Scheduler::CancelChoice(RequestId request, uint32_t choice, FinishReason reason) {
  impl_->CancelChoice(request, choice, reason);
}

StepPlan Scheduler::Plan(double now) { return impl_->Plan(now); }

void Scheduler::Commit(const StepPlan& plan, const StepResult& result, double /*now*/) {
  impl_->Commit(plan, result);
}

std::vector<Finished> Scheduler::TakeFinished() {
  if (impl_->finished.empty()) return {};  // keeps the reserved room
  for (const uint64_t id : impl_->finished_ids) impl_->entries.erase(id);
  impl_->finished_ids.clear();
  return std::exchange(impl_->finished, {});
}

std::vector<PrefixCache::Entry> Scheduler::CachedPrefixes() const {
  const PrefixCache* cache = impl_->tables.cache();
  return cache == nullptr ? std::vector<PrefixCache::Entry>() : cache->Entries();
}

std::vector<std::optional<BlockId>> Scheduler::RestorePrefixes(
    const std::vector<PrefixCache::Entry>& entries) {
  return impl_->tables.Restore(entries);
}

void Scheduler::DropCachedPrefixes() { impl_->tables.DropIdle(); }

const Sequence* Scheduler::Find(uint64_t sequence) const {
  const auto it = impl_->entries.find(sequence);
  return it == impl_->entries.end() ? nullptr : &it->second.sequence;
}

bool Scheduler::idle() const { return impl_->running.empty() && impl_->waiting.empty(); }

SchedulerStats Scheduler::stats() const { return impl_->Stats(); }

const std::unordered_map<std::string, uint32_t>& Scheduler::queued_of_key() const {
  return impl_->queued_of_key;
}

void Scheduler::CheckIntegrity() const { impl_->CheckIntegrity(); }

}  // namespace scheduler
