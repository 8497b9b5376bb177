// A text of any length in a window of memory: with a real engine, 32,768 tokens keep no more blocks
// than the window and the sinks have, and what comes out is what the engine gives when every block
// is kept.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "scheduler/scheduler.h"
#include "tests/engine/rig.h"

namespace scheduler {
namespace {

using engine::TokenId;
using engine::testing::Rig;

constexpr uint32_t kContext = 32768;
constexpr uint32_t kWindow = 2048;
constexpr uint32_t kSinks = 4;

// Small enough for so many tokens, with two layers: the second's keys depend on what the first saw.
Rig LongRig(uint32_t kv_blocks) {
  const engine::testing::TinyShape shape = {.architecture = "llama",
                                            .hidden = 32,
                                            .heads = 2,
                                            .kv_heads = 1,
                                            .ffn = 32,
                                            .context = kContext,
                                            .projections = gguf::TensorType::kF32,
                                            .sub_norms = false};
  engine::EngineOptions options;
  options.sliding_window = kWindow;
  options.attention_sinks = kSinks;
  options.max_batch_tokens = 512;
  const uint64_t block_bytes = 2 * shape.layers * shape.kv_heads * shape.head_dim * 16 * 2;
  options.kv_bytes = kv_blocks * block_bytes;
  return engine::testing::TinyRig(shape, options);
}

engine::BatchRow RowOf(const PlannedRow& planned, const Sequence& sequence,
                       const std::vector<uint32_t>& last) {
  const bool samples = planned.samples;
  return {.tokens = std::span(sequence.tokens).subspan(planned.first, planned.count),
          .first_position = planned.first,
          .block_table = sequence.blocks,
          .outputs = std::span(last).first(samples ? 1 : 0),
          .output_kind = samples ? engine::OutputKind::kCandidates : engine::OutputKind::kNone};
}

// Runs one greedy request; returns what it generated.
std::vector<TokenId> RunGreedy(Rig& rig, Scheduler& scheduler, const Request& request,
                               const std::function<void(const Sequence&)>& after_step) {
  EXPECT_EQ(scheduler.Add(request, 0), AdmitResult::kOk);
  std::vector<TokenId> generated;
  while (!scheduler.idle()) {
    const StepPlan plan = scheduler.Plan(0);
    EXPECT_EQ(plan.rows.size(), 1U);
    EXPECT_TRUE(plan.moves.empty());
    const uint64_t id = plan.rows[0].sequence;
    const std::vector<uint32_t> last = {plan.rows[0].count - 1};
    const std::vector<engine::BatchRow> rows = {RowOf(plan.rows[0], *scheduler.Find(id), last)};
    const engine::StepOutput out = rig.engine->Step({.rows = rows});
    EXPECT_EQ(out.rows[0].status, engine::RowStatus::kOk);
    StepResult result = {.rows = std::vector<RowResult>(1)};
    if (plan.rows[0].samples) {
      generated.push_back(out.rows[0].candidates[0].token);
      result.rows[0].accepted = {generated.back()};
    }
    scheduler.Commit(plan, result, 0);
    scheduler.CheckIntegrity();
    const Sequence* sequence = scheduler.Find(id);
    if (sequence->state != SequenceState::kFinished) after_step(*sequence);
  }
  return generated;
}

TEST(SlidingWindow, LongTextsKeepTheWindowAndTheSinksAndTheirBits) {
  // The window, the sinks and what a step of 256 tokens adds: a fourteenth of the text.
  Rig rig = LongRig(129 + 16);
  ASSERT_EQ(rig.engine->kv_blocks(), 145U);
  SchedulerOptions options;
  options.max_batch_tokens = 512;
  options.prefill_chunk = 512;
  options.prefix_cache = PrefixCacheMode::kOff;
  Scheduler scheduler(options, rig.engine->kv_geometry(), rig.engine->kv_blocks(), kContext);
  Request request;
  request.prompt = engine::testing::RandomTokens(kContext - 400, 96, 3);
  request.max_tokens = 400;

  uint32_t most = 0;
  engine::BlockId first_block = 0;
  const std::vector<TokenId> generated =
      RunGreedy(rig, scheduler, request, [&](const Sequence& sequence) {
        if (most == 0) first_block = sequence.blocks[0];
        ASSERT_TRUE(sequence.Holds(0));
        ASSERT_EQ(sequence.blocks[0], first_block);
        most = std::max(most, scheduler.stats().kv_blocks_used);
        ASSERT_EQ(scheduler.stats().kv_blocks_used, sequence.held_blocks());
      });
  ASSERT_EQ(generated.size(), 400U);
  // 2,048 positions and one block.
  EXPECT_EQ(most, 129U);
  EXPECT_EQ(scheduler.stats().kv_blocks_used, 0U);
  EXPECT_EQ(scheduler.stats().preemptions, 0U);

  Rig roomy = LongRig(kContext / 16);
  std::vector<TokenId> text = request.prompt;
  text.insert(text.end(), generated.begin(), generated.end() - 1);
  const engine::testing::LogitRows logits =
      engine::testing::RunAlone(*roomy.engine, text, request.prompt.size() - 1, 512);
  ASSERT_EQ(logits.size(), generated.size());
  for (size_t i = 0; i < generated.size(); ++i) {
    const auto best = std::max_element(logits[i].begin(), logits[i].end()) - logits[i].begin();
    ASSERT_EQ(best, generated[i]) << i;
  }
}

TEST(SlidingWindow, APoolOfLessThanTheWindowIsRefusedInOneSentence) {
  try {
    LongRig(100);
    FAIL() << "taken";
  } catch (const std::exception& e) {
    EXPECT_NE(std::string(e.what()).find("sliding window"), std::string::npos) << e.what();
  }
}

// A request of a second client waits for memory as long as a window needs, not as long as its text.
TEST(SlidingWindow, AdmissionCountsWhatAWindowCanHold) {
  const engine::KvGeometry geometry = {.layers = 1,
                                       .kv_heads = 1,
                                       .head_dim = 16,
                                       .block_size = 16,
                                       .window = {.tokens = 256, .sinks = 4}};
  SchedulerOptions options;
  options.max_batch_tokens = 64;
  options.prefill_chunk = 32;
  const uint32_t each = geometry.MostBlocks(4096, 64);
  EXPECT_EQ(each, 1U + 20U);
  Scheduler scheduler(options, geometry, 2 * each, 4096);
  for (const RequestId id : {1U, 2U, 3U}) {
    Request request;
    request.id = id;
    request.prompt = engine::testing::RandomTokens(3000, 50, id);
    request.max_tokens = 2;
    ASSERT_EQ(scheduler.Add(request, 0), AdmitResult::kOk);
  }
  uint32_t most_running = 0;
  uint64_t finished = 0;
  while (!scheduler.idle()) {
    const StepPlan plan = scheduler.Plan(0);
    most_running = std::max(most_running, scheduler.stats().running);
    StepResult result;
    for (const PlannedRow& row : plan.rows) {
      RowResult& one = result.rows.emplace_back();
      if (row.samples) one.accepted = {7};
    }
    scheduler.Commit(plan, result, 0);
    scheduler.CheckIntegrity();
    finished += scheduler.TakeFinished().size();
  }
  EXPECT_EQ(finished, 3U);
  EXPECT_EQ(most_running, 2U);
  EXPECT_EQ(scheduler.stats().preemptions, 0U);
}

}  // namespace
}  // namespace scheduler
