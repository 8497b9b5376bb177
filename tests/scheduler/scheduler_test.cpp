// Each rule of the scheduler, one test per rule: admission, bounds, budget, order, sharing,
// preemption, and how a choice ends.

#include "scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

namespace scheduler {
namespace {

using engine::TokenId;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr TokenId kStopToken = 7;

// Steps a scheduler; every sampled token is `next_token` unless a choice has its own. Prompts are
// all alike, so the prefix cache is off; prefix_cache_scheduling_test.cpp has its rules.
class SchedulerTest : public testing::Test {
 protected:
  SchedulerTest() { options_.prefix_cache = PrefixCacheMode::kOff; }

  void Make(uint32_t kv_blocks, uint32_t context, uint32_t block_size = 16) {
    engine::KvGeometry geometry;
    geometry.layers = geometry.kv_heads = geometry.head_dim = 1;  // four bytes per position
    geometry.block_size = block_size;
    scheduler_ = std::make_unique<Scheduler>(options_, geometry, kv_blocks, context);
  }

  Request MakeRequest(RequestId id, uint32_t prompt, uint32_t max_tokens, uint32_t choices = 1) {
    Request request;
    request.id = id;
    request.prompt.assign(prompt, 1);
    request.max_tokens = max_tokens;
    request.choices = choices;
    request.stop_tokens = {kStopToken};
    return request;
  }

  AdmitResult Add(RequestId id, uint32_t prompt, uint32_t max_tokens, uint32_t choices = 1) {
    return scheduler_->Add(MakeRequest(id, prompt, max_tokens, choices), now_);
  }

  StepPlan Step() {
    StepPlan plan = scheduler_->Plan(now_);
    StepResult result;
    for (const PlannedRow& row : plan.rows) {
      const Sequence& sequence = *scheduler_->Find(row.sequence);
      RowResult out;
      if (row.samples) out.accepted = {next_token_};
      if (fails_.contains(sequence.request)) out = {RowOutcome::kFailed, {}, "broken"};
      rows_.emplace_back(sequence.request, sequence.choice, row.first, row.count);
      result.rows.push_back(out);
    }
    scheduler_->Commit(plan, result, now_);
    scheduler_->CheckIntegrity();
    for (const Finished& finished : scheduler_->TakeFinished()) finished_.push_back(finished);
    now_ += 1;
    return plan;
  }

  void StepUntilIdle(int limit = 10000) {
    while (!scheduler_->idle() && limit-- > 0) Step();
    EXPECT_TRUE(scheduler_->idle());
  }

  std::vector<std::string> Endings() {
    for (const Finished& finished : scheduler_->TakeFinished()) finished_.push_back(finished);
    std::vector<std::string> endings;
    for (const Finished& f : finished_) {
      endings.push_back(std::to_string(f.request) + "/" + std::to_string(f.choice) + " " +
                        std::string(FinishReasonName(f.reason)));
    }
    return endings;
  }

  // Positions computed for one choice, in order.
  std::vector<std::pair<uint32_t, uint32_t>> RowsOf(RequestId request, uint32_t choice = 0) const {
    std::vector<std::pair<uint32_t, uint32_t>> rows;
    for (const auto& [id, index, first, count] : rows_) {
      if (id == request && index == choice) rows.emplace_back(first, count);
    }
    return rows;
  }

