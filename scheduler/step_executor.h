#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/batch.h"
#include "engine/sampler.h"
#include "scheduler/inbox.h"
#include "scheduler/model_drafter.h"
#include "scheduler/request_cost.h"
#include "scheduler/scheduler.h"
#include "scheduler/sparse_logits.h"
#include "scheduler/step_runner.h"
#include "scheduler/token_event.h"
#include "scheduler/token_scorer.h"

namespace scheduler {

// What the steps of one runtime have cost so far.
struct StepTotals {
  uint64_t steps = 0;
  uint64_t tokens = 0;
  uint64_t kv_bytes_read = 0;
  double seconds = 0;
  double projection_seconds = 0;
  double attention_seconds = 0;
  double head_seconds = 0;
  double draft_seconds = 0;  // in a model that drafts; no part of `seconds`
  uint64_t screened_positions = 0;
  uint64_t screen_fallbacks = 0;
  uint64_t guard_trips = 0;
  uint64_t refined_rows = 0;
};

// One runtime's share of the engine thread: runs the scheduler's plans on the engine, samples, and
// tells each request's sink what came of it.
//
// Threads: the engine thread only. Sinks are called from every function but the accessors.
// Errors:  a row that fails, a sampler or scorer that throws, and a logit that is not finite end
//          their choice with kError. A step that throws is repeated in halves until the guilty rows
//          stand alone, which is safe because a step writes only its rows' own cache positions. A
//          row that fails with drafted tokens is repeated without. A request for which there is no
//          memory fails; when planning itself finds none, all requests of the runtime do.
class StepExecutor {
 public:
  using Clock = std::function<double()>;  // seconds, never backwards

  // References outlive the executor. drafts: what guesses where the scheduler leaves room for it.
  StepExecutor(Scheduler& scheduler, StepRunner& runner, Clock clock,
               const std::optional<DraftSource>& drafts = {});
  ~StepExecutor();

  // From now on the request's sink hears of it; also when it cannot be served.
  void Accept(Submission submission);
  void Cancel(RequestId request, FinishReason reason);
  void CancelChoice(RequestId request, uint32_t choice, FinishReason reason);
  void CancelAll(FinishReason reason);

  // Plans and runs one step. False when the plan was empty.
  bool Step();

  size_t requests() const { return requests_.size(); }
  // Requests that were accepted and have ended, since the start.
  uint64_t ended() const { return ended_; }
  const StepTotals& totals() const { return totals_; }
  // Of the last Step() that returned true.
  const engine::StepStats& last_step() const { return last_step_; }
  uint32_t last_rows() const;

 private:
  struct Choice;
  struct Active;
  struct Row;
  class Sink;

  std::string TryAdd(Submission& submission);
  void RunPlan(StepPlan* plan);
  void MoveBlocks(const StepPlan& plan);
  void FollowPlan(const StepPlan& plan);
  void BindRows(const StepPlan& plan);
  void PrepareRows();
  void PrepareRow(Row& row);
  // Lets the model guess where the plan has room for it.
  void Guess(StepPlan* plan);
  void DraftRows(std::span<PlannedRow> planned);
  std::optional<engine::TokenId> DrawGuess(Row& row, uint32_t position, std::span<float> logits);
  double GuessCost(double seconds) const;
  void RunBatch();
  void RunRows(std::span<const engine::BatchRow> batch, std::span<const size_t> rows);
  static void Pool(const Row& row, std::span<const float> hidden);
  void Undo(Row& row);
  static bool AcceptToken(Choice& choice, engine::TokenId token);
  static void TakeBack(Choice& choice, size_t tokens);
  bool EndsChoice(const Row& row, engine::TokenId token, size_t accepted) const;
  uint32_t CandidatesFor(const Row& row) const;
  uint32_t FewNeeded(const Request& request) const;
  void MakeSampler(Row& row);
  // False when there is no memory for it: figures are not worth a step.
  bool ReadCosts(CostReading* reading) const noexcept;
  // Shares out what the step has cost among the rows whose requests want to know.
  void ChargeRows() noexcept;
  void TakeLogits(Row& row, uint32_t index, std::span<float> logits);
  void ScorePrompt(Row& row, uint32_t position, std::span<float> logits);
  void DrawToken(Row& row, uint32_t position, std::span<float> logits);
  StepResult Collect();
  void PublishTokens(const StepResult& result);
  void PublishRow(Row& row, size_t accepted);
  void PublishEndings();
  void FailAll(const std::string& error);
  void Close(std::vector<Finished> endings);
  void Refuse(const Submission& submission, const std::string& error);
  void Deliver(Active& active, Choice& choice, TokenEvent event);
  TokenScorer& ScorerOf(Active& active);

  Scheduler& scheduler_;
  StepRunner& runner_;
  Clock clock_;
  std::unordered_map<RequestId, std::unique_ptr<Active>> requests_;
  std::optional<ModelDrafter> drafter_;
  std::vector<Row> rows_;  // of the current step, parallel to StepPlan::rows
  SparseLogits sparse_logits_;
  CostReading before_;  // the step, when somebody wants to know what it costs
  CostReading after_;
  StepTotals totals_;
  engine::StepStats last_step_;
  uint64_t ended_ = 0;
};

}  // namespace scheduler
