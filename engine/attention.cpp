#include "engine/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include "fabric/vector_ops.h"

namespace engine {
namespace {

// Queries of a tile: their state (32 x 128 floats) stays in the first-level cache beside a chunk.
constexpr uint32_t kTileQueries = 32;
// Below this many multiply-adds a wake-up of the team costs more than it saves.
constexpr uint64_t kInlineWork = 100'000;
// Room for states of split contexts, in floats (4 MiB); one job's worst case if that is more.
constexpr size_t kSplitFloats = size_t{1} << 20;

uint32_t PartitionsFor(uint32_t positions) {
  return (positions + Attention::kPartition - 1) / Attention::kPartition;
}

}  // namespace

Attention::Attention(const ModelConfig& config, const KvCache& cache, fabric::WorkerTeam& team,
                     uint32_t max_context, uint32_t own_window)
    : cache_(cache),
      team_(team),
      head_dim_(config.head_dim),
      kv_heads_(config.kv_heads),
      group_(config.heads / config.kv_heads),
      tile_tokens_(std::max(1U, kTileQueries / group_)),
      own_window_(own_window),
      window_(cache.geometry().window),
      scale_(1.0F / std::sqrt(static_cast<float>(config.score_dim > 0 ? config.score_dim
                                                                      : config.head_dim))) {
  if (own_window > 0) window_.sinks = 0;
  const uint32_t queries = tile_tokens_ * group_;
  const size_t partitions = PartitionsFor(max_context);
  // Whole cache lines per worker, so that none writes into another's.
  worker_floats_ = (size_t{queries} * head_dim_ + 2 * StateFloats(queries) + 15) / 16 * 16;
  split_floats_ = std::max(kSplitFloats, partitions * StateFloats(queries));
  scratch_ = fabric::AlignedBuffer<float>(worker_floats_ * static_cast<size_t>(team.size()) +
                                          split_floats_);
}

void Attention::Plan(const StepRows& rows) {
  tiles_.clear();
  jobs_.clear();
  planned_bytes_ = 0;
  uint64_t work = 0;
  uint32_t most_partitions = 0;
  for (size_t row = rows.begin; row < rows.end; ++row) {
    const BatchRow& source = rows.batch->rows[row];
    const auto count = static_cast<uint32_t>(source.tokens.size());
    for (uint32_t first = 0; first < count; first += tile_tokens_) {
      const uint32_t tokens = std::min(tile_tokens_, count - first);
      const uint32_t end = source.first_position + first + tokens;
      const uint32_t begin = FirstVisible(source.first_position + first);
      const uint32_t sinks = std::min(window_.sinks, begin);
      const uint32_t positions = end - begin + sinks;
      const uint32_t first_partition = begin / kPartition;
      const uint32_t sink_partitions = std::min(PartitionsFor(sinks), first_partition);
      tiles_.push_back({.first_token = rows.first_token[row - rows.begin] + first,
                        .tokens = tokens,
                        .first_position = source.first_position + first,
                        .sink_partitions = sink_partitions,
                        .first_partition = first_partition,
                        .partitions = PartitionsFor(end) - first_partition + sink_partitions,
                        .block_table = source.block_table.data()});
      work += uint64_t{positions} * tokens;
      most_partitions = std::max(most_partitions, tiles_.back().partitions);
      planned_bytes_ += uint64_t{positions} * kv_heads_ * 2 * cache_.geometry().RowBytes();
    }
  }
  for (uint32_t tile = 0; tile < tiles_.size(); ++tile) {
    for (uint32_t head = 0; head < kv_heads_; ++head) jobs_.push_back({tile, head});
  }
  const auto threads = static_cast<size_t>(team_.size());
  inline_ = threads == 1 || work * kv_heads_ * group_ * head_dim_ * 2 < kInlineWork;
  split_ = !inline_ && most_partitions > 1 && jobs_.size() < 4 * threads;
}

void Attention::Attend(uint32_t layer, const float* queries, float* out) {
  if (split_) {
    AttendSplit(layer, queries, out);
  } else {
    AttendJobs(layer, queries, out);
  }
}

void Attention::AttendJobs(uint32_t layer, const float* queries, float* out) {
  const auto task = [&](int worker, size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) {
      AttendWhole(layer, jobs_[i], queries, out, WorkerScratch(worker));
    }
  };
  if (inline_) {
    task(0, 0, jobs_.size());
  } else {
    team_.ParallelFor(jobs_.size(), 1, std::ref(task));
  }
}