  SchedulerOptions options_;
  std::unique_ptr<Scheduler> scheduler_;
  double now_ = 100;
  TokenId next_token_ = 2;
  std::set<RequestId> fails_;
  std::vector<Finished> finished_;
  std::vector<std::tuple<RequestId, uint32_t, uint32_t, uint32_t>> rows_;
};

using Rows = std::vector<std::pair<uint32_t, uint32_t>>;

TEST_F(SchedulerTest, ComputesThePromptThenOneTokenPerStep) {
  Make(8, 128);
  ASSERT_EQ(Add(1, 20, 3), AdmitResult::kOk);
  StepUntilIdle();
  EXPECT_EQ(RowsOf(1), (Rows{{0, 20}, {20, 1}, {21, 1}}));
  EXPECT_THAT(Endings(), ElementsAre("1/0 length"));
  const SchedulerStats stats = scheduler_->stats();
  EXPECT_EQ(stats.prompt_tokens, 20U);
  EXPECT_EQ(stats.generated_tokens, 3U);
  EXPECT_EQ(stats.kv_blocks_used, 0U);
}

TEST_F(SchedulerTest, LongPromptsAreCutIntoSteps) {
  options_.max_batch_tokens = 8;
  options_.max_sequences = 4;
  Make(8, 128);
  Add(1, 20, 1);
  StepUntilIdle();
  EXPECT_EQ(RowsOf(1), (Rows{{0, 8}, {8, 8}, {16, 4}}));
}

TEST_F(SchedulerTest, DecodesComeBeforePrefillInsideOneBudget) {
  options_.max_batch_tokens = 10;
  options_.max_sequences = 4;
  Make(64, 128);
  Add(1, 2, 50);
  Add(2, 2, 50);
  Step();
  Add(3, 30, 1);
  const StepPlan plan = Step();
  ASSERT_EQ(plan.rows.size(), 3U);
  EXPECT_EQ(plan.tokens, 10U);
  EXPECT_EQ(plan.rows[0].count, 1U);
  EXPECT_EQ(plan.rows[1].count, 1U);
  EXPECT_EQ(plan.rows[2].count, 8U);
  EXPECT_FALSE(plan.rows[2].samples);
}

TEST_F(SchedulerTest, AShortPromptSharesAStepWithALongOne) {
  options_.max_batch_tokens = 32;
  options_.prefill_chunk = 16;
  Make(64, 512);
  Add(1, 400, 1);
  Add(2, 10, 1);
  const StepPlan plan = Step();
  ASSERT_EQ(plan.rows.size(), 2U);
  EXPECT_EQ(plan.tokens, 32U);
  EXPECT_EQ(RowsOf(1), (Rows{{0, 22}})) << "what the short one leaves goes to the long one";
  EXPECT_THAT(Endings(), ElementsAre("2/0 length"));
}

TEST_F(SchedulerTest, AtMostMaxSequencesRun) {
  options_.max_sequences = 2;
  Make(64, 128);
  for (RequestId id = 1; id <= 4; ++id) Add(id, 4, 2);
  EXPECT_EQ(Step().rows.size(), 2U);
  EXPECT_EQ(scheduler_->stats().running, 2U);
  EXPECT_EQ(scheduler_->stats().waiting, 2U);
  StepUntilIdle();
  EXPECT_EQ(Endings().size(), 4U);
}

TEST_F(SchedulerTest, LowerPriorityValueRunsFirstThenArrival) {
  options_.max_sequences = 1;
  Make(64, 128);
  Add(1, 4, 1);
  Add(2, 4, 1);
  Request urgent = MakeRequest(3, 4, 1);
  urgent.priority = -1;
  scheduler_->Add(urgent, now_);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("3/0 length", "1/0 length", "2/0 length"));
}

TEST_F(SchedulerTest, WaitingMakesUpForPriority) {
  options_.max_sequences = 1;
  options_.priority_aging_seconds = 10;
  Make(64, 128);
  Add(1, 4, 1);
  Request patient = MakeRequest(2, 4, 1);
  patient.priority = 2;
  scheduler_->Add(patient, now_);
  for (RequestId id = 3; id < 8; ++id) {
    now_ += 5;
    Add(id, 4, 1);
  }
  StepUntilIdle();
  // It came 20 seconds before request 6: two levels' worth.
  EXPECT_THAT(Endings(), ElementsAre("1/0 length", "3/0 length", "4/0 length", "5/0 length",
                                     "2/0 length", "6/0 length", "7/0 length"));
}

TEST_F(SchedulerTest, WithoutAgingPrioritiesAreStrict) {
  options_.max_sequences = 1;
  options_.priority_aging_seconds = 0;
  Make(64, 128);
  Request patient = MakeRequest(1, 4, 1);
  patient.priority = 1;
  scheduler_->Add(patient, now_);
  now_ += 1e6;
  Add(2, 4, 1);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("2/0 length", "1/0 length"));
}

