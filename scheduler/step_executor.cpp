#include "scheduler/step_executor.h"

#include <algorithm>
#include <cassert>
#include <exception>
#include <new>
#include <utility>

#include "engine/text/grammar/matcher.h"

namespace scheduler {
namespace {

std::string OutsideVocabulary(const char* what, const std::vector<engine::TokenId>& tokens,
                              uint32_t vocabulary) {
  for (const engine::TokenId token : tokens) {
    if (token >= 0 && static_cast<uint32_t>(token) < vocabulary) continue;
    return std::string(what) + " " + std::to_string(token) + " is outside the vocabulary of " +
           std::to_string(vocabulary) + " tokens.";
  }
  return {};
}

// Why a request cannot be served at all; empty when it can. The server has said so before in its
// own words: this keeps a caller's mistake away from the engine's memory.
std::string Unservable(const Request& request, uint32_t vocabulary) {
  if (request.choices == 0) return "The request asks for no choices; at least one is needed.";
  if (request.prompt.empty()) return "The prompt has no tokens; at least one is needed.";
  if (request.pooling && request.choices > 1) {
    return "An embedding has one choice, but the request asks for " +
           std::to_string(request.choices) + ".";
  }
  std::string error = OutsideVocabulary("Prompt token", request.prompt, vocabulary);
  if (error.empty()) error = OutsideVocabulary("Forced token", request.forced_tokens, vocabulary);
  if (error.empty()) error = OutsideVocabulary("Stop token", request.stop_tokens, vocabulary);
  std::string parameter;
  return error.empty() ? request.sampling.Validate(vocabulary, &parameter) : error;
}

std::string_view Describe(engine::RowStatus status) {
  switch (status) {
    case engine::RowStatus::kOk:
      return "";
    case engine::RowStatus::kNonFinite:
      return "The model produced a value that is not finite for this request.";
    case engine::RowStatus::kStateLost:
      return "The recurrent state of this request was lost.";
    case engine::RowStatus::kDeviceFault:
      return "The device failed on this request.";
  }
  return "The engine failed on this request.";
}

constexpr char kNoTokenAllowed[] =
    "No token of the vocabulary can continue the text that the grammar asks for.";
constexpr char kTooAmbiguous[] = "The grammar is too ambiguous to be followed any further.";
constexpr char kNoFiniteLogit[] = "The model produced no finite logits for this request.";

void AddStats(const engine::StepStats& part, engine::StepStats* sum) {
  sum->tokens += part.tokens;
  sum->head_positions += part.head_positions;
  sum->seconds += part.seconds;
  sum->projection_seconds += part.projection_seconds;
  sum->attention_seconds += part.attention_seconds;
  sum->head_seconds += part.head_seconds;
  sum->weight_bytes += part.weight_bytes;
  sum->kv_bytes += part.kv_bytes;
  sum->screened_positions += part.screened_positions;
  sum->screen_fallbacks += part.screen_fallbacks;
  sum->guard_trips += part.guard_trips;
  sum->refined_rows += part.refined_rows;
}

}  // namespace

struct StepExecutor::Choice {
  std::optional<engine::Sampler> sampler;                 // made for the first draw
  std::optional<engine::text::grammar::Matcher> matcher;  // beside it, where there is a grammar
  double scheduled = 0;                                   // first time in a step
  uint32_t generated = 0;
  RequestCost cost;            // when asked for
  Finished* ending = nullptr;  // while the step that ended it is published
  bool told_end = false;
};

struct StepExecutor::Active {
  Request request;
  double enqueued = 0;
  uint32_t cached_tokens = 0;
  std::vector<Choice> choices;
  uint32_t unfinished = 0;
  std::unique_ptr<TokenScorer> scorer;         // made for the first prompt or forced token
  std::vector<PromptLogprob> prompt_logprobs;  // filled while choice 0 computes the prompt
  std::optional<engine::Pooler> pooler;        // of requests for an embedding
};

// A planned row and what the step gave for it.
struct StepExecutor::Row {
  const PlannedRow* planned = nullptr;
  const Sequence* sequence = nullptr;
  Active* active = nullptr;
  Choice* choice = nullptr;
  std::vector<engine::TokenId> tokens;  // the sequence's and the drafted ones; empty without drafts
  std::vector<uint32_t> outputs;        // indices into the row's tokens that need logits
  std::vector<engine::Sample> samples;  // sample i stands at the place of draft i
  bool closed = false;                  // no further sample counts
  std::string error;
};

class StepExecutor::Sink : public engine::LogitsSink {
 public:
  // rows: index into rows_ of each row of the batch.
  Sink(StepExecutor& executor, std::span<const size_t> rows) : executor_(executor), rows_(rows) {}