// Jobs in waves whose states fit the room for them.
void Attention::AttendSplit(uint32_t layer, const float* queries, float* out) {
  size_t begin = 0;
  while (begin < jobs_.size()) {
    size_t floats = 0;
    size_t end = begin;
    pieces_.clear();
    job_states_.clear();
    for (; end < jobs_.size(); ++end) {
      const Tile& tile = tiles_[jobs_[end].tile];
      const size_t state = StateFloats(tile.tokens * group_);
      if (end > begin && floats + tile.partitions * state > split_floats_) break;
      job_states_.push_back(floats);
      for (uint32_t partition = 0; partition < tile.partitions; ++partition) {
        pieces_.push_back({static_cast<uint32_t>(end), tile.Partition(partition), floats});
        floats += state;
      }
    }
    AttendWave(layer, queries, out, begin, end);
    begin = end;
  }
}

void Attention::AttendWave(uint32_t layer, const float* queries, float* out, size_t begin,
                           size_t end) {
  const auto attend = [&](int worker, size_t first, size_t last) {
    for (size_t i = first; i < last; ++i) {
      const Piece& piece = pieces_[i];
      const Job& job = jobs_[piece.job];
      const float* tile_queries = TileQueries(job, queries, WorkerScratch(worker));
      AttendPartition(layer, job, piece.partition, tile_queries,
                      StateAt(split_states() + piece.state, tiles_[job.tile].tokens * group_));
    }
  };
  team_.ParallelFor(pieces_.size(), 1, std::ref(attend));

  for (size_t i = begin; i < end; ++i) {
    const Tile& tile = tiles_[jobs_[i].tile];
    const uint32_t tile_queries = tile.tokens * group_;
    float* floats = split_states() + job_states_[i - begin];
    const State state = StateAt(floats, tile_queries);
    for (uint32_t partition = 1; partition < tile.partitions; ++partition) {
      Merge(tile, tile.Partition(partition),
            StateAt(floats + partition * StateFloats(tile_queries), tile_queries), state);
    }
    Finish(jobs_[i], state, out);
  }
}

void Attention::AttendWhole(uint32_t layer, const Job& job, const float* queries, float* out,
                            float* scratch) const {
  const Tile& tile = tiles_[job.tile];
  const uint32_t count = tile.tokens * group_;
  const float* tile_queries = TileQueries(job, queries, scratch);
  float* states = scratch + size_t{tile_tokens_} * group_ * head_dim_;
  const State state = StateAt(states, count);
  const State later = StateAt(states + StateFloats(count), count);
  AttendPartition(layer, job, tile.Partition(0), tile_queries, state);
  for (uint32_t i = 1; i < tile.partitions; ++i) {
    AttendPartition(layer, job, tile.Partition(i), tile_queries, later);
    Merge(tile, tile.Partition(i), later, state);
  }
  Finish(job, state, out);
}

// Chunk by chunk: the tokens that see only part of a chunk go one by one, those that see all of it
// together. Every query meets the same chunks in the same order either way.
void Attention::AttendPartition(uint32_t layer, const Job& job, uint32_t partition,
                                const float* queries, const State& state) const {
  const Tile& tile = tiles_[job.tile];
  const uint32_t total = tile.tokens * group_;
  std::fill_n(state.max, total, -std::numeric_limits<float>::infinity());
  std::fill_n(state.sum, total, 0.0F);
  std::fill_n(state.accumulator, size_t{total} * head_dim_, 0.0F);

  const KvGeometry& geometry = cache_.geometry();
  const bool scaled = fabric::KvScaleBytes(geometry.type) > 0;
  fabric::AttentionChunk chunk;
  chunk.element = geometry.type;
  chunk.head_dim = head_dim_;
  chunk.scale = scale_;
  const size_t row_bytes = fabric::KvCodeBytes(geometry.type, head_dim_);
  // Tokens [first_token, first_token + tokens) with `count` positions of a block from `from` on.
  const auto attend = [&](uint32_t first_token, uint32_t tokens, BlockId block, uint32_t from,
                          uint32_t count) {
    const size_t first = size_t{first_token} * group_;
    const auto rows = [&](const void* codes) {
      return static_cast<const std::byte*>(codes) + from * row_bytes;
    };
    chunk.keys = rows(cache_.Keys(layer, block, job.kv_head));
    chunk.values = rows(cache_.Values(layer, block, job.kv_head));
    if (scaled) {
      chunk.key_scales = cache_.KeyScales(layer, block, job.kv_head) + from;
      chunk.value_scales = cache_.ValueScales(layer, block, job.kv_head) + from;
    }
    chunk.count = count;
    chunk.group = tokens * group_;
    chunk.queries = queries + first * head_dim_;
    chunk.max = state.max + first;
    chunk.sum = state.sum + first;
    chunk.accumulator = state.accumulator + first * head_dim_;
    fabric::AttendChunk(chunk);
    chunk.next_keys = chunk.next_values = nullptr;
  };

  const uint32_t last_position = tile.first_position + tile.tokens - 1;
  const uint32_t first_visible = FirstVisible(tile.first_position);
  const uint32_t end = std::min((partition + 1) * kPartition, last_position + 1);
  for (uint32_t position = partition * kPartition; position < end;
       position += fabric::kAttentionChunk) {
    const bool seen = position + fabric::kAttentionChunk > first_visible;
    if (!seen && position >= window_.sinks) {
      // To the chunk of the first visible position, which lies ahead.
      const uint32_t chunks = (first_visible - position) / fabric::kAttentionChunk;
      position += (chunks - 1) * fabric::kAttentionChunk;
      continue;
    }
    const BlockId block = tile.block_table[position / geometry.block_size];
    const uint32_t offset = position % geometry.block_size;
    if (const uint32_t next = position + fabric::kAttentionChunk; next <= last_position) {
      const BlockId next_block = tile.block_table[next / geometry.block_size];
      const size_t skipped = next % geometry.block_size * row_bytes;
      const auto rows = [&](const void* codes) {
        return static_cast<const std::byte*>(codes) + skipped;
      };
      chunk.next_keys = rows(cache_.Keys(layer, next_block, job.kv_head));
      chunk.next_values = rows(cache_.Values(layer, next_block, job.kv_head));
    }
    const auto attend_part = [&](uint32_t token) {
      const Range range = Visible(tile.first_position + token, position);
      if (range.begin == range.end) return;
      attend(token, 1, block, offset + range.begin - position, range.end - range.begin);
    };
    const Range whole = SeeingWhole(tile, position);
    for (uint32_t token = 0; token < whole.begin; ++token) attend_part(token);
    if (whole.begin < whole.end) {
      attend(whole.begin, whole.end - whole.begin, block, offset, fabric::kAttentionChunk);
    }
    for (uint32_t token = whole.end; token < tile.tokens; ++token) attend_part(token);
  }
}

