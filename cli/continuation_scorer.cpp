#include "cli/continuation_scorer.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "fabric/vector_ops.h"

namespace cli {
namespace {

using engine::BlockId;
using engine::TokenId;

// Tokens of a wave: several batches' worth, so that the last, part-filled batch costs little.
constexpr uint32_t kBatchesPerWave = 4;

size_t LongestContinuation(const ScoringItem& item) {
  size_t longest = 0;
  for (const auto& tokens : item.continuations) longest = std::max(longest, tokens.size());
  return longest;
}

void AddToken(std::span<const float> logits, TokenId token, ContinuationScore* score) {
  const float log_sum = fabric::LogSumExp(logits.data(), logits.size());
  const auto best = std::max_element(logits.begin(), logits.end());
  score->logprob += double{logits[static_cast<size_t>(token)]} - double{log_sum};
  score->greedy = score->greedy && best - logits.begin() == token;
}

// Hands each row's logits to its job.
class Receiver : public engine::LogitsSink {
 public:
  using Handler = std::function<void(size_t row, size_t output, std::span<const float> logits)>;
  explicit Receiver(Handler on_logits) : on_logits_(std::move(on_logits)) {}
  void OnLogits(size_t row, size_t output, std::span<float> logits) override {
    on_logits_(row, output, logits);
  }

 private:
  Handler on_logits_;
};

}  // namespace

ContinuationScorer::ContinuationScorer(LocalModel& model, uint32_t context)
    : model_(model), context_(context) {}

void ContinuationScorer::Score(std::span<const ScoringItem> items, const OnScored& on_scored) {
  std::vector<Prepared> all;
  all.reserve(items.size());
  const uint32_t tokens = std::max(context_, kBatchesPerWave * model_.max_batch_tokens());
  model_.PrepareKv((tokens + context_ - 1) / context_, context_);
  block_size_ = model_.engine().kv_geometry().block_size;
  blocks_ = model_.engine().kv_blocks();
  uint32_t largest = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    all.push_back(Prepare(items, i));
    largest = std::max(largest, BlocksOf(items[i], all[i]));
  }
  if (largest > blocks_) {
    // One item alone is larger than a wave: a pool that holds it.
    model_.PrepareKv((largest * block_size_ + context_ - 1) / context_, context_);
    blocks_ = model_.engine().kv_blocks();
  }
  for (size_t begin = 0; begin < all.size();) {
    size_t end = begin;
    uint32_t needed = 0;
    while (end < all.size() && needed + BlocksOf(items[end], all[end]) <= blocks_) {
      needed += BlocksOf(items[end], all[end]);
      ++end;
    }
    ScoreWave(items, std::span(all).subspan(begin, end - begin));
    for (; begin < end; ++begin) {
      on_scored(begin, all[begin].scores, all[begin].truncated);
      all[begin] = {};
    }
  }
}

ContinuationScorer::Prepared ContinuationScorer::Prepare(std::span<const ScoringItem> items,
                                                         size_t index) const {
  const ScoringItem& item = items[index];
  const size_t longest = LongestContinuation(item);
  // The last token of a continuation is predicted, never computed.
  if (longest > context_) {
    throw std::runtime_error("A continuation has " + std::to_string(longest) +
                             " tokens, but the context length is " + std::to_string(context_) +
                             ".");
  }
  const size_t room = context_ - longest + 1;
  Prepared prepared;
  prepared.item = index;
  prepared.truncated = item.context.size() > room;
  prepared.context = item.context;
  if (prepared.truncated) prepared.context = prepared.context.last(room);
  prepared.scores.resize(item.continuations.size());
  return prepared;
}

uint32_t ContinuationScorer::BlocksOf(const ScoringItem& item, const Prepared& prepared) const {
  const auto context = static_cast<uint32_t>(prepared.context.size());
  const uint32_t shared = context / block_size_;
  uint32_t blocks = (context + block_size_ - 1) / block_size_;
  for (const auto& tokens : item.continuations) {
    if (tokens.size() < 2) continue;
    const auto length = context + static_cast<uint32_t>(tokens.size()) - 1;
    blocks += (length + block_size_ - 1) / block_size_ - shared;
  }
  return blocks;
}

std::vector<BlockId> ContinuationScorer::TakeBlocks(uint32_t count) {
  std::vector<BlockId> blocks(count);
  std::iota(blocks.begin(), blocks.end(), static_cast<BlockId>(next_block_));
  next_block_ += count;
  return blocks;
}

