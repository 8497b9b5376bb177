#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace scheduler {

// A rule of the scheduler was broken; the message names the rule and how to replay the seed.
class SimulationFailure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// How much of what can happen did happen, so that a test can see that a rule was exercised.
struct SimulationReport {
  uint64_t steps = 0;
  uint64_t rows = 0;
  uint64_t tokens = 0;
  uint64_t copies = 0;
  uint64_t shared_starts = 0;  // choices that began with a sibling's prompt
  uint64_t preemptions = 0;
  uint64_t swaps = 0;            // preemptions to host memory
  uint64_t cached_tokens = 0;    // prompt tokens that the prefix cache served
  uint64_t partial_hits = 0;     // requests that began inside a block
  uint64_t evictions = 0;        // blocks that the prefix cache gave up
  uint64_t drafts = 0;           // rows with drafted tokens
  uint64_t model_drafts = 0;     // tokens that did not come with the plan
  uint64_t accepted_drafts = 0;  // tokens
  uint64_t dropped_drafts = 0;   // rows that failed because of their drafts
  uint64_t refusals = 0;
  uint64_t cancels = 0;
  uint64_t failures = 0;  // rows and steps that were made to fail
  uint64_t deadlines = 0;
  uint64_t choices = 0;
  uint64_t windows = 0;         // worlds with a sliding window
  uint64_t dropped_blocks = 0;  // that a window left behind
  uint64_t beyond_pool = 0;     // choices that grew longer than the pool

  SimulationReport& operator+=(const SimulationReport& other);
  std::string ToString() const;
};

// Drives a Scheduler in virtual time: a world of random size, requests at random moments, and a
// fake engine whose KV cache holds token ids and whose next token is a hash of the text so far,
// which must be what the cache reads back. A third of the worlds have a sliding window. Everything
// follows from the seed.
//
// Checks at each step: blocks and host slots are conserved and references are those of the tables;
// the prefix cache's index is consistent; a row's block table reads back exactly the sequence's
// tokens where the row sees them, written in the sequence's own cache space after the same text; no
// sequence holds more blocks than its window and its row need; no row writes what another reads or
// the prefix cache knows; positions are computed in order; budget, sequence and queue bounds hold;
// decodes run in every step; who starts is who has the best rank of its key; each choice ends once,
// for the right reason, and is silent after; each prompt is looked up once; outputs equal those of
// a run alone, without drafts; every request ends within a bound of steps.
//
// Errors: SimulationFailure.
SimulationReport Simulate(uint64_t seed, bool trace = false);

// A failed integrity check aborts; from now on that prints the replay line too.
void PrintReplayOnAbort();

}  // namespace scheduler
