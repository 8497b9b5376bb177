#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/adapter_scale.h"
#include "engine/kv_geometry.h"
#include "engine/token.h"

namespace engine {

// What a row wants back for each of its output positions.
enum class OutputKind : uint8_t {
  kNone,
  kHidden,      // final-norm hidden state, [hidden]
  kLogits,      // full logits, [vocabulary], through Batch::sink
  kCandidates,  // the k best logits after mask and bias
};

struct LogitBias {
  TokenId token = 0;
  float bias = 0;
};

// What the head must find when a row does not need the whole distribution.
struct HeadQuery {
  uint32_t k = 1;
  std::span<const uint64_t> mask;  // bit per token, 1 = allowed; empty = all
  std::span<const LogitBias> bias;
};

struct Candidate {
  TokenId token = 0;
  float logit = 0;
};

// Consecutive tokens of one sequence: one token in decode, many in prefill, drafts in speculation.
// There is no prefill or decode flag.
//
//   positions   first_position .. first_position + tokens.size()
//   block_table blocks of the whole sequence from position 0; entry p / block_size holds p;
//               entries whose positions no token of the row sees (AttentionWindow) are not read
//   outputs     ascending indices into tokens
//
// REQUIRES: block_table covers the last position; no two rows write the same block.
struct BatchRow {
  std::span<const TokenId> tokens;
  uint32_t first_position = 0;
  std::span<const BlockId> block_table;
  std::span<const uint32_t> outputs;
  OutputKind output_kind = OutputKind::kNone;
  HeadQuery query = {};
  // Where the sequence keeps its recurrent state, below KvGeometry::state_slots; no other sequence
  // has it. A row at position 0 begins anew in it. Unused by models without such a state.
  uint32_t state_slot = 0;
  // LoRA adapters of the sequence, ascending, no scale of zero; the same for all its rows.
  std::span<const AdapterScale> adapters = {};
};

// Receives logits while a step runs, so that positions x vocabulary never exist at once.
// Called on the engine thread, rows in order, outputs in order. `logits` is valid during the call
// and may be changed by it.
class LogitsSink {
 public:
  virtual ~LogitsSink() = default;
  virtual void OnLogits(size_t row, size_t output, std::span<float> logits) = 0;
};

// Plain data, borrowed until Step() returns.
struct Batch {
  std::span<const BatchRow> rows;
  LogitsSink* sink = nullptr;  // needed when a row asks for kLogits
  // Only so many of the model's layers, then the final norm and the head: a guess at what all of
  // them would say. The keys and values that these layers write are those of a whole step. 0 = all.
  // REQUIRES: at most the model's; 0 when it is recurrent.
  uint32_t layers = 0;
};

enum class RowStatus : uint8_t {
  kOk,
  kNonFinite,    // an activation or logit was NaN or infinite; only this row is affected
  kStateLost,    // the recurrent state before the row's first position is not in its slot
  kDeviceFault,  // the device failed this row even after the host retry
};

struct RowOutput {
  RowStatus status = RowStatus::kOk;
  std::span<const float> hidden;          // kHidden: [outputs, hidden]
  std::span<const Candidate> candidates;  // kCandidates: [outputs, k], best first
};

// What one step cost. Seconds are wall time.
struct StepStats {
  uint32_t tokens = 0;
  uint32_t head_positions = 0;
  double seconds = 0;
  double projection_seconds = 0;  // inside Device::Submit/Wait, without the head
  double attention_seconds = 0;
  double head_seconds = 0;
  uint64_t weight_bytes = 0;        // streamed, dense and ternary
  uint64_t kv_bytes = 0;            // read by attention
  uint32_t screened_positions = 0;  // of head_positions: found from the head's sketch
  uint32_t screen_fallbacks = 0;    // computed in full because the sketch could not settle them
  uint32_t guard_trips = 0;         // of screen_fallbacks: an exact logit was beyond the guard
  uint64_t refined_rows = 0;        // rows of the head computed exactly for screened positions
};

// Multiply-adds of one layer's ternary projections since the start: all, and those with both
// factors non-zero.
struct LayerActivity {
  uint64_t total_ops = 0;
  uint64_t active_ops = 0;
};

// Valid until the next Step().
struct StepOutput {
  std::span<const RowOutput> rows;  // parallel to Batch::rows
  StepStats stats;
};

}  // namespace engine
