#include "tests/scheduler/fake_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "engine/candidates.h"
#include "scheduler/engine_loop.h"

namespace scheduler {
namespace {

using engine::TokenId;

constexpr std::chrono::seconds kPatience{60};

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

bool Contains(std::span<const TokenId> tokens, TokenId token) {
  return std::find(tokens.begin(), tokens.end(), token) != tokens.end();
}

}  // namespace

FakeRunner::FakeRunner(Options options) : options_(options) {
  geometry_.block_size = options.block_size;
  geometry_.window = options.window;
  kv_.assign(options.kv_blocks, std::vector<TokenId>(options.block_size, -1));
}

engine::StepOutput FakeRunner::Step(const engine::Batch& batch) {
  PassGate();
  ++steps;
  if (on_step) on_step(batch);
  outputs_.assign(batch.rows.size(), {});
  candidates_.assign(batch.rows.size(), {});
  hidden_.assign(batch.rows.size(), {});
  engine::StepStats stats;
  std::vector<float> logits(kVocabulary);
  const uint32_t noise = batch.layers > 0 ? 3 : options_.noise;
  for (const engine::BatchRow& row : batch.rows) {
    if (Contains(row.tokens, faults.throwing_token)) throw std::runtime_error("the fake is broken");
    stats.tokens += static_cast<uint32_t>(row.tokens.size());
  }
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    const engine::BatchRow& row = batch.rows[i];
    if (Contains(row.tokens, faults.non_finite_token) ||
        (faults.drafts_fail && row.outputs.size() > 1)) {
      outputs_[i].status = engine::RowStatus::kNonFinite;
      continue;
    }
    if (Contains(row.tokens, faults.device_fault_token)) {
      outputs_[i].status = engine::RowStatus::kDeviceFault;
      continue;
    }
    WriteAndRead(row, row.tokens.size());
    if (Contains(row.tokens, faults.silent_token)) continue;
    if (row.output_kind == engine::OutputKind::kHidden) {
      GiveHidden(row, i);
      continue;
    }
    for (size_t j = 0; j < row.outputs.size(); ++j) {
      Logits(WriteAndRead(row, row.outputs[j] + 1), noise, &logits);
      if (Contains(row.tokens, faults.nan_logits_token)) {
        logits[3] = std::numeric_limits<float>::quiet_NaN();
      }
      if (row.output_kind != engine::OutputKind::kCandidates) {
        batch.sink->OnLogits(i, j, logits);
        continue;
      }
      const size_t have = candidates_[i].size();
      candidates_[i].resize(have + row.query.k);
      engine::SelectBest(logits, row.query.mask, std::span(candidates_[i]).subspan(have));
      outputs_[i].candidates = candidates_[i];
    }
  }
  return {outputs_, stats};
}

// The hidden state of a position is the first kHidden logits after it.
void FakeRunner::GiveHidden(const engine::BatchRow& row, size_t index) {
  std::vector<float> logits(kVocabulary);
  for (const uint32_t output : row.outputs) {
    Logits(WriteAndRead(row, output + 1), 0, &logits);
    hidden_[index].insert(hidden_[index].end(), logits.begin(), logits.begin() + kHidden);
  }
  outputs_[index].hidden = hidden_[index];
}

// Writes the row's tokens and reads back what the row's token `tokens` - 1 sees of the sequence.
std::vector<TokenId> FakeRunner::WriteAndRead(const engine::BatchRow& row, size_t tokens) {
  const uint32_t size = options_.block_size;
  for (uint32_t i = 0; i < row.tokens.size(); ++i) {
    const uint32_t position = row.first_position + i;
    kv_[row.block_table[position / size]][position % size] = row.tokens[i];
  }
  std::vector<TokenId> prefix;
  const auto end = static_cast<uint32_t>(row.first_position + tokens);
  for (uint32_t p = 0; p < end; ++p) {
    if (p >= options_.window.sinks && p < options_.window.Begin(end - 1)) continue;
    prefix.push_back(kv_[row.block_table[p / size]][p % size]);
  }
  return prefix;
}

void FakeRunner::Logits(const std::vector<TokenId>& prefix, uint32_t noise,
                        std::vector<float>* logits) {
  uint64_t hash = 0x9E3779B97F4A7C15U;
  for (const TokenId token : prefix) hash = Mix(hash + static_cast<uint64_t>(token) + 1);
  if (noise > 0 && hash % noise == 0) hash = Mix(~hash);
  for (uint32_t t = 0; t < kVocabulary; ++t) {
    (*logits)[t] = static_cast<float>(Mix(hash + t) % 4096) / 512.0F;
  }
}

