// What requests save by the prefix cache, and what is never shared.

#include <gtest/gtest.h>

#include <memory>

#include "scheduler/scheduler.h"

namespace scheduler {
namespace {

using engine::TokenId;

class PrefixSharing : public testing::Test {
 protected:
  void Make(uint32_t kv_blocks = 4096, uint32_t context = 1024) {
    engine::KvGeometry geometry;
    geometry.layers = geometry.kv_heads = geometry.head_dim = 1;
    scheduler_ = std::make_unique<Scheduler>(options_, geometry, kv_blocks, context);
  }

  // `shared` tokens that all requests have, then some of its own.
  Request MakeRequest(uint32_t shared, uint32_t own, uint32_t max_tokens = 4) {
    Request request;
    request.id = ++last_id_;
    for (uint32_t i = 0; i < shared; ++i) request.prompt.push_back(static_cast<TokenId>(i));
    for (uint32_t i = 0; i < own; ++i) {
      request.prompt.push_back(static_cast<TokenId>(10000 * last_id_ + i));
    }
    request.max_tokens = max_tokens;
    return request;
  }

  void Add(const Request& request) { ASSERT_EQ(scheduler_->Add(request, now_), AdmitResult::kOk); }

  // Tokens that were computed for rows of more than a decode.
  uint64_t RunAll() {
    uint64_t computed = 0;
    while (!scheduler_->idle()) {
      const StepPlan plan = scheduler_->Plan(now_++);
      StepResult result;
      for (const PlannedRow& row : plan.rows) {
        const Sequence& sequence = *scheduler_->Find(row.sequence);
        if (row.first < sequence.prompt_tokens) computed += row.count;
        cached_[sequence.request] = sequence.cached_tokens;
        RowResult out;
        if (row.samples) out.accepted = {static_cast<TokenId>(90000 + sequence.request)};
        result.rows.push_back(out);
      }
      scheduler_->Commit(plan, result, now_);
      scheduler_->CheckIntegrity();
      scheduler_->TakeFinished();
    }
    return computed;
  }

  SchedulerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  std::map<RequestId, uint32_t> cached_;
  RequestId last_id_ = 0;
  double now_ = 0;
};

TEST_F(PrefixSharing, AHundredRequestsSaveNinetyPercentOfTheirPrefill) {
  Make();
  Add(MakeRequest(100, 10));
  RunAll();
  for (int i = 1; i < 100; ++i) Add(MakeRequest(100, 10));
  const uint64_t computed = 110 + RunAll();
  constexpr uint64_t kAll = 100 * 110;
  EXPECT_EQ(computed, 110U + 99 * 10);  // 90.0 % saved
  EXPECT_GE(kAll - computed, kAll * 90 / 100);
  EXPECT_EQ(cached_[2], 100U);
  const SchedulerStats stats = scheduler_->stats();
  EXPECT_EQ(stats.prefix_queries, kAll);
  EXPECT_EQ(stats.prefix_hits, 99U * 100);
  EXPECT_EQ(stats.prompt_tokens, kAll);
  EXPECT_EQ(stats.kv_blocks_used, 0U);
  EXPECT_GT(stats.kv_blocks_cached, 0U);
}

TEST_F(PrefixSharing, ARepeatedPromptComputesItsLastTokenOnly) {
  Make();
  Add(MakeRequest(96, 0));
  RunAll();
  Add(MakeRequest(96, 0));
  EXPECT_EQ(RunAll(), 1U);
  EXPECT_EQ(cached_[2], 95U);
}

TEST_F(PrefixSharing, AConversationGoesOnWhereItEnded) {
  Make();
  Request turn = MakeRequest(50, 0, 30);
  Add(turn);
  RunAll();
  turn.prompt.insert(turn.prompt.end(), 30, 90001);  // its answer
  turn.prompt.insert(turn.prompt.end(), 5, 7);
  turn.id = ++last_id_;
  Add(turn);
  // The last token of the answer was never computed.
  EXPECT_EQ(RunAll(), 6U);
}

TEST_F(PrefixSharing, SaltsAreApart) {
  Make();
  Request request = MakeRequest(100, 0);
  request.cache_salt = "mine";
  Add(request);
  RunAll();
  Add(MakeRequest(100, 0));
  EXPECT_EQ(RunAll(), 100U);
  request.id = ++last_id_;
  Add(request);
  EXPECT_EQ(RunAll(), 1U);
}

TEST_F(PrefixSharing, KeysAreApartWhenAskedFor) {
  options_.prefix_cache = PrefixCacheMode::kPerKey;
  Make();
  Request request = MakeRequest(100, 0);
  request.tenant = "alice";
  Add(request);
  RunAll();
  request.id = ++last_id_;
  request.tenant = "bob";
  Add(request);
  EXPECT_EQ(RunAll(), 100U);
}

TEST_F(PrefixSharing, OffMeansOff) {
  options_.prefix_cache = PrefixCacheMode::kOff;
  Make();
  Add(MakeRequest(100, 0));
  RunAll();
  Add(MakeRequest(100, 0));
  EXPECT_EQ(RunAll(), 100U);
  EXPECT_EQ(scheduler_->stats().prefix_queries, 0U);
  EXPECT_EQ(scheduler_->stats().kv_blocks_cached, 0U);
}

TEST_F(PrefixSharing, PromptLogprobsComputeTheWholePrompt) {
  Make();
  Add(MakeRequest(100, 0));
  RunAll();
  Request scored = MakeRequest(100, 0);
  scored.prompt_logprobs = true;
  Add(scored);
  EXPECT_EQ(RunAll(), 100U);
  EXPECT_EQ(cached_[2], 0U);
  EXPECT_EQ(scheduler_->stats().prefix_queries, 100U) << "a bypass is no miss";
}

TEST_F(PrefixSharing, RunningRequestsWithEqualPromptsEndUpInTheSameBlocks) {
  options_.max_batch_tokens = 64;
  options_.prefill_chunk = 32;
  Make();
  Add(MakeRequest(96, 1, 1));
  Add(MakeRequest(96, 1, 1));
  StepPlan plan;
  uint32_t most = 0;
  while (!scheduler_->idle()) {
    plan = scheduler_->Plan(now_++);
    StepResult result;
    for (const PlannedRow& row : plan.rows) {
      RowResult out;
      if (row.samples) out.accepted = {5};
      result.rows.push_back(out);
    }
    scheduler_->Commit(plan, result, now_);
    scheduler_->TakeFinished();
    most = std::max(most, scheduler_->stats().kv_blocks_used);
  }
  // Both computed side by side; full blocks were merged as they came.
  EXPECT_LE(most, 6U + 2U);
}

TEST_F(PrefixSharing, CachedBlocksAreGivenAwayWhenTheyAreNeeded) {
  Make(64, 1024);
  Add(MakeRequest(0, 900, 1));
  RunAll();
  EXPECT_EQ(scheduler_->stats().kv_blocks_cached, 57U);
  Add(MakeRequest(0, 900, 1));
  RunAll();
  const SchedulerStats stats = scheduler_->stats();
  EXPECT_GE(stats.prefix_evictions, 50U);
  EXPECT_EQ(stats.preemptions, 0U);
}

// The only free block would have to be the copy of the one it is copied from.
TEST_F(PrefixSharing, APoolOfOneContextIsNotBlockedByAPartialHit) {
  Make(3, 48);
  Add(MakeRequest(47, 0, 1));
  RunAll();
  Add(MakeRequest(47, 0, 1));
  EXPECT_EQ(RunAll(), 15U);
}

}  // namespace
}  // namespace scheduler
