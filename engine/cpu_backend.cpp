#include "engine/cpu_backend.h"

#include <algorithm>
#include <cassert>

#include "engine/candidates.h"
#include "engine/finite.h"
#include "engine/stopwatch.h"

namespace engine {

CpuBackend::CpuBackend(std::shared_ptr<const Model> model, const KvGeometry& geometry,
                       uint32_t kv_blocks, const EngineOptions& options, uint32_t max_context,
                       fabric::Device& device, fabric::WorkerTeam& team)
    : model_(std::move(model)),
      device_(device),
      cache_(geometry, kv_blocks),
      states_(model_->config(), geometry.state_slots),
      transformer_(model_->config(), model_->weights(), device, team, cache_, states_,
                   std::max(1U, options.max_batch_tokens), max_context),
      head_(model_->config(), model_->weights(), options, device, team),
      max_batch_tokens_(std::max(1U, options.max_batch_tokens)) {}

StepOutput CpuBackend::Step(const Batch& batch) {
  const Stopwatch stopwatch;
  const fabric::DeviceCounters before = device_.Counters();
  stats_ = {};
  PrepareOutputs(batch);
  if (cache_.geometry().recurrent()) MarkLostStates(batch);
  RunRows(batch, 0, batch.rows.size());
  const fabric::DeviceCounters after = device_.Counters();
  stats_.weight_bytes +=
      (after.weight_bytes - before.weight_bytes) + (after.dense_bytes - before.dense_bytes);
  stats_.seconds = stopwatch.Seconds();
  return {.rows = outputs_, .stats = stats_};
}

// Sizes what the rows give back before anything is computed, so that spans into it stay valid.
void CpuBackend::PrepareOutputs(const Batch& batch) {
  outputs_.assign(batch.rows.size(), RowOutput{});
  hidden_begin_.clear();
  candidates_begin_.clear();
  size_t tokens = 0;
  size_t hidden = 0;
  size_t candidates = 0;
  for (const BatchRow& row : batch.rows) {
    assert(row.output_kind != OutputKind::kLogits || row.outputs.empty() || batch.sink != nullptr);
    hidden_begin_.push_back(hidden);
    candidates_begin_.push_back(candidates);
    tokens += row.tokens.size();
    if (row.output_kind == OutputKind::kHidden) {
      hidden += row.outputs.size() * model_->config().hidden;
    } else if (row.output_kind == OutputKind::kCandidates) {
      candidates += row.outputs.size() * row.query.k;
    }
  }
  assert(tokens <= max_batch_tokens_);
  hidden_outputs_.resize(hidden);
  candidates_.resize(candidates);
  stats_.tokens = static_cast<uint32_t>(tokens);
}

void CpuBackend::RunRows(const Batch& batch, size_t begin, size_t end) {
  if (begin == end) return;
  rows_.Assign(batch, begin, end);
  fabric::Status status = transformer_.Run(&rows_, &stats_);
  if (status != fabric::Status::kOk) {
    std::fill(rows_.non_finite.begin(), rows_.non_finite.end(), uint8_t{0});
    status = transformer_.Run(&rows_, &stats_);
  }
  if (status == fabric::Status::kOk) {
    MarkNonFinite();
    if (cache_.geometry().recurrent()) CommitStates(batch);
    EmitHidden(batch);
    EmitLogits(batch);
    return;
  }
  if (end - begin == 1) {
    outputs_[begin].status = RowStatus::kDeviceFault;
    return;
  }
  const size_t middle = begin + (end - begin) / 2;
  RunRows(batch, begin, middle);
  RunRows(batch, middle, end);
}

// Such a row is computed with the others, on a state that is not its own, and fails.
void CpuBackend::MarkLostStates(const Batch& batch) {
  for (size_t row = 0; row < batch.rows.size(); ++row) {
    assert(batch.rows[row].state_slot < states_.slots());
    if (!states_.Holds(batch.rows[row].state_slot, batch.rows[row].first_position)) {
      outputs_[row].status = RowStatus::kStateLost;
    }
  }
}

void CpuBackend::CommitStates(const Batch& batch) {
  for (size_t row = rows_.begin; row < rows_.end; ++row) {
    const BatchRow& source = batch.rows[row];
    if (Failed(static_cast<uint32_t>(row))) {
      states_.Drop(source.state_slot);
    } else {
      states_.Commit(source.state_slot,
                     source.first_position + static_cast<uint32_t>(source.tokens.size()));
    }
  }
}

// A token's own flag catches what the quantiser met; the residual stream keeps everything else,
// since NaN and infinity survive every addition.
void CpuBackend::MarkNonFinite() {
  const size_t hidden = model_->config().hidden;
  for (uint32_t t = 0; t < rows_.size(); ++t) {
    RowStatus& status = outputs_[rows_.tokens[t].row].status;
    if (status != RowStatus::kOk) continue;
    if (rows_.non_finite[t] != 0 || !AllFinite({transformer_.Hidden(t), hidden})) {
      status = RowStatus::kNonFinite;
    }
  }
}

void CpuBackend::EmitHidden(const Batch& batch) {
  const size_t hidden = model_->config().hidden;
  for (size_t row = rows_.begin; row < rows_.end; ++row) {
    const BatchRow& source = batch.rows[row];
    if (source.output_kind != OutputKind::kHidden || Failed(static_cast<uint32_t>(row))) continue;
    float* out = hidden_outputs_.data() + hidden_begin_[row];
    for (size_t i = 0; i < source.outputs.size(); ++i) {
      const uint32_t token = rows_.first_token[row - rows_.begin] + source.outputs[i];
      head_.FinalNorm(transformer_.Hidden(token), out + i * hidden);
    }
    outputs_[row].hidden = {out, source.outputs.size() * hidden};
  }
}

void CpuBackend::EmitLogits(const Batch& batch) {
  const Stopwatch stopwatch;
  head_positions_.clear();
  for (size_t row = rows_.begin; row < rows_.end; ++row) {
    const BatchRow& source = batch.rows[row];
    const bool wanted =
        source.output_kind == OutputKind::kLogits || source.output_kind == OutputKind::kCandidates;
    if (!wanted || Failed(static_cast<uint32_t>(row))) continue;
    for (size_t i = 0; i < source.outputs.size(); ++i) {
      const uint32_t token = rows_.first_token[row - rows_.begin] + source.outputs[i];
      head_positions_.push_back({.row = static_cast<uint32_t>(row),
                                 .output = static_cast<uint32_t>(i),
                                 .hidden = transformer_.Hidden(token)});
    }
    if (source.output_kind == OutputKind::kCandidates) {
      outputs_[row].candidates = {candidates_.data() + candidates_begin_[row],
                                  source.outputs.size() * source.query.k};
    }
  }
  const auto only_candidates = [&](const HeadPosition& position) {
    return batch.rows[position.row].output_kind == OutputKind::kCandidates;
  };
  // Positions that a statistical bound may decide are decided by it whatever is beside them.
  const auto full =
      head_.mode() == HeadMode::kScreened
          ? std::stable_partition(head_positions_.begin(), head_positions_.end(), only_candidates)
          : head_positions_.begin();
  const auto screened = static_cast<size_t>(full - head_positions_.begin());
  EmitPositions(batch, std::span(head_positions_).first(screened));
  EmitPositions(batch, std::span(head_positions_).subspan(screened));
  stats_.head_positions += static_cast<uint32_t>(head_positions_.size());
  stats_.head_seconds += stopwatch.Seconds();
}

void CpuBackend::EmitPositions(const Batch& batch, std::span<const HeadPosition> positions) {
  for (size_t first = 0; first < positions.size(); first += head_.capacity()) {
    const size_t count = std::min<size_t>(head_.capacity(), positions.size() - first);
    const std::span<const HeadPosition> chunk = positions.subspan(first, count);
    CanScreen(batch, chunk) ? EmitScreened(batch, chunk) : EmitChunk(batch, chunk);
  }
}

bool CpuBackend::CanScreen(const Batch& batch, std::span<const HeadPosition> positions) {
  const bool only_candidates =
      std::all_of(positions.begin(), positions.end(), [&](const HeadPosition& position) {
        return batch.rows[position.row].output_kind == OutputKind::kCandidates;
      });
  return only_candidates && head_.WantsScreen(positions.size());
}

// What the sketch cannot settle is computed in full.
void CpuBackend::EmitScreened(const Batch& batch, std::span<const HeadPosition> positions) {
  chunk_hidden_.clear();
  unscreened_.clear();
  for (const HeadPosition& position : positions) chunk_hidden_.push_back(position.hidden);
  head_.Screen(chunk_hidden_);
  stats_.weight_bytes += head_.sketch_bytes();
  for (size_t i = 0; i < positions.size(); ++i) {
    const HeadQuery& query = batch.rows[positions[i].row].query;
    if (!head_.FindBest(i, query, CandidatesOf(batch, positions[i]), &stats_)) {
      unscreened_.push_back(positions[i]);
    }
  }
  stats_.screen_fallbacks += static_cast<uint32_t>(unscreened_.size());
  if (!unscreened_.empty()) EmitChunk(batch, unscreened_);
}

std::span<Candidate> CpuBackend::CandidatesOf(const Batch& batch, const HeadPosition& position) {
  const uint32_t k = batch.rows[position.row].query.k;
  const size_t first = candidates_begin_[position.row] + size_t{position.output} * k;
  return std::span(candidates_).subspan(first, k);
}

// Retries and halves a failing chunk as RunRows() does; positions stay in order.
void CpuBackend::EmitChunk(const Batch& batch, std::span<const HeadPosition> positions) {
  chunk_hidden_.clear();
  for (const HeadPosition& position : positions) chunk_hidden_.push_back(position.hidden);
  fabric::Status status = head_.Compute(chunk_hidden_);
  if (status != fabric::Status::kOk) status = head_.Compute(chunk_hidden_);
  if (status == fabric::Status::kOk) {
    for (size_t i = 0; i < positions.size(); ++i) Deliver(batch, positions[i], head_.Logits(i));
    return;
  }
  if (positions.size() == 1) {
    outputs_[positions.front().row].status = RowStatus::kDeviceFault;
    return;
  }
  const size_t middle = positions.size() / 2;
  EmitChunk(batch, positions.first(middle));
  EmitChunk(batch, positions.subspan(middle));
}

void CpuBackend::Deliver(const Batch& batch, const HeadPosition& position,
                         std::span<float> logits) {
  RowOutput& output = outputs_[position.row];
  if (output.status != RowStatus::kOk) return;
  if (!AllFinite(logits)) {
    output.status = RowStatus::kNonFinite;
    return;
  }
  const BatchRow& row = batch.rows[position.row];
  if (row.output_kind == OutputKind::kLogits) {
    batch.sink->OnLogits(position.row, position.output, logits);
    return;
  }
  for (const LogitBias& bias : row.query.bias) {
    logits[static_cast<size_t>(bias.token)] += bias.bias;
  }
  SelectBest(logits, row.query.mask, CandidatesOf(batch, position));
}

size_t CpuBackend::workspace_bytes() const {
  return transformer_.workspace_bytes() + head_.workspace_bytes();
}

}  // namespace engine
