#include "scheduler/model_drafter.h"

#include <algorithm>
#include <cassert>
#include <exception>
#include <limits>

namespace scheduler {

using engine::BlockId;
using engine::TokenId;

class ModelDrafter::Sink : public engine::LogitsSink {
 public:
  Sink(ModelDrafter& drafter, std::span<GuessRow> rows, const Draw& draw)
      : drafter_(drafter), rows_(rows), draw_(draw) {}

  // Called from inside the engine's step, where an exception of one row must not reach the others.
  void OnLogits(size_t row, size_t /*output*/, std::span<float> logits) override {
    const Place& place = drafter_.places_[row];
    GuessRow& guess = rows_[place.row];
    try {
      const auto token = draw_(place.row, place.first + place.count, drafter_.Pad(logits));
      if (token) guess.drafts.push_back(*token);
    } catch (const std::exception&) {
      guess.failed = true;
    }
  }

 private:
  ModelDrafter& drafter_;
  std::span<GuessRow> rows_;
  const Draw& draw_;
};

ModelDrafter::ModelDrafter(const DraftSource& source)
    : source_(source), block_size_(source.runner->kv_geometry().block_size) {
  assert(source.max_batch_tokens > 0);
  if (!keeps_cache()) return;
  assert(source.runner->kv_geometry().window.tokens == 0);
  filled_.assign(source.runner->kv_blocks(), 0);
}

void ModelDrafter::Move(std::span<const BlockMove> moves) {
  if (!keeps_cache()) return;
  for (const BlockMove& move : moves) {
    switch (move.kind) {
      case BlockMove::Kind::kCopy:
        if (filled_[move.from] > 0) source_.runner->CopyBlock(move.from, move.to);
        filled_[move.to] = filled_[move.from];
        break;
      case BlockMove::Kind::kSwapOut:
        break;
      case BlockMove::Kind::kSwapIn:  // computed again: host memory has the served model's alone
        filled_[move.to] = 0;
        break;
    }
  }
}

void ModelDrafter::Forget(const Sequence& sequence, uint32_t first, uint32_t count) {
  if (!keeps_cache()) return;
  for (uint32_t position = first; position < first + count;) {
    uint32_t& filled = filled_[sequence.blocks[position / block_size_]];
    filled = std::min(filled, position % block_size_);
    position += block_size_ - position % block_size_;
  }
}

uint32_t ModelDrafter::Computed(const Sequence& sequence) const {
  if (!keeps_cache()) return sequence.num_computed;
  uint32_t computed = 0;
  for (const BlockId block : sequence.blocks) {
    computed += filled_[block];
    if (filled_[block] < block_size_) break;
  }
  return std::min(computed, sequence.num_computed);
}

void ModelDrafter::Draft(std::span<GuessRow> rows, const Draw& draw) {
  last_tokens_ = 0;
  for (GuessRow& row : rows) row.drafts.reserve(row.room);
  PlanFirst(rows);
  for (uint32_t index = 1; !places_.empty(); ++index) {
    RunPlaces(rows, draw);
    PlanNext(rows, index);
  }
}

// What each sequence lacks and its last token, as far as a step has room.
void ModelDrafter::PlanFirst(std::span<GuessRow> rows) {
  places_.clear();
  claimed_.clear();
  auto left = source_.max_batch_tokens;
  for (size_t i = 0; i < rows.size() && left > 0; ++i) {
    Place place{.row = i};
    if (rows[i].room == 0 || !PlanRow(rows[i], left, &place)) continue;
    places_.push_back(place);
    left -= place.count;
  }
}

bool ModelDrafter::PlanRow(GuessRow& row, uint32_t budget, Place* place) {
  const Sequence& sequence = *row.sequence;
  assert(sequence.num_computed + 1 == sequence.tokens.size());
  place->first = Computed(sequence);
  const uint32_t lacking = sequence.num_computed + 1 - place->first;
  place->count = std::min(lacking, budget);
  place->draws = place->count == lacking;
  place->output = place->count - 1;
  if (!keeps_cache()) return true;
  // From here on the other model has no place for the text, or no word for what it says.
  row.failed = place->first + place->count > source_.runner->context_length() ||
               !Knows(std::span(sequence.tokens).subspan(place->first, place->count));
  return !row.failed && Claim(sequence, *place);
}

bool ModelDrafter::Knows(std::span<const TokenId> tokens) const {
  const auto vocabulary = static_cast<TokenId>(source_.runner->vocabulary());
  return std::all_of(tokens.begin(), tokens.end(), [&](TokenId t) { return t < vocabulary; });
}

// Two sequences that share a block lack the same of it: one of them computes it, the other finds it
// in the next step.
bool ModelDrafter::Claim(const Sequence& sequence, const Place& place) {
  const auto begin = sequence.blocks.begin() + place.first / block_size_;
  const auto end = sequence.blocks.begin() + (place.first + place.count - 1) / block_size_ + 1;
  if (std::find_first_of(begin, end, claimed_.begin(), claimed_.end()) != end) return false;
  claimed_.insert(claimed_.end(), begin, end);
  return true;
}

// The tokens that were just drafted, of the sequences that have room for more.
void ModelDrafter::PlanNext(std::span<const GuessRow> rows, uint32_t index) {
  const auto goes_on = [&](const Place& place) {
    const GuessRow& row = rows[place.row];
    if (!place.draws || row.failed || row.drafts.size() != index || row.room == index) return false;
    return !keeps_cache() || (place.first + place.count < source_.runner->context_length() &&
                              Knows(std::span(row.drafts).last(1)));
  };
  std::erase_if(places_, [&](const Place& place) { return !goes_on(place); });
  for (Place& place : places_) {
    place = {.row = place.row, .first = place.first + place.count, .count = 1, .draws = true};
  }
}

void ModelDrafter::RunPlaces(std::span<GuessRow> rows, const Draw& draw) {
  std::vector<engine::BatchRow> batch;
  for (const Place& place : places_) {
    last_tokens_ += place.count;
    const GuessRow& row = rows[place.row];
    const Sequence& sequence = *row.sequence;
    engine::BatchRow& out = batch.emplace_back();
    out.tokens = place.first < sequence.tokens.size()
                     ? std::span(sequence.tokens).subspan(place.first, place.count)
                     : std::span(row.drafts).last(1);
    out.first_position = place.first;
    out.block_table = sequence.blocks;
    if (!keeps_cache()) out.adapters = row.adapters;
    if (!place.draws) continue;
    out.outputs = {&place.output, 1};
    const bool few =
        source_.runner->gives_candidates() && row.candidates <= source_.runner->vocabulary();
    out.query.k = few ? row.candidates : 0;
    out.output_kind =
        out.query.k == 0 ? engine::OutputKind::kLogits : engine::OutputKind::kCandidates;
  }
  Sink sink(*this, rows, draw);
  const engine::StepOutput output =
      source_.runner->Step({.rows = batch, .sink = &sink, .layers = source_.layers});
  for (size_t i = 0; i < places_.size(); ++i) {
    if (output.rows[i].status != engine::RowStatus::kOk) {
      rows[places_[i].row].failed = true;
      continue;
    }
    Fill(*rows[places_[i].row].sequence, places_[i]);
    if (!output.rows[i].candidates.empty()) {
      sink.OnLogits(i, 0, sparse_logits_.Spread(output.rows[i].candidates, source_.vocabulary));
    }
  }
}

void ModelDrafter::Fill(const Sequence& sequence, const Place& place) {
  if (!keeps_cache()) return;
  const uint32_t end = place.first + place.count;
  for (uint32_t position = place.first; position < end;) {
    const uint32_t begin = position - position % block_size_;
    filled_[sequence.blocks[position / block_size_]] = std::min(end - begin, block_size_);
    position = begin + block_size_;
  }
}

std::span<float> ModelDrafter::Pad(std::span<float> logits) {
  if (logits.size() == source_.vocabulary) return logits;
  padded_.assign(source_.vocabulary, -std::numeric_limits<float>::infinity());
  std::copy_n(logits.begin(), std::min(logits.size(), padded_.size()), padded_.begin());
  return padded_;
}

}  // namespace scheduler