TEST_F(SchedulerTest, KeysShareByTokensServed) {
  options_.max_sequences = 1;
  Make(64, 128);
  const auto add = [this](RequestId id, const char* key, uint32_t prompt, int32_t priority) {
    Request request = MakeRequest(id, prompt, 1);
    request.tenant = key;
    request.priority = priority;
    EXPECT_EQ(scheduler_->Add(request, now_), AdmitResult::kOk);
  };
  for (RequestId id = 1; id <= 4; ++id) add(id, "flood", 40, -5);  // priority does not help
  add(10, "few", 10, 0);
  add(11, "few", 10, 0);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 length", "10/0 length", "11/0 length", "2/0 length",
                                     "3/0 length", "4/0 length"));
}

TEST_F(SchedulerTest, WithoutFairShareKeysAreNoMatter) {
  options_.max_sequences = 1;
  options_.fair_share = false;
  Make(64, 128);
  for (RequestId id = 1; id <= 3; ++id) {
    Request request = MakeRequest(id, 40, 1);
    request.tenant = id < 3 ? "flood" : "few";
    scheduler_->Add(request, now_);
  }
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 length", "2/0 length", "3/0 length"));
}

TEST_F(SchedulerTest, TheQueueOfOneKeyIsBounded) {
  options_.max_queued_per_key = 1;
  Make(64, 128);
  Request request = MakeRequest(1, 4, 1);
  request.tenant = "a";
  EXPECT_EQ(scheduler_->Add(request, now_), AdmitResult::kOk);
  request.id = 2;
  EXPECT_EQ(scheduler_->Add(request, now_), AdmitResult::kKeyQueueFull);
  request.tenant = "b";
  EXPECT_EQ(scheduler_->Add(request, now_), AdmitResult::kOk);
  Step();
  request.id = 3;
  EXPECT_EQ(scheduler_->Add(request, now_), AdmitResult::kOk);
}

TEST_F(SchedulerTest, TheQueueIsBoundedInRequests) {
  options_.max_queued_requests = 2;
  options_.max_sequences = 1;
  Make(64, 128);
  EXPECT_EQ(Add(1, 4, 9), AdmitResult::kOk);
  EXPECT_EQ(Add(2, 4, 9), AdmitResult::kOk);
  EXPECT_EQ(Add(3, 4, 9), AdmitResult::kQueueFull);
  Step();  // request 1 leaves the queue
  EXPECT_EQ(Add(3, 4, 9), AdmitResult::kOk);
  EXPECT_EQ(Add(4, 4, 9), AdmitResult::kQueueFull);
}

TEST_F(SchedulerTest, TheQueueIsBoundedInTokensOncePerChoice) {
  options_.max_queued_tokens = 100;
  Make(64, 256);
  EXPECT_EQ(Add(1, 30, 9, 3), AdmitResult::kOk);
  EXPECT_EQ(scheduler_->stats().waiting_tokens, 90U);
  EXPECT_EQ(Add(2, 11, 9), AdmitResult::kQueueFull);
  EXPECT_EQ(Add(2, 10, 9), AdmitResult::kOk);
}

TEST_F(SchedulerTest, AnEmptyQueueTakesARequestOfAnyLength) {
  options_.max_queued_tokens = 10;
  Make(64, 256);
  EXPECT_EQ(Add(1, 200, 1), AdmitResult::kOk);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 length"));
}

TEST_F(SchedulerTest, APromptMustLeaveRoomForOneToken) {
  Make(8, 128);
  EXPECT_EQ(Add(1, 128, 1), AdmitResult::kPromptTooLong);
  EXPECT_EQ(Add(2, 127, 5), AdmitResult::kOk);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("2/0 length"));
  EXPECT_EQ(scheduler_->stats().generated_tokens, 1U);
}