void ContinuationScorer::ScoreWave(std::span<const ScoringItem> items, std::span<Prepared> wave) {
  next_block_ = 0;
  std::vector<Job> contexts;
  for (Prepared& prepared : wave) {
    const ScoringItem& item = items[prepared.item];
    const auto length = static_cast<uint32_t>(prepared.context.size());
    prepared.blocks = TakeBlocks((length + block_size_ - 1) / block_size_);
    contexts.push_back({.tokens = prepared.context,
                        .position = 0,
                        .blocks = prepared.blocks,
                        .last_only = true,
                        .on_logits = [&item, &prepared](size_t, std::span<const float> logits) {
                          for (size_t c = 0; c < item.continuations.size(); ++c) {
                            AddToken(logits, item.continuations[c][0], &prepared.scores[c]);
                          }
                        }});
  }
  Run(std::move(contexts));
  std::vector<Job> continuations;
  for (Prepared& prepared : wave) {
    const ScoringItem& item = items[prepared.item];
    for (size_t c = 0; c < item.continuations.size(); ++c) {
      if (item.continuations[c].size() < 2) continue;
      continuations.push_back(ContinuationJob(item, &prepared, c));
    }
  }
  Run(std::move(continuations));
}

ContinuationScorer::Job ContinuationScorer::ContinuationJob(const ScoringItem& item,
                                                            Prepared* prepared,
                                                            size_t continuation) {
  const std::vector<TokenId>& tokens = item.continuations[continuation];
  const auto context = static_cast<uint32_t>(prepared->context.size());
  const uint32_t shared = context / block_size_;
  const auto length = context + static_cast<uint32_t>(tokens.size()) - 1;
  Job job;
  job.tokens = std::span(tokens).first(tokens.size() - 1);
  job.position = context;
  job.blocks.assign(prepared->blocks.begin(), prepared->blocks.begin() + shared);
  const std::vector<BlockId> own = TakeBlocks((length + block_size_ - 1) / block_size_ - shared);
  if (context % block_size_ != 0) {
    model_.engine().CopyBlock(prepared->blocks[shared], own[0]);
  }
  job.blocks.insert(job.blocks.end(), own.begin(), own.end());
  job.on_logits = [&tokens, prepared, continuation](size_t token, std::span<const float> logits) {
    AddToken(logits, tokens[token + 1], &prepared->scores[continuation]);
  };
  return job;
}

void ContinuationScorer::Run(std::vector<Job> jobs) {
  const uint32_t most = model_.max_batch_tokens();
  std::vector<size_t> done(jobs.size());  // tokens computed of each job
  for (size_t first = 0; first < jobs.size();) {
    std::vector<engine::BatchRow> rows;
    std::vector<std::vector<uint32_t>> outputs;
    std::vector<size_t> job_of;
    uint32_t filled = 0;
    for (size_t j = first; j < jobs.size() && filled < most; ++j) {
      const Job& job = jobs[j];
      const auto count =
          static_cast<uint32_t>(std::min<size_t>(job.tokens.size() - done[j], most - filled));
      std::vector<uint32_t> wanted;
      for (uint32_t i = 0; i < count; ++i) {
        if (!job.last_only || done[j] + i + 1 == job.tokens.size()) wanted.push_back(i);
      }
      outputs.push_back(std::move(wanted));
      job_of.push_back(j);
      engine::BatchRow row;
      row.tokens = job.tokens.subspan(done[j], count);
      row.first_position = job.position + static_cast<uint32_t>(done[j]);
      row.block_table = job.blocks;
      row.adapters = model_.adapters();
      rows.push_back(row);
      filled += count;
    }
    bool any = false;
    for (size_t r = 0; r < rows.size(); ++r) {
      rows[r].outputs = outputs[r];
      if (outputs[r].empty()) continue;
      rows[r].output_kind = engine::OutputKind::kLogits;
      any = true;
    }
    Receiver receiver([&](size_t row, size_t output, std::span<const float> logits) {
      const size_t j = job_of[row];
      jobs[j].on_logits(done[j] + outputs[row][output], logits);
    });
    const engine::StepOutput result =
        model_.engine().Step({.rows = rows, .sink = any ? &receiver : nullptr});
    for (size_t r = 0; r < rows.size(); ++r) {
      const engine::RowStatus status = result.rows[r].status;
      if (status != engine::RowStatus::kOk) {
        throw std::runtime_error(RowStatusText(status, rows[r].first_position));
      }
      done[job_of[r]] += rows[r].tokens.size();
    }
    tokens_computed_ += filled;
    while (first < jobs.size() && done[first] == jobs[first].tokens.size()) ++first;
  }
}

}  // namespace cli
