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
#include "scheduler/request_cost.h"
#include "scheduler/scheduler.h"
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
  uint64_t screened_positions = 0;
  uint64_t screen_fallbacks = 0;
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

  // Both references outlive the executor.
  StepExecutor(Scheduler& scheduler, StepRunner& runner, Clock clock);
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

  void PrepareRows(const StepPlan& plan);
  std::string TryAdd(Submission& submission);
  void RunPlan(const StepPlan& plan);
  void MoveBlocks(const StepPlan& plan);
  void PrepareRow(const PlannedRow& planned, Row* row);
  void RunBatch();
  void RunRows(std::span<const engine::BatchRow> batch, std::span<const size_t> rows);
  static void Pool(const Row& row, std::span<const float> hidden);
  void Undo(Row& row);
  bool EndsChoice(const Row& row, engine::TokenId token) const;
  uint32_t CandidatesFor(const Row& row) const;
  void SpreadCandidates(std::span<const engine::Candidate> candidates);
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
  std::vector<Row> rows_;             // of the current step, parallel to StepPlan::rows
  std::vector<float> sparse_logits_;  // of a row that gave candidates
  CostReading before_;                // the step, when somebody wants to know what it costs
  CostReading after_;
  StepTotals totals_;
  engine::StepStats last_step_;
  uint64_t ended_ = 0;
};

}  // namespace scheduler
