// What a step computes: who runs, how many tokens of each, and in which blocks.

#include <algorithm>
#include <cassert>
#include <cstdio>

#include "scheduler/scheduler_impl.h"

namespace scheduler {

StepPlan Scheduler::Impl::Plan(double now) {
  StepPlan plan;
  ReserveEndings();
  ExpireQueue(now);
  uint32_t budget = options.max_batch_tokens;
  ScheduleRunning(&plan, &budget);
  budget = options.max_batch_tokens - plan.tokens;  // preempted decodes give theirs back
  AdmitWaiting(&plan, &budget, now);
  LengthenChunks(&plan, &budget);
  if (options.speculation != Speculation::kOff) AddDrafts(&plan, budget);
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
    const uint32_t chunk = std::min(options.prefill_chunk, tables.most_row_tokens());
    const uint32_t count = decode ? 1 : std::min({pending, chunk, *budget});
    if (count == 0) continue;
    if (!Reserve(entry, entry.sequence.num_computed + count, plan)) return;
    if (!decode) *budget -= count;
    AddRow(entry, count, plan);
  }
}

// Gets the blocks for [num_computed, end), from the last in rank if none are free. False when that
// was the sequence itself.
bool Scheduler::Impl::Reserve(Entry& entry, uint32_t end, StepPlan* plan) {
  while (tables.Missing(entry.sequence, end) > tables.available()) {
    if (DropIdleBlocks(nullptr)) continue;
    Entry& victim = *running.back();
    Preempt(victim, plan);
    if (&victim == &entry) return false;
  }
  tables.Extend(entry.sequence, end, &plan->moves);
  return true;
}

// Starts waiting sequences in order while there is room. The first that does not fit stops the
// rest, so that a long request is not overtaken for ever.
void Scheduler::Impl::AdmitWaiting(StepPlan* plan, uint32_t* budget, double now) {
  while (*budget > 0 && running.size() < options.max_sequences) {
    const Entry* donor = nullptr;
    Entry* const entry = NextWaiting(&donor);
    if (entry == nullptr || !TakeBlocks(*entry, donor, plan)) return;
    Sequence& sequence = entry->sequence;
    Start(*entry, now);
    const uint32_t chunk = std::min(options.prefill_chunk, tables.most_row_tokens());
    const uint32_t count = std::min({Pending(sequence), chunk, *budget});
    tables.Extend(sequence, sequence.num_computed + count, &plan->moves);
    *budget -= count;
    AddRow(*entry, count, plan);
  }
}

// What nobody else wanted goes to the prompts, the first in rank first: a chunk is short only to
// let others in.
void Scheduler::Impl::LengthenChunks(StepPlan* plan, uint32_t* budget) {
  for (PlannedRow& row : plan->rows) {
    if (*budget == 0) return;
    if (row.samples) continue;
    Entry& entry = entries.at(row.sequence);
    Sequence& sequence = entry.sequence;
    if (row.count >= tables.most_row_tokens()) continue;
    const uint32_t longest = std::min(Pending(sequence), tables.most_row_tokens());
    const uint32_t more = std::min(longest - row.count, *budget);
    const uint32_t end = row.first + row.count + more;
    if (tables.Missing(sequence, end) > tables.available()) continue;
    tables.Extend(sequence, end, &plan->moves);
    row.count += more;
    row.samples = row.count == Pending(sequence) && !entry.group->embeds;
    plan->tokens += more;
    *budget -= more;
  }
}

// The first in the queue; one that waits for its sibling's prompt is passed over.
Scheduler::Impl::Entry* Scheduler::Impl::NextWaiting(const Entry** donor) {
  const uint64_t id = waiting.First([&](uint64_t candidate) {
    return FindPrompt(entries.at(candidate), donor) != PromptSource::kWaitForSibling;
  });
  return id == 0 ? nullptr : &entries.at(id);
}

// Where the prompt of a waiting sequence comes from: its own computation, the blocks of a running
// sibling (*donor), or a sibling that computes it now. Blocks of a waiting sibling move here, for
// the first in rank is the one to run.
Scheduler::Impl::PromptSource Scheduler::Impl::FindPrompt(Entry& entry, const Entry** donor) {
  const uint32_t shared = entry.group->shared_tokens();
  const bool own = entry.sequence.num_computed > 0 || !entry.sequence.swap_slots.empty();
  if (own || recurrent || shared == 0) return PromptSource::kOwn;
  bool computing = false;
  Entry* idle = nullptr;
  for (const uint64_t id : entry.group->live) {
    Entry& sibling = entries.at(id);
    const bool is_running = sibling.sequence.state == SequenceState::kRunning;
    const bool has_prompt = tables.CanShare(sibling.sequence, shared);
    if (has_prompt && is_running) {
      *donor = &sibling;
      return PromptSource::kSibling;
    }
    if (has_prompt) idle = &sibling;
    computing |= is_running && sibling.sequence.num_computed < shared;
  }
  if (idle != nullptr) {
    tables.Share(idle->sequence, entry.sequence, shared);
    tables.Release(idle->sequence, false);
    return PromptSource::kOwn;
  }
  return computing ? PromptSource::kWaitForSibling : PromptSource::kOwn;
}

