#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/adapter_scale.h"
#include "engine/kv_geometry.h"
#include "engine/pooling.h"
#include "engine/sampling_params.h"
#include "engine/token.h"
#include "scheduler/token_event.h"

namespace engine::text::grammar {
class Constraint;
}

namespace scheduler {

// What the server asks for: one prompt, n choices.
struct Request {
  RequestId id = 0;
  std::vector<engine::TokenId> prompt;  // at least one token
  engine::SamplingParams sampling;
  uint32_t choices = 1;                        // n
  uint32_t max_tokens = 0;                     // per choice; 0 = what the context leaves
  std::vector<engine::TokenId> stop_tokens;    // end the choice; the token itself is reported
  std::vector<engine::TokenId> forced_tokens;  // teacher forcing: taken instead of the sampled ones
  bool prompt_logprobs = false;  // echo: log-probabilities of the prompt (bypasses prefix hits)
  int32_t priority = 0;          // lower runs first
  std::string tenant;            // API key's name, for fair sharing
  std::string cache_salt;        // separates prefix caches
  bool report_cost = false;      // tell TokenEvent::cost
  std::vector<engine::AdapterScale> adapters = {};  // as engine::BatchRow::adapters
  // What the text must be; nullptr: anything. One matcher for each choice.
  std::shared_ptr<const engine::text::grammar::Constraint> grammar = {};
  bool drops_first_space = false;  // the text's first space is not shown (SPM); for the grammar
  // Nothing is generated: the answer is one vector, pooled from the prompt's hidden states. One
  // choice; the prompt may fill the context.
  std::optional<engine::Pooling> pooling = {};
  std::shared_ptr<TokenSink> sink;

  // That it takes at least: the prompt and the first token.
  uint64_t positions() const { return uint64_t{prompt.size()} + (pooling ? 0 : 1); }
};

enum class SequenceState : uint8_t { kWaiting, kRunning, kFinished };

// One choice of a request, as the scheduler sees it: counts and block ids, no floats.
//
//      0            num_computed            tokens.size()
//      |-- in KV ---------|-- to compute --------|        tokens = prompt + generated
//
// Invariant: num_computed <= tokens.size(); blocks.size() == ceil(num_computed' / block_size),
// where num_computed' includes what the current plan will compute; the first indexed_blocks blocks
// are full and known to the prefix cache (with a sliding window they were: it may have forgotten).
// A sliding window gives back what no token will see again: blocks [hole_begin, hole_end), whose
// entries are 0 and name nothing.
struct Sequence {
  uint64_t id = 0;  // unique in the scheduler
  RequestId request = 0;
  uint32_t choice = 0;
  SequenceState state = SequenceState::kWaiting;
  std::vector<engine::TokenId> tokens;
  uint32_t prompt_tokens = 0;
  uint32_t num_computed = 0;   // positions whose K and V are in the cache
  uint32_t cached_tokens = 0;  // of the request's prompt, found in the prefix cache
  uint32_t max_tokens = 0;     // generated tokens allowed; resolved, 0 only for embeddings
  std::vector<engine::BlockId> blocks;
  uint32_t hole_begin = 0;
  uint32_t hole_end = 0;
  uint32_t state_slot = 0;  // while running, where a recurrent model keeps its state
  uint32_t indexed_blocks = 0;
  std::string cache_space;           // where the prefix cache looks
  std::vector<uint32_t> swap_slots;  // swapped out: host slots of the blocks it held, in order
  uint32_t swapped_tokens = 0;       // positions that they hold
  std::string tenant;                // with whom it shares fairly; one for all without fair sharing
  int32_t priority = 0;
  double arrival = 0;
  double first_scheduled = -1;  // -1: never

  bool Holds(size_t block) const { return block < hole_begin || block >= hole_end; }
  uint32_t held_blocks() const {
    return static_cast<uint32_t>(blocks.size()) - (hole_end - hole_begin);
  }
  uint32_t generated() const { return static_cast<uint32_t>(tokens.size()) - prompt_tokens; }
};

}  // namespace scheduler