TEST_F(SchedulerTest, WithoutMaxTokensAChoiceFillsTheContext) {
  Make(2, 32);
  Add(1, 10, 0);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 length"));
  EXPECT_EQ(scheduler_->stats().generated_tokens, 22U);
}

TEST_F(SchedulerTest, AStopTokenEndsTheChoiceAndIsCounted) {
  Make(8, 128);
  Add(1, 4, 50);
  Step();
  next_token_ = kStopToken;
  Step();
  EXPECT_THAT(Endings(), ElementsAre("1/0 stop"));
  EXPECT_EQ(scheduler_->stats().generated_tokens, 2U);
}

TEST_F(SchedulerTest, AStopTokenAsTheLastAllowedTokenIsAStop) {
  Make(8, 128);
  next_token_ = kStopToken;
  Add(1, 4, 1);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 stop"));
}

TEST_F(SchedulerTest, ForcedTokensDecideTheLengthAndDoNotStop) {
  Make(8, 128);
  Request request = MakeRequest(1, 4, 1);
  request.forced_tokens = {kStopToken, 3, kStopToken};
  scheduler_->Add(request, now_);
  next_token_ = kStopToken;
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 length"));
  EXPECT_EQ(scheduler_->stats().generated_tokens, 3U);
}

TEST_F(SchedulerTest, ARequestThatWaitsTooLongFails) {
  options_.queue_deadline_seconds = 2.5;
  options_.max_sequences = 1;
  Make(64, 128);
  Add(1, 4, 6);
  Add(2, 4, 1, 2);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("2/1 error", "2/0 error", "1/0 length"));
  EXPECT_THAT(finished_[0].error, testing::HasSubstr("the limit is 2.5 s"));
  EXPECT_EQ(scheduler_->stats().deadline_misses, 1U);
}

TEST_F(SchedulerTest, TheDeadlineSparesRequestsThatHaveStarted) {
  options_.queue_deadline_seconds = 0.5;
  Make(64, 128);
  Add(1, 4, 6);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 length"));
}

TEST_F(SchedulerTest, CancelFreesTheBlocksAtOnce) {
  Make(8, 128);
  Add(1, 40, 50);
  Step();
  EXPECT_EQ(scheduler_->stats().kv_blocks_used, 3U);
  scheduler_->Cancel(1, FinishReason::kCancelled);
  EXPECT_EQ(scheduler_->stats().kv_blocks_used, 0U);
  EXPECT_TRUE(scheduler_->idle());
  EXPECT_THAT(Endings(), ElementsAre("1/0 cancelled"));
  scheduler_->Cancel(1, FinishReason::kCancelled);
  EXPECT_THAT(scheduler_->TakeFinished(), IsEmpty());
}

TEST_F(SchedulerTest, CancellingAQueuedRequestMakesRoomInTheQueue) {
  options_.max_queued_requests = 1;
  Make(8, 128);
  Add(1, 4, 5, 2);
  EXPECT_EQ(Add(2, 4, 5), AdmitResult::kQueueFull);
  scheduler_->Cancel(1, FinishReason::kCancelled);
  EXPECT_EQ(Add(2, 4, 5), AdmitResult::kOk);
}

TEST_F(SchedulerTest, CancellingOneChoiceLeavesTheOthers) {
  Make(16, 128);
  Add(1, 4, 3, 3);
  Step();
  scheduler_->CancelChoice(1, 1, FinishReason::kStop);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/1 stop", "1/0 length", "1/2 length"));
}

TEST_F(SchedulerTest, AFailedRowEndsOnlyItsChoice) {
  Make(16, 128);
  Add(1, 4, 3);
  Add(2, 4, 3);
  fails_ = {1};
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 error", "2/0 length"));
  EXPECT_EQ(finished_[0].error, "broken");
}