void FakeRunner::CopyBlock(engine::BlockId from, engine::BlockId to) {
  ++copies;
  kv_[to] = kv_[from];
}

void FakeRunner::SaveBlock(engine::BlockId block, std::byte* out) {
  std::memcpy(out, kv_[block].data(), kv_[block].size() * sizeof(TokenId));
}

void FakeRunner::LoadBlock(const std::byte* bytes, engine::BlockId block) {
  std::memcpy(kv_[block].data(), bytes, kv_[block].size() * sizeof(TokenId));
}

void FakeRunner::SwapOut(engine::BlockId from, uint32_t slot) { swapped_[slot] = kv_[from]; }

void FakeRunner::SwapIn(uint32_t slot, engine::BlockId to) {
  ++swaps;
  kv_[to] = swapped_.at(slot);
}

void FakeRunner::PassGate() {
  std::unique_lock lock(mutex_);
  if (steps != closes_before_) return;
  closed_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !closed_; });
}

void FakeRunner::CloseGateBefore(uint64_t step) {
  const std::lock_guard lock(mutex_);
  closes_before_ = step;
}

void FakeRunner::OpenGate() {
  const std::lock_guard lock(mutex_);
  closed_ = false;
  closes_before_ = UINT64_MAX;
  changed_.notify_all();
}

bool FakeRunner::AwaitStepAtGate() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [this] { return closed_; });
}

FakeRuntime::FakeRuntime(const SchedulerOptions& scheduler, FakeRunner::Options options,
                         std::optional<FakeRunner::Options> draft) {
  ModelRuntime::Options runtime_options;
  runtime_options.name = "fake";
  runtime_options.scheduler = scheduler;
  auto owned = std::make_unique<FakeRunner>(options);
  runner = owned.get();
  std::unique_ptr<FakeRunner> drafting;
  if (draft) drafting = std::make_unique<FakeRunner>(*draft);
  draft_runner = drafting.get();
  runtime = ModelRuntime::WithRunner(runtime_options, std::move(owned), std::move(drafting));
}

void RecordingSink::OnEvent(TokenEvent event) noexcept {
  const std::lock_guard lock(mutex_);
  ends_ += event.finished ? 1 : 0;
  events_.push_back(std::move(event));
  changed_.notify_all();
}

bool RecordingSink::AwaitEnd() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [this] { return ends_ >= choices_; });
}

bool RecordingSink::AwaitEvents(size_t count) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, kPatience, [&] { return events_.size() >= count; });
}

bool RecordingSink::ended() const {
  const std::lock_guard lock(mutex_);
  return ends_ >= choices_;
}

std::vector<TokenEvent> RecordingSink::events() const {
  const std::lock_guard lock(mutex_);
  return events_;
}

std::vector<TokenId> RecordingSink::tokens(uint32_t choice) const {
  std::vector<TokenId> tokens;
  for (const TokenEvent& event : events()) {
    if (event.choice == choice && event.has_token) tokens.push_back(event.token);
  }
  return tokens;
}

TokenEvent RecordingSink::end(uint32_t choice) const {
  std::vector<TokenEvent> ends;
  bool silent_after = true;
  for (const TokenEvent& event : events()) {
    if (event.choice != choice) continue;
    silent_after &= ends.empty();
    if (event.finished) ends.push_back(event);
  }
  EXPECT_EQ(ends.size(), 1U) << "choice " << choice << " must end exactly once";
  EXPECT_TRUE(silent_after) << "choice " << choice << " spoke after its end";
  return ends.empty() ? TokenEvent{} : ends.front();
}

std::pair<Request, std::shared_ptr<RecordingSink>> RecordedRequest(std::vector<TokenId> prompt,
                                                                   uint32_t max_tokens,
                                                                   uint32_t choices) {
  auto sink = std::make_shared<RecordingSink>(choices);
  Request request;
  request.id = EngineLoop::NextRequestId();
  request.prompt = std::move(prompt);
  request.max_tokens = max_tokens;
  request.choices = choices;
  request.sampling.temperature = 0;
  request.sink = sink;
  return {std::move(request), sink};
}

}  // namespace scheduler
