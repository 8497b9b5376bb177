#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/model_config.h"
#include "engine/step_rows.h"
#include "fabric/aligned_buffer.h"
#include "fabric/worker_team.h"

namespace engine {

// Causal attention of every token of a step over its sequence's KV blocks, with online softmax.
//
// Bits:    A query takes positions in chunks of fabric::kAttentionChunk inside partitions of
//          kPartition, both at absolute multiples, and partitions are merged in ascending order,
//          also by one thread. So the result depends on the query and its context only.
// Memory:  allocated once; Attend() keeps its task lists between calls.
// Threads: one thread at a time; spreads over `team`.
class Attention {
 public:
  static constexpr uint32_t kPartition = 256;

  // max_context: longest sequence, which bounds the partitions of one query. Keys and values out of
  // sight are not read. What is in sight: own_window positions, the query's own included (0 = all
  // before it), and of these what the cache's AttentionWindow leaves; its sinks only without an
  // own window.
  Attention(const ModelConfig& config, const KvCache& cache, fabric::WorkerTeam& team,
            uint32_t max_context, uint32_t own_window);

  // Splits the rows into tiles: once per step, before the layers call Attend().
  void Plan(const StepRows& rows);

  // queries, out: [tokens, heads * head_dim]. REQUIRES: the keys and values of all positions that
  // the planned rows see are in the cache.
  void Attend(uint32_t layer, const float* queries, float* out);

  // Bytes of keys and values that one Attend() of the current plan reads, repeated reads counted.
  uint64_t planned_bytes() const { return planned_bytes_; }
  size_t workspace_bytes() const { return scratch_.size() * sizeof(float); }

 private:
  // Consecutive tokens of one row: they share the keys and values that all of them see.
  struct Tile {
    uint32_t first_token = 0;  // in StepRows
    uint32_t tokens = 0;
    uint32_t first_position = 0;
    uint32_t sink_partitions = 0;  // from 0 on, before first_partition
    uint32_t first_partition = 0;  // of what the first token sees beside sinks
    uint32_t partitions = 0;       // that some token sees, those of sinks included
    // The i-th of them.
    uint32_t Partition(uint32_t i) const {
      return i < sink_partitions ? i : first_partition + i - sink_partitions;
    }
    const BlockId* block_table = nullptr;
  };
  // One KV head of a tile.
  struct Job {
    uint32_t tile = 0;
    uint32_t kv_head = 0;
  };
  // One partition of a job, computed apart into its own state.
  struct Piece {
    uint32_t job = 0;
    uint32_t partition = 0;
    size_t state = 0;  // offset in split_states()
  };
  // Running softmax of a tile's queries, views into scratch.
  struct State {
    float* max;          // [queries]
    float* sum;          // [queries]
    float* accumulator;  // [queries, head_dim]
  };

  State StateAt(float* floats, uint32_t queries) const;
  // Rounded up to cache lines, so that an accumulator begins on one.
  size_t StateFloats(uint32_t queries) const {
    return size_t{queries} * head_dim_ + (size_t{queries} * 2 + 15) / 16 * 16;
  }
  float* WorkerScratch(int worker) {
    return scratch_.data() + worker_floats_ * static_cast<size_t>(worker);
  }
  float* split_states() { return WorkerScratch(team_.size()); }

  // The first position that the query at `position` sees beside sinks.
  uint32_t FirstVisible(uint32_t position) const {
    const uint32_t own =
        own_window_ == 0 || position < own_window_ ? 0 : position - own_window_ + 1;
    return std::max(own, window_.Begin(position));
  }
  struct Range {
    uint32_t begin = 0;
    uint32_t end = 0;
  };
  // What the query at `own` sees of the chunk at `position`.
  Range Visible(uint32_t own, uint32_t position) const;
  // Tokens of the tile that see the whole of the chunk at `position`.
  Range SeeingWhole(const Tile& tile, uint32_t position) const;

  void AttendJobs(uint32_t layer, const float* queries, float* out);
  void AttendSplit(uint32_t layer, const float* queries, float* out);
  void AttendWave(uint32_t layer, const float* queries, float* out, size_t begin, size_t end);

  void AttendWhole(uint32_t layer, const Job& job, const float* queries, float* out,
                   float* scratch) const;
  void AttendPartition(uint32_t layer, const Job& job, uint32_t partition, const float* queries,
                       const State& state) const;
  void Merge(const Tile& tile, uint32_t partition, const State& later, const State& state) const;
  void Finish(const Job& job, const State& state, float* out) const;
  // The tile's queries for one KV head, [tokens * group, head_dim]; gathered into `buffer` unless
  // they already lie so.
  const float* TileQueries(const Job& job, const float* queries, float* buffer) const;

  const KvCache& cache_;
  fabric::WorkerTeam& team_;
  uint32_t head_dim_;
  uint32_t kv_heads_;
  uint32_t group_;        // query heads per KV head
  uint32_t tile_tokens_;  // most tokens of a tile
  uint32_t own_window_;   // 0 = none
  AttentionWindow window_;
  float scale_;
  std::vector<Tile> tiles_;
  std::vector<Job> jobs_;
  std::vector<Piece> pieces_;
  std::vector<size_t> job_states_;
  bool inline_ = false;  // too little work to wake the team for
  bool split_ = false;   // fewer jobs than threads can share
  uint64_t planned_bytes_ = 0;
  size_t worker_floats_ = 0;
  size_t split_floats_ = 0;
  fabric::AlignedBuffer<float> scratch_;  // [workers][queries, two states], then split states
};

}  // namespace engine