  // Called from inside the engine's step, where an exception of one row must not reach the others.
  void OnLogits(size_t row, size_t output, std::span<float> logits) override {
    Row& target = executor_.rows_[rows_[row]];
    if (!target.error.empty()) return;
    try {
      executor_.TakeLogits(target, target.outputs[output], logits);
    } catch (const std::exception& e) {
      target.error = std::string("Sampling failed: ") + e.what() + ".";
    }
  }

 private:
  StepExecutor& executor_;
  std::span<const size_t> rows_;
};

StepExecutor::StepExecutor(Scheduler& scheduler, StepRunner& runner, Clock clock,
                           const std::optional<DraftSource>& drafts)
    : scheduler_(scheduler), runner_(runner), clock_(std::move(clock)) {
  if (drafts) drafter_.emplace(*drafts);
}

StepExecutor::~StepExecutor() = default;

uint32_t StepExecutor::last_rows() const { return static_cast<uint32_t>(rows_.size()); }

void StepExecutor::Accept(Submission submission) {
  std::string error = Unservable(submission.request, runner_.vocabulary());
  if (error.empty()) error = TryAdd(submission);
  if (!error.empty()) Refuse(submission, error);
}

// Empty when the request was added; else a sentence, and nothing of it is left.
std::string StepExecutor::TryAdd(Submission& submission) {
  Request& request = submission.request;
  try {
    auto active = std::make_unique<Active>();
    active->choices.resize(request.choices);
    active->unfinished = request.choices;
    active->enqueued = submission.enqueued;
    if (request.pooling) {
      active->pooler.emplace(*request.pooling, static_cast<uint32_t>(request.prompt.size()));
    }
    if (request.prompt_logprobs) active->prompt_logprobs.resize(request.prompt.size());
    Active& added = *(requests_[request.id] = std::move(active));
    // The inbox keeps the same bounds, so the scheduler refuses only what no caller should send.
    if (scheduler_.Add(request, submission.enqueued) == AdmitResult::kOk) {
      added.request = std::move(request);
      return {};
    }
    requests_.erase(request.id);
    return "The request does not fit the queue or the context.";
  } catch (const std::exception& e) {
    requests_.erase(request.id);
    return std::string("There is no memory for the request: ") + e.what() + ".";
  }
}

void StepExecutor::Refuse(const Submission& submission, const std::string& error) {
  for (uint32_t choice = 0; choice < submission.request.choices; ++choice) {
    TokenEvent event;
    event.request = submission.request.id;
    event.choice = choice;
    event.finished = true;
    event.reason = FinishReason::kError;
    event.error = error;
    event.enqueued = submission.enqueued;
    event.now = clock_();
    submission.request.sink->OnEvent(std::move(event));
  }
  ++ended_;
}

void StepExecutor::Cancel(RequestId request, FinishReason reason) {
  scheduler_.Cancel(request, reason);
  PublishEndings();
}

void StepExecutor::CancelChoice(RequestId request, uint32_t choice, FinishReason reason) {
  scheduler_.CancelChoice(request, choice, reason);
  PublishEndings();
}

void StepExecutor::CancelAll(FinishReason reason) {
  for (const auto& [id, active] : requests_) scheduler_.Cancel(id, reason);
  PublishEndings();
}

bool StepExecutor::Step() {
  try {
    StepPlan plan = scheduler_.Plan(clock_());
    PublishEndings();  // queue deadlines
    if (plan.empty()) return false;
    RunPlan(&plan);
  } catch (const std::exception& e) {
    FailAll(std::string("The step could not be planned: ") + e.what() + ".");
  }
  return true;
}

void StepExecutor::RunPlan(StepPlan* plan) {
  MoveBlocks(*plan);
  if (drafter_) FollowPlan(*plan);
  BindRows(*plan);
  const bool metered = std::any_of(rows_.begin(), rows_.end(),
                                   [](const Row& row) { return row.active->request.report_cost; });
  const bool readable = metered && ReadCosts(&before_);
  const double begin = clock_();
  if (drafter_) Guess(plan);
  const double guess_seconds = clock_() - begin;
  totals_.draft_seconds += guess_seconds;
  PrepareRows();
  RunBatch();
  if (readable && ReadCosts(&after_)) ChargeRows();
  StepResult result = Collect();
  result.guess_cost = GuessCost(guess_seconds);
  scheduler_.Commit(*plan, result, clock_());
  PublishTokens(result);
}

// Before anything that may fail: sequences that have no row in the step rely on these moves too.
void StepExecutor::MoveBlocks(const StepPlan& plan) {
  for (const BlockMove& move : plan.moves) {
    switch (move.kind) {
      case BlockMove::Kind::kCopy:
        runner_.CopyBlock(move.from, move.to);
        break;
      case BlockMove::Kind::kSwapOut:
        runner_.SwapOut(move.from, move.to);
        break;
      case BlockMove::Kind::kSwapIn:
        runner_.SwapIn(move.from, move.to);
        break;
    }
  }
}

void StepExecutor::BindRows(const StepPlan& plan) {
  rows_.clear();
  rows_.resize(plan.rows.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    Row& row = rows_[i];
    row.planned = &plan.rows[i];
    row.sequence = scheduler_.Find(row.planned->sequence);
    row.active = requests_.at(row.sequence->request).get();
    row.choice = &row.active->choices[row.sequence->choice];
    row.choice->scheduled = row.sequence->first_scheduled;
    row.active->cached_tokens = row.sequence->cached_tokens;
  }
}

// Like MoveBlocks(), before anything that may fail: the drafting model must not take what was in a
// block before for what is there now.
void StepExecutor::FollowPlan(const StepPlan& plan) {
  drafter_->Move(plan.moves);
  for (const PlannedRow& row : plan.rows) {
    drafter_->Forget(*scheduler_.Find(row.sequence), row.first, row.count + row.draft_room);
  }
}

// A guess that cannot be made is no reason not to go on.
void StepExecutor::Guess(StepPlan* plan) {
  const bool rooms = std::any_of(plan->rows.begin(), plan->rows.end(),
                                 [](const PlannedRow& row) { return row.draft_room > 0; });
  if (!rooms) return;
  try {
    DraftRows(plan->rows);
  } catch (const std::bad_alloc&) {
    // Nothing was drawn yet.
  }
}

void StepExecutor::DraftRows(std::span<PlannedRow> planned) {
  std::vector<GuessRow> guesses(rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    const Request& request = rows_[i].active->request;
    guesses[i].sequence = rows_[i].sequence;
    guesses[i].room = planned[i].draft_room;
    guesses[i].candidates = request.forced_tokens.empty() ? FewNeeded(request) : 1;
    guesses[i].adapters = request.adapters;
  }
  const auto draw = [&](size_t i, uint32_t position, std::span<float> logits) {
    const std::optional<engine::TokenId> token = DrawGuess(rows_[i], position, logits);
    const auto place = static_cast<uint32_t>(guesses[i].drafts.size());
    if (token && EndsChoice(rows_[i], *token, place + 1)) guesses[i].room = place + 1;
    return token;
  };
  try {
    drafter_->Draft(guesses, draw);
  } catch (const std::exception&) {
    for (GuessRow& guess : guesses) guess.failed = guess.room > 0;
  }
  for (size_t i = 0; i < rows_.size(); ++i) {
    // They were accepted to draw the ones behind them; the model has yet to.
    TakeBack(*rows_[i].choice, guesses[i].drafts.size());
    planned[i].drafts = std::move(guesses[i].drafts);
    planned[i].never_draft = guesses[i].failed;
  }
}

// The choice's own sampler draws from what the drafting model says, with the penalties, the mask
// and the random number of the place: where both models agree, so do the samples.
std::optional<engine::TokenId> StepExecutor::DrawGuess(Row& row, uint32_t position,
                                                       std::span<float> logits) {
  if (!row.active->request.forced_tokens.empty()) {
    const auto best = std::max_element(logits.begin(), logits.end());
    return static_cast<engine::TokenId>(best - logits.begin());
  }
  MakeSampler(row);
  Choice& choice = *row.choice;
  const auto mask = choice.matcher ? choice.matcher->Mask() : std::span<const uint64_t>();
  const engine::Sample sample = choice.sampler->Draw(logits, position, mask);
  if (!sample.finite || !AcceptToken(choice, sample.token)) return std::nullopt;
  return sample.token;
}

// What was lacking of a text is computed once: it says nothing about the next guesses.
double StepExecutor::GuessCost(double seconds) const {
  size_t drafted = 0;
  for (const Row& row : rows_) drafted += row.planned->drafts.size();
  if (!drafter_ || drafter_->last_tokens() > 2 * drafted) return 0;
  if (drafted == 0 || last_step_.seconds <= 0) return 0;
  return std::min(1.0, seconds / static_cast<double>(drafted) / last_step_.seconds);
}

void StepExecutor::PrepareRows() {
  for (Row& row : rows_) {
    try {
      PrepareRow(row);
    } catch (const std::bad_alloc&) {
      row.error = "There is no memory for the next step of this request.";
    }
  }
}

void StepExecutor::PrepareRow(Row& row) {
  const PlannedRow& planned = *row.planned;
  // A prompt position predicts the next prompt token; after preemption its score is known.
  const auto& scores = row.active->prompt_logprobs;
  const bool scores_prompt = !scores.empty() && row.sequence->choice == 0;
  for (uint32_t j = 0; j < planned.tokens(); ++j) {
    const uint32_t next = planned.first + j + 1;
    const bool pooled = row.active->pooler && row.active->pooler->Needs(planned.first + j);
    const bool scored = scores_prompt && next < scores.size() && !scores[next].has_logprob;
    if (pooled || scored || (j + 1 >= planned.count && planned.samples)) row.outputs.push_back(j);
  }
  if (planned.drafts.empty()) return;
  const auto first = row.sequence->tokens.begin() + planned.first;
  row.tokens.assign(first, first + planned.count);
  row.tokens.insert(row.tokens.end(), planned.drafts.begin(), planned.drafts.end());
}

void StepExecutor::RunBatch() {
  last_step_ = {};
  std::vector<engine::BatchRow> batch;
  std::vector<size_t> indices;
  for (size_t i = 0; i < rows_.size(); ++i) {
    const Row& row = rows_[i];
    if (!row.error.empty()) continue;
    engine::BatchRow& out = batch.emplace_back();
    out.tokens =
        row.tokens.empty()
            ? std::span(row.sequence->tokens).subspan(row.planned->first, row.planned->count)
            : std::span(row.tokens);
    out.first_position = row.planned->first;
    out.block_table = row.sequence->blocks;
    out.outputs = row.outputs;
    out.state_slot = row.sequence->state_slot;
    out.adapters = row.active->request.adapters;
    out.query.k = CandidatesFor(row);
    out.output_kind = row.outputs.empty()  ? engine::OutputKind::kNone
                      : row.active->pooler ? engine::OutputKind::kHidden
                      : out.query.k == 0   ? engine::OutputKind::kLogits
                                           : engine::OutputKind::kCandidates;
    indices.push_back(i);
  }
  RunRows(batch, indices);
  totals_.steps += 1;
  totals_.tokens += last_step_.tokens;
  totals_.kv_bytes_read += last_step_.kv_bytes;
  totals_.screened_positions += last_step_.screened_positions;
  totals_.screen_fallbacks += last_step_.screen_fallbacks;
  totals_.guard_trips += last_step_.guard_trips;
  totals_.refined_rows += last_step_.refined_rows;
  totals_.seconds += last_step_.seconds;
  totals_.projection_seconds += last_step_.projection_seconds;
  totals_.attention_seconds += last_step_.attention_seconds;
  totals_.head_seconds += last_step_.head_seconds;
}

// Steps the rows, in halves when that throws, until the guilty stand alone.
void StepExecutor::RunRows(std::span<const engine::BatchRow> batch, std::span<const size_t> rows) {
  if (batch.empty()) return;
  try {
    Sink sink(*this, rows);
    const engine::StepOutput output = runner_.Step({.rows = batch, .sink = &sink});
    for (size_t i = 0; i < rows.size(); ++i) {
      if (output.rows[i].status != engine::RowStatus::kOk) {
        rows_[rows[i]].error = Describe(output.rows[i].status);
      } else if (!output.rows[i].hidden.empty()) {
        Pool(rows_[rows[i]], output.rows[i].hidden);
      } else if (!output.rows[i].candidates.empty()) {
        const size_t k = batch[i].query.k;
        for (size_t j = 0; j < batch[i].outputs.size(); ++j) {
          const auto best = output.rows[i].candidates.subspan(j * k, k);
          sink.OnLogits(i, j, sparse_logits_.Spread(best, runner_.vocabulary()));
        }
      }
    }
    return AddStats(output.stats, &last_step_);
  } catch (const std::exception& e) {
    for (const size_t row : rows) Undo(rows_[row]);
    if (rows.size() == 1) {
      rows_[rows.front()].error = std::string("The step failed: ") + e.what() + ".";
      return;
    }
  }
  const size_t middle = rows.size() / 2;
  RunRows(batch.first(middle), rows.first(middle));
  RunRows(batch.subspan(middle), rows.subspan(middle));
}

// hidden: [outputs of the row, hidden].
void StepExecutor::Pool(const Row& row, std::span<const float> hidden) {
  const size_t size = hidden.size() / row.outputs.size();
  for (size_t i = 0; i < row.outputs.size(); ++i) {
    const uint32_t position = row.planned->first + row.outputs[i];
    // A step that threw after this row was taken is repeated.
    if (!row.active->pooler->Needs(position)) continue;
    row.active->pooler->Add(position, hidden.subspan(i * size, size));
  }
}

// As if the row's logits had not come.
void StepExecutor::Undo(Row& row) {
  TakeBack(*row.choice, row.samples.size());
  row.samples.clear();
  row.closed = false;
  row.error.clear();
}

// False when the grammar cannot be followed any further. Accepts all or nothing.
bool StepExecutor::AcceptToken(Choice& choice, engine::TokenId token) {
  if (choice.matcher && !choice.matcher->Accept(token)) return false;
  if (!choice.sampler) return true;
  try {
    choice.sampler->Accept(token);
  } catch (...) {
    if (choice.matcher) choice.matcher->Rollback(1);
    throw;
  }
  return true;
}

void StepExecutor::TakeBack(Choice& choice, size_t tokens) {
  if (choice.sampler) choice.sampler->Rollback(static_cast<uint32_t>(tokens));
  if (choice.matcher) choice.matcher->Rollback(static_cast<uint32_t>(tokens));
}

// How many of the best logits will do for the row; 0 = all are needed.
uint32_t StepExecutor::CandidatesFor(const Row& row) const {
  const PlannedRow& planned = *row.planned;
  // Beside its samples' a row may have outputs of prompt positions.
  if (!runner_.gives_candidates() || !planned.samples ||
      row.outputs.size() != planned.drafts.size() + 1) {
    return 0;
  }
  // The score of a forced token is that of the whole distribution.
  const Request& request = row.active->request;
  return row.choice->generated < request.forced_tokens.size() ? 0 : FewNeeded(request);
}

// How many of the best logits are enough to draw from; 0 = all are needed.
uint32_t StepExecutor::FewNeeded(const Request& request) const {
  if (request.grammar) return 0;  // the best allowed token may be far from the best
  const uint32_t needed = engine::CandidatesNeeded(request.sampling, request.stop_tokens.size());
  return needed <= runner_.vocabulary() ? needed : 0;
}

bool StepExecutor::ReadCosts(CostReading* reading) const noexcept {
  try {
    ReadCost(runner_, totals_.kv_bytes_read, totals_.seconds, reading);
    return true;
  } catch (const std::bad_alloc&) {
    return false;
  }
}

void StepExecutor::ChargeRows() noexcept {
  uint32_t tokens = 0;
  for (const Row& row : rows_) tokens += row.planned->tokens();
  for (Row& row : rows_) {
    if (!row.active->request.report_cost) continue;
    try {
      Charge(before_, after_, row.planned->tokens(), tokens, &row.choice->cost);
    } catch (const std::bad_alloc&) {  // its figures lack this step
    }
  }
}

// The logits after token `index` of the row.
void StepExecutor::TakeLogits(Row& row, uint32_t index, std::span<float> logits) {
  const uint32_t next = row.planned->first + index + 1;
  if (next < row.sequence->tokens.size()) {
    ScorePrompt(row, next, logits);
  } else {
    DrawToken(row, next, logits);
  }
}

void StepExecutor::ScorePrompt(Row& row, uint32_t position, std::span<float> logits) {
  Active& active = *row.active;
  engine::Sample sample = ScorerOf(active).Score(logits, position, active.request.prompt[position]);
  if (!sample.finite) {
    row.error = kNoFiniteLogit;
    return;
  }
  PromptLogprob& score = active.prompt_logprobs[position];
  score.has_logprob = true;
  score.logprob = sample.logprob;
  score.top = std::move(sample.top);
}

// Draws the next token of the row's choice, or scores the one that it is forced to take. Logits
// behind a draft count only while the samples so far are the drafts.
void StepExecutor::DrawToken(Row& row, uint32_t position, std::span<float> logits) {
  if (row.closed) return;
  const Request& request = row.active->request;
  Choice& choice = *row.choice;
  const size_t place = row.samples.size();
  engine::Sample sample;
  if (choice.generated + place < request.forced_tokens.size()) {
    const engine::TokenId token = request.forced_tokens[choice.generated + place];
    sample = ScorerOf(*row.active).Score(logits, position, token);
  } else {
    MakeSampler(row);
    const auto mask = choice.matcher ? choice.matcher->Mask() : std::span<const uint64_t>();
    if (choice.matcher &&
        std::all_of(mask.begin(), mask.end(), [](uint64_t w) { return w == 0; })) {
      row.closed = true;
      if (place == 0) row.error = kNoTokenAllowed;
      return;
    }
    sample = choice.sampler->Draw(logits, position, mask);
  }
  if (!sample.finite) {
    // Behind a draft it may be the draft's fault: the place comes again without one.
    row.closed = true;
    if (place == 0) row.error = kNoFiniteLogit;
    return;
  }
  const engine::TokenId token = sample.token;
  row.samples.reserve(row.planned->drafts.size() + 1);
  if (!AcceptToken(choice, token)) {
    row.closed = true;
    if (place == 0) row.error = kTooAmbiguous;
    return;
  }
  row.samples.push_back(std::move(sample));
  const std::vector<engine::TokenId>& drafts = row.planned->drafts;
  row.closed = place >= drafts.size() || token != drafts[place] ||
               EndsChoice(row, token, row.samples.size());
}

void StepExecutor::MakeSampler(Row& row) {
  Choice& choice = *row.choice;
  if (choice.sampler) return;
  const Request& request = row.active->request;
  // The sampler last: where there is one there is the matcher too.
  if (request.grammar) {
    choice.matcher.emplace(request.grammar, request.stop_tokens, request.drops_first_space);
  }
  choice.sampler.emplace(request.sampling, request.prompt, row.sequence->choice,
                         request.stop_tokens);
}

// `token` being the last of so many that the step may accept.
bool StepExecutor::EndsChoice(const Row& row, engine::TokenId token, size_t accepted) const {
  const Request& request = row.active->request;
  if (row.sequence->generated() + accepted >= row.sequence->max_tokens) return true;
  if (row.choice->matcher && row.choice->matcher->IsExhausted()) return true;
  const std::vector<engine::TokenId>& stops = request.stop_tokens;
  return request.forced_tokens.empty() &&
         std::find(stops.begin(), stops.end(), token) != stops.end();
}

TokenScorer& StepExecutor::ScorerOf(Active& active) {
  if (!active.scorer) {
    const Request& request = active.request;
    const int32_t asked = request.sampling.logprobs;
    active.scorer = std::make_unique<TokenScorer>(
        runner_.vocabulary(), request.prompt_logprobs ? std::max(asked, 0) : asked);
  }
  return *active.scorer;
}

StepResult StepExecutor::Collect() {
  StepResult result;
  result.rows.resize(rows_.size());
  for (size_t i = 0; i < rows_.size(); ++i) {
    Row& row = rows_[i];
    RowResult& out = result.rows[i];
    if (row.error.empty() && row.planned->samples && row.samples.empty()) {
      row.error = "The engine gave no logits for this request.";
    }
    if (!row.error.empty() && !row.tokens.empty()) {
      Undo(row);
      out.outcome = RowOutcome::kDropDrafts;
    } else if (!row.error.empty()) {
      out.outcome = RowOutcome::kFailed;
      out.error = row.error;
    }
    if (out.outcome != RowOutcome::kOk) continue;
    for (const engine::Sample& sample : row.samples) out.accepted.push_back(sample.token);
    out.complete = row.choice->matcher && row.choice->matcher->IsExhausted();
  }
  return result;
}

// Tells the sinks of the step's tokens, the last one of a choice together with its end.
void StepExecutor::PublishTokens(const StepResult& result) {
  std::vector<Finished> endings = scheduler_.TakeFinished();
  for (Finished& ending : endings) {
    requests_.at(ending.request)->choices[ending.choice].ending = &ending;
  }
  for (size_t i = 0; i < rows_.size(); ++i) PublishRow(rows_[i], result.rows[i].accepted.size());
  Close(std::move(endings));
}

void StepExecutor::PublishRow(Row& row, size_t accepted) {
  for (size_t i = 0; i < accepted; ++i) {
    engine::Sample& sample = row.samples[i];
    TokenEvent event;
    event.choice = static_cast<uint32_t>(row.choice - row.active->choices.data());
    event.has_token = true;
    event.token = sample.token;
    event.logprob = sample.logprob;
    event.top = std::move(sample.top);
    if (event.choice == 0 && row.choice->generated == 0) {
      event.prompt_logprobs = std::move(row.active->prompt_logprobs);
    }
    row.choice->generated += 1;
    if (row.choice->ending != nullptr && i + 1 == accepted) {
      event.finished = true;
      event.reason = row.choice->ending->reason;
      event.error = std::move(row.choice->ending->error);
      row.choice->told_end = true;
    }
    Deliver(*row.active, *row.choice, std::move(event));
  }
}

// Ends every request of the runtime.
void StepExecutor::FailAll(const std::string& error) {
  for (const auto& [id, active] : requests_) scheduler_.Cancel(id, FinishReason::kError, error);
  PublishEndings();
}

void StepExecutor::PublishEndings() { Close(scheduler_.TakeFinished()); }

// Tells the ends that no token event has told, and forgets requests without unfinished choices.
void StepExecutor::Close(std::vector<Finished> endings) {
  for (Finished& ending : endings) {
    const auto it = requests_.find(ending.request);
    Active& active = *it->second;
    Choice& choice = active.choices[ending.choice];
    if (!choice.told_end) {
      TokenEvent event;
      event.choice = ending.choice;
      event.finished = true;
      event.reason = ending.reason;
      event.error = std::move(ending.error);
      if (active.pooler && ending.reason == FinishReason::kStop) {
        try {
          event.embedding = active.pooler->Result();
        } catch (const std::bad_alloc&) {
          event.reason = FinishReason::kError;
          event.error = "out of memory";
        }
      }
      Deliver(active, choice, std::move(event));
    }
    if (--active.unfinished > 0) continue;
    requests_.erase(it);
    ++ended_;
  }
}

void StepExecutor::Deliver(Active& active, Choice& choice, TokenEvent event) {
  event.request = active.request.id;
  event.enqueued = active.enqueued;
  event.scheduled = choice.scheduled;
  event.cached_tokens = active.cached_tokens;
  event.now = clock_();
  if (active.request.report_cost) {
    try {
      event.cost = std::make_shared<const RequestCost>(choice.cost);
    } catch (const std::bad_alloc&) {  // the end must be told, with or without figures
    }
  }
  active.request.sink->OnEvent(std::move(event));
}

}  // namespace scheduler
