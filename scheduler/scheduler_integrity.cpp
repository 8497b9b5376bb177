// Every invariant of the scheduler, for tests and idle servers.

#include <cinttypes>
#include <cstdio>
#include <cstdlib>

#include "scheduler/scheduler_impl.h"

namespace scheduler {
namespace {

[[noreturn]] void Broken(const char* what, uint64_t a, uint64_t b) {
  std::fprintf(stderr, "Scheduler: %s (%" PRIu64 ", %" PRIu64 ")\n", what, a, b);
  std::abort();
}

void CheckReferences(const std::vector<uint32_t>& counted, const BlockPool& pool,
                     const char* what) {
  for (BlockId block = 0; block < pool.capacity(); ++block) {
    if (counted[block] != pool.references(block)) Broken(what, block, counted[block]);
  }
}

// Nothing that the next position sees is given back, and all that it does not see is.
void CheckHole(const engine::KvGeometry& geometry, const Sequence& sequence) {
  const uint32_t sinks = geometry.BlocksFor(geometry.window.sinks);
  const uint32_t seen = geometry.window.Begin(sequence.num_computed) / geometry.block_size;
  const bool right = seen > sinks && !sequence.blocks.empty()
                         ? sequence.hole_begin == sinks && sequence.hole_end == seen
                         : sequence.hole_begin == 0 && sequence.hole_end == 0;
  if (!right) Broken("a window's hole is in the wrong place", sequence.id, sequence.hole_end);
}

}  // namespace

void Scheduler::Impl::CheckIntegrity() const {
  tables.CheckIntegrity();
  std::vector<uint32_t> references(tables.pool().capacity(), 0);
  std::vector<uint32_t> slots(tables.slots().capacity(), 0);
  uint64_t live = 0;
  for (const auto& [id, entry] : entries) {
    const Sequence& sequence = entry.sequence;
    for (size_t i = 0; i < sequence.blocks.size(); ++i) {
      if (sequence.Holds(i)) ++references[sequence.blocks[i]];
    }
    CheckHole(tables.geometry(), sequence);
    for (const uint32_t slot : sequence.swap_slots) ++slots[slot];
    if (sequence.num_computed > sequence.tokens.size()) {
      Broken("a sequence has computed more than it has", id, sequence.num_computed);
    }
    if (tables.BlocksFor(sequence.num_computed) > sequence.blocks.size()) {
      Broken("a block table is shorter than what was computed", id, sequence.blocks.size());
    }
    // What a window has left behind may be forgotten, and then what hangs on it.
    for (uint32_t i = 0; i < (tables.windowed() ? 0 : sequence.indexed_blocks); ++i) {
      if (tables.cache() == nullptr || !tables.cache()->Contains(sequence.blocks[i])) {
        Broken("the prefix cache does not know a block that is in use", id, i);
      }
    }
    if (sequence.state == SequenceState::kFinished) {
      if (!sequence.blocks.empty()) Broken("a finished sequence holds blocks", id, 0);
      if (!sequence.swap_slots.empty()) Broken("a finished sequence holds host memory", id, 0);
      continue;
    }
    ++live;
    if (NeededPositions(entry) > context_length) {
      Broken("an unfinished sequence fills the context", id, sequence.tokens.size());
    }
    if (sequence.state == SequenceState::kWaiting &&
        !waiting.Contains(sequence, RankOf(sequence))) {
      Broken("a waiting sequence is not in the queue", id, 0);
    }
    if (sequence.state == SequenceState::kRunning && !sequence.swap_slots.empty()) {
      Broken("a running sequence holds host memory", id, 0);
    }
  }
  CheckReferences(references, tables.pool(), "a block's references are not those of the tables");
  CheckReferences(slots, tables.slots(), "a host slot is not its sequence's");
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
  uint64_t queued_by_key = 0;
  for (const auto& [key, count] : queued_of_key) queued_by_key += count;
  if (queued != queued_requests || queued != queued_by_key) {
    Broken("the queue's requests are miscounted", queued, queued_requests);
  }
  if (tokens != queued_tokens) Broken("the queue's tokens are miscounted", tokens, queued_tokens);
}

}  // namespace scheduler