TEST_F(SchedulerTest, ChoicesComputeTheirPromptOnce) {
  Make(64, 256);
  Add(1, 40, 3, 3);
  EXPECT_EQ(Step().rows.size(), 1U);
  const StepPlan plan = Step();
  // Two siblings compute only the last prompt token, each in its own copy of the partial block.
  EXPECT_EQ(plan.rows.size(), 3U);
  EXPECT_EQ(plan.moves.size(), 2U);
  EXPECT_EQ(scheduler_->stats().kv_blocks_used, 2U + 3U);
  StepUntilIdle();
  EXPECT_EQ(RowsOf(1, 0), (Rows{{0, 40}, {40, 1}, {41, 1}}));
  EXPECT_EQ(RowsOf(1, 1), (Rows{{39, 1}, {40, 1}, {41, 1}}));
  EXPECT_EQ(RowsOf(1, 2), (Rows{{39, 1}, {40, 1}, {41, 1}}));
  EXPECT_EQ(scheduler_->stats().prompt_tokens, 40U);
}

TEST_F(SchedulerTest, ChoicesShareWholeBlocksWithoutCopies) {
  Make(64, 256);
  Add(1, 33, 2, 2);
  Step();
  EXPECT_THAT(Step().moves, IsEmpty());
  StepUntilIdle();
  EXPECT_EQ(RowsOf(1, 1), (Rows{{32, 1}, {33, 1}}));
}

TEST_F(SchedulerTest, ChoicesOfOneTokenStillComputeTheirPromptOnce) {
  options_.max_sequences = 2;
  Make(64, 256);
  Add(1, 40, 1, 5);
  StepUntilIdle();
  EXPECT_EQ(RowsOf(1, 0), (Rows{{0, 40}}));
  for (uint32_t choice = 1; choice < 5; ++choice) {
    EXPECT_EQ(RowsOf(1, choice), (Rows{{39, 1}})) << choice;
  }
}

TEST_F(SchedulerTest, OtherRequestsPassSiblingsThatWaitForThePrompt) {
  options_.max_batch_tokens = 16;
  options_.prefill_chunk = 8;
  Make(64, 256);
  Add(1, 40, 1, 3);
  Add(2, 4, 1);
  const StepPlan plan = Step();
  EXPECT_EQ(plan.rows.size(), 2U);
  EXPECT_THAT(Endings(), ElementsAre("2/0 length"));
}

TEST_F(SchedulerTest, ARequestStartsOnlyWhenItsBlocksFit) {
  Make(8, 128);
  Add(1, 60, 20);
  Add(2, 60, 20);
  Add(3, 10, 1);
  Step();
  // Four blocks each fill the pool; request 3 would need a ninth.
  EXPECT_EQ(scheduler_->stats().running, 2U);
  EXPECT_EQ(scheduler_->stats().kv_blocks_used, 8U);
  StepUntilIdle();
  EXPECT_EQ(Endings().size(), 3U);
}

TEST_F(SchedulerTest, TheHeadOfTheQueueIsNotOvertaken) {
  Make(8, 128);
  Add(1, 60, 30);
  Step();
  Add(2, 100, 1);
  Add(3, 4, 1);
  Step();
  EXPECT_EQ(scheduler_->stats().running, 1U);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 length", "2/0 length", "3/0 length"));
}

TEST_F(SchedulerTest, TheLatestIsPreemptedAndResumesWithItsTokens) {
  Make(8, 128);
  Add(1, 60, 60);
  Add(2, 60, 60);
  Step();
  for (int i = 0; i < 5; ++i) Step();  // both fill 64 positions and then need a fifth block
  EXPECT_EQ(scheduler_->stats().preemptions, 1U);
  EXPECT_EQ(scheduler_->stats().running, 1U);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 length", "2/0 length"));
  const Rows rows = RowsOf(2);
  const auto resumed =
      std::find_if(rows.begin() + 1, rows.end(), [](const auto& row) { return row.first == 0; });
  ASSERT_NE(resumed, rows.end());
  EXPECT_EQ(resumed->second, 65U);  // prompt and generated tokens in one go
  EXPECT_EQ(rows.back(), (std::pair<uint32_t, uint32_t>{118, 1}));
  const SchedulerStats stats = scheduler_->stats();
  EXPECT_EQ(stats.prompt_tokens, 120U);  // recomputation is not counted
  EXPECT_EQ(stats.generated_tokens, 120U);
}