// Gives a waiting sequence all that was computed for it before, and makes sure that there are
// blocks for the rest. Preempts nobody: a sequence starts when it fits. False when it does not.
bool Scheduler::Impl::TakeBlocks(Entry& entry, const Entry* donor, StepPlan* plan) {
  Sequence& sequence = entry.sequence;
  const uint32_t end = NeededPositions(entry);
  const bool held = !sequence.blocks.empty();
  const bool swapped = !sequence.swap_slots.empty();
  // With a window all of it lies in host memory, and hardly more than that is wanted.
  if (!held && !(swapped && tables.windowed())) TakePrefix(entry, donor, swapped);
  bool fits = MakeRoom(entry, tables.MissingOnTheWay(sequence, end));
  const bool partial = sequence.num_computed % tables.block_size() != 0;
  if (!fits && partial && (!held || running.empty())) {
    // What a partly used block is copied from may be the very block that is missing.
    tables.Release(sequence, false);
    TakePrefix(entry, donor, true);
    fits = MakeRoom(entry, tables.MissingOnTheWay(sequence, end));
    if (!fits) tables.Release(sequence, false);
  } else if (!fits && !held) {
    tables.Release(sequence, false);
  }
  if (fits && !sequence.swap_slots.empty()) tables.SwapIn(sequence, &plan->moves);
  return fits;
}

void Scheduler::Impl::TakePrefix(Entry& entry, const Entry* donor, bool whole_blocks_only) {
  const Group& group = *entry.group;
  if (donor != nullptr) {
    const uint32_t shared = group.shared_tokens();
    const uint32_t rest = whole_blocks_only ? shared % tables.block_size() : 0;
    if (tables.CanShare(donor->sequence, shared - rest)) {
      return tables.Share(donor->sequence, entry.sequence, shared - rest);
    }
  }
  // Log-probabilities of the prompt need its logits once.
  if (group.scores_prompt && group.prompt_counted < group.prompt_tokens) return;
  tables.Adopt(entry.sequence, whole_blocks_only);
}

// True when `blocks` can be had beside what the running sequences still need for the tokens they
// have.
bool Scheduler::Impl::MakeRoom(const Entry& head, uint32_t blocks) {
  const uint64_t needed = PromisedBlocks() + blocks;
  while (tables.available() < needed) {
    if (!DropIdleBlocks(&head)) return false;
  }
  return true;
}

uint64_t Scheduler::Impl::PromisedBlocks() const {
  uint64_t blocks = 0;
  for (const Entry* entry : running) {
    blocks += tables.MissingOnTheWay(entry->sequence, NeededPositions(*entry));
  }
  return blocks;
}

void Scheduler::Impl::AddRow(const Entry& entry, uint32_t count, StepPlan* plan) {
  const Sequence& sequence = entry.sequence;
  plan->rows.push_back({.sequence = sequence.id,
                        .first = sequence.num_computed,
                        .count = count,
                        .samples = count == Pending(sequence) && !entry.group->embeds});
  plan->tokens += count;
}

// Fills a small step with guesses: what decodes leave of the memory's time is free arithmetic.
void Scheduler::Impl::AddDrafts(StepPlan* plan, uint32_t budget) {
  auto left = static_cast<uint32_t>(plan->rows.size());
  for (PlannedRow& row : plan->rows) {
    const uint32_t tokens = plan->tokens;
    if (tokens >= options.speculation_max_tokens) return;
    const uint32_t room = std::min(options.speculation_max_tokens - tokens, budget);
    const uint32_t most = (room + left - 1) / left;  // what a row leaves goes to the next
    --left;
    if (row.count != 1 || !row.samples) continue;
    AddDraft(row, most, plan);
    budget -= plan->tokens - tokens;
  }
}

void Scheduler::Impl::AddDraft(PlannedRow& row, uint32_t most, StepPlan* plan) {
  Entry& entry = entries.at(row.sequence);
  Sequence& sequence = entry.sequence;
  // The sample after the last accepted draft is a token too.
  const uint32_t allowed = sequence.max_tokens - sequence.generated() - 1;
  uint32_t length = std::min({entry.drafting.Length(guess_cost), most, allowed});
  std::vector<engine::TokenId> drafts;
  if (length > 0 && !drafts_with_model()) {
    drafts = DraftFromText(sequence.tokens, length);
    length = static_cast<uint32_t>(drafts.size());
  }
  // Guesses take no block that anybody else could want.
  const auto fits = [&] {
    return tables.Missing(sequence, row.first + 1 + length) <= tables.pool().free();
  };
  while (length > 0 && !fits()) --length;
  if (length == 0) return;
  tables.Extend(sequence, row.first + 1 + length, &plan->moves);
  plan->tokens += length;
  if (drafts_with_model()) {
    row.draft_room = length;
  } else {
    drafts.resize(length);
    row.drafts = std::move(drafts);
  }
}

}  // namespace scheduler