Attention::Range Attention::Visible(uint32_t own, uint32_t position) const {
  const uint32_t chunk_end = position + fabric::kAttentionChunk;
  const uint32_t first = FirstVisible(own);
  // Sinks end before the window begins, or are part of it.
  const uint32_t begin = first < chunk_end ? std::max(first, position) : position;
  const uint32_t end = first < chunk_end ? std::min(own + 1, chunk_end)
                                         : std::min(std::max(window_.sinks, position), chunk_end);
  return {begin, std::max(begin, end)};
}

Attention::Range Attention::SeeingWhole(const Tile& tile, uint32_t position) const {
  const auto token_at = [&](uint32_t at) {
    return at > tile.first_position ? std::min(at - tile.first_position, tile.tokens) : 0;
  };
  const uint32_t begin = token_at(position + fabric::kAttentionChunk - 1);
  uint32_t end = tile.tokens;
  if (own_window_ > 0) end = std::min(end, token_at(position + own_window_));
  const bool sinks = position + fabric::kAttentionChunk <= window_.sinks;
  if (window_.tokens > 0 && !sinks) end = std::min(end, token_at(position + window_.tokens));
  return {begin, std::max(begin, end)};
}

// Only the tokens that see the partition: the others' states hold nothing to merge.
void Attention::Merge(const Tile& tile, uint32_t partition, const State& later,
                      const State& state) const {
  const uint32_t begin = partition * kPartition;
  const uint32_t first_seeing = begin > tile.first_position ? begin - tile.first_position : 0;
  const size_t first = size_t{first_seeing} * group_;
  fabric::MergeAttention((tile.tokens - first_seeing) * group_, head_dim_, later.max + first,
                         later.sum + first, later.accumulator + first * head_dim_,
                         state.max + first, state.sum + first,
                         state.accumulator + first * head_dim_);
}

void Attention::Finish(const Job& job, const State& state, float* out) const {
  const Tile& tile = tiles_[job.tile];
  const size_t width = size_t{kv_heads_} * group_ * head_dim_;
  for (uint32_t token = 0; token < tile.tokens; ++token) {
    const size_t first = size_t{token} * group_;
    fabric::FinishAttention(
        group_, head_dim_, state.sum + first, state.accumulator + first * head_dim_,
        out + (tile.first_token + token) * width + size_t{job.kv_head} * group_ * head_dim_);
  }
}

const float* Attention::TileQueries(const Job& job, const float* queries, float* buffer) const {
  const Tile& tile = tiles_[job.tile];
  const size_t width = size_t{kv_heads_} * group_ * head_dim_;
  const size_t per_token = size_t{group_} * head_dim_;
  const float* first = queries + tile.first_token * width + job.kv_head * per_token;
  if (tile.tokens == 1 || kv_heads_ == 1) return first;
  for (uint32_t token = 0; token < tile.tokens; ++token) {
    std::memcpy(buffer + token * per_token, first + token * width, per_token * sizeof(float));
  }
  return buffer;
}

Attention::State Attention::StateAt(float* floats, uint32_t queries) const {
  float* max = floats + size_t{queries} * head_dim_;
  return {.max = max, .sum = max + queries, .accumulator = floats};
}

}  // namespace engine