TEST_F(SchedulerTest, ASwappedSequenceComesBackWithoutComputing) {
  options_.swap_bytes = 1 << 20;
  Make(8, 128);
  Add(1, 60, 60);
  Add(2, 60, 60);
  Step();
  for (int i = 0; i < 4; ++i) Step();
  const StepPlan plan = Step();
  ASSERT_EQ(plan.moves.size(), 4U);
  EXPECT_EQ(plan.moves[0].kind, BlockMove::Kind::kSwapOut);
  EXPECT_EQ(scheduler_->stats().swapped_preemptions, 1U);
  EXPECT_EQ(scheduler_->stats().swap_slots_used, 4U);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("1/0 length", "2/0 length"));
  const Rows rows = RowsOf(2);
  EXPECT_EQ(rows.size(), 60U);
  for (size_t i = 1; i < rows.size(); ++i) EXPECT_EQ(rows[i].second, 1U);
  EXPECT_EQ(scheduler_->stats().swap_slots_used, 0U);
}

TEST_F(SchedulerTest, WithoutRoomInHostMemoryASequenceIsComputedAgain) {
  options_.swap_bytes = 3 * 64;  // three blocks; it has four
  Make(8, 128);
  Add(1, 60, 60);
  Add(2, 60, 60);
  StepUntilIdle();
  EXPECT_EQ(scheduler_->stats().preemptions, 1U);
  EXPECT_EQ(scheduler_->stats().swapped_preemptions, 0U);
}

TEST_F(SchedulerTest, CancellingASwappedSequenceFreesItsHostMemory) {
  options_.swap_bytes = 1 << 20;
  Make(8, 128);
  Add(1, 60, 60);
  Add(2, 60, 60);
  for (int i = 0; i < 7; ++i) Step();
  EXPECT_GT(scheduler_->stats().swap_slots_used, 0U);
  scheduler_->Cancel(2, FinishReason::kCancelled);
  EXPECT_EQ(scheduler_->stats().swap_slots_used, 0U);
  StepUntilIdle();
}

TEST_F(SchedulerTest, TheUrgentIsNotPreemptedForTheOther) {
  Make(8, 128);
  Add(1, 60, 60);
  Request urgent = MakeRequest(2, 60, 60);
  urgent.priority = -1;
  scheduler_->Add(urgent, now_);
  StepUntilIdle();
  EXPECT_THAT(Endings(), ElementsAre("2/0 length", "1/0 length"));
  EXPECT_EQ(RowsOf(2).size(), 60U);
}

TEST_F(SchedulerTest, APoolOfOneContextServesManyChoices) {
  Make(8, 128);
  Add(1, 100, 28, 6);
  StepUntilIdle();
  EXPECT_EQ(Endings().size(), 6U);
  EXPECT_EQ(scheduler_->stats().generated_tokens, 6U * 28U);
}

TEST_F(SchedulerTest, EveryRunningSequenceFitsTheTokenBudget) {
  options_.max_sequences = 64;
  options_.max_batch_tokens = 4;
  Make(64, 128);
  for (RequestId id = 1; id <= 10; ++id) Add(id, 1, 5);
  Step();
  EXPECT_EQ(scheduler_->stats().running, 4U);
  StepUntilIdle();
  EXPECT_EQ(Endings().size(), 10U);
}

TEST_F(SchedulerTest, FindForgetsASequenceOnceItsEndIsTaken) {
  Make(8, 128);
  Add(1, 4, 5);
  const StepPlan plan = scheduler_->Plan(now_);
  const uint64_t id = plan.rows[0].sequence;
  scheduler_->Commit(plan, {{RowResult{RowOutcome::kFailed, {}, "x"}}}, now_);
  ASSERT_NE(scheduler_->Find(id), nullptr);
  EXPECT_EQ(scheduler_->Find(id)->state, SequenceState::kFinished);
  EXPECT_EQ(scheduler_->TakeFinished().size(), 1U);
  EXPECT_EQ(scheduler_->Find(id), nullptr);
}

}  // namespace
}  // namespace scheduler
