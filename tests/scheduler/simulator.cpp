#include "tests/scheduler/simulator.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <map>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "scheduler/scheduler.h"

namespace scheduler {
namespace {

using engine::BlockId;
using engine::TokenId;

constexpr TokenId kVocabulary = 64;

std::atomic<uint64_t> current_seed{0};

std::string ReplayLine(uint64_t seed) {
  const auto number = static_cast<unsigned long>(seed);
  char line[96];
  std::snprintf(line, sizeof line, "replay: scheduler_sim --trace --seeds %lu..%lu", number,
                number);
  return line;
}

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31);
}

// What the fake engine gives after `tokens`: any change of any token changes it. With a period it
// mostly repeats what stood that far back, so that drafts have something to guess.
TokenId NextToken(const std::vector<TokenId>& tokens, uint32_t choice, uint32_t period) {
  uint64_t hash = 0x9E3779B97F4A7C15U + choice;
  for (const TokenId token : tokens) hash = Mix(hash + static_cast<uint64_t>(token) + 1);
  if (period > 0 && tokens.size() >= period && hash % 10 != 0)
    return tokens[tokens.size() - period];
  return static_cast<TokenId>(hash % kVocabulary);
}

// One position of the fake KV cache.
struct Cell {
  TokenId token = -1;
  uint32_t position = 0;
  std::string space;  // salt and key of the request that wrote it, as far as they separate caches
  uint64_t text = 0;  // hash of all tokens up to here: keys and values depend on them
  bool operator==(const Cell&) const = default;
};

// Hashes of the beginnings of `tokens`, each with its last token.
std::vector<uint64_t> TextHashes(const std::vector<TokenId>& tokens) {
  std::vector<uint64_t> hashes;
  uint64_t hash = 1;
  for (const TokenId token : tokens) {
    hashes.push_back(hash = Mix(hash + static_cast<uint64_t>(token) + 1));
  }
  return hashes;
}

// What the simulator knows of a choice, kept apart from the scheduler's own record.
struct Choice {
  std::vector<TokenId> tokens;
  uint32_t computed = 0;
  uint32_t dropped = 0;   // blocks that its window left behind
  bool decoding = false;  // took a token in the last step
  bool cancelled = false;
  bool failed = false;        // a row of it was made to fail
  bool never_drafts = false;  // a model can say nothing about it
  bool finished = false;
  FinishReason cancel_reason = FinishReason::kCancelled;
};

struct Client {
  Request request;
  double arrival = 0;
  bool started = false;
  std::string space;
  std::vector<Choice> choices;
  uint32_t max_tokens = 0;

  bool done() const {
    return std::all_of(choices.begin(), choices.end(), [](const Choice& c) { return c.finished; });
  }
};

class Simulation {
 public:
  Simulation(uint64_t seed, bool trace) : seed_(seed), trace_(trace), random_(Mix(seed + 1)) {
    MakeWorld();
  }

  SimulationReport Run();

 private:
  uint32_t Pick(uint32_t low, uint32_t high) {
    return low + static_cast<uint32_t>(random_() % (uint64_t{high} - low + 1));
  }
  bool Chance(uint32_t percent) { return Pick(1, 100) <= percent; }
  void Check(bool good, const char* rule) const {
    if (good) return;
    std::string message = rule;
    message.append("; ").append(ReplayLine(seed_));
    throw SimulationFailure(message);
  }

  void MakeWorld();
  void Arrive();
  Request MakeRequest();
  void CancelSomething();
  void Step();
  void CheckPlan(const StepPlan& plan, uint64_t preempted);
  void CheckRow(const PlannedRow& row);
  void CheckStart(const PlannedRow& row, const Sequence& sequence, Client& client);
  void CheckOrder();
  void CheckChunks(const StepPlan& plan) const;
  void DraftWithModel(PlannedRow& row);
  void RunMovesAndWrites(const StepPlan& plan);
  std::vector<TokenId> ReadBack(const PlannedRow& row, const Sequence& sequence) const;
  RowResult RunRow(const PlannedRow& row, bool step_fails);
  TokenId Sample(const Client& client, uint32_t choice, const std::vector<TokenId>& tokens) const;
  void TakeEndings();
  void CheckEnding(const Client& client, const Choice& choice, const Finished& ending);
  void CheckOutputs(const Client& client, uint32_t index) const;
  bool StopsAt(const Client& client, const Choice& choice) const;
  Choice& ChoiceOf(const Sequence& sequence) {
    return clients_.at(sequence.request).choices[sequence.choice];
  }

  const uint64_t seed_;
  const bool trace_;
  std::mt19937_64 random_;
  SchedulerOptions options_;
  uint32_t block_size_ = 0;
  uint32_t context_ = 0;
  uint32_t kv_blocks_ = 0;
  engine::KvGeometry geometry_;
  uint32_t arrivals_left_ = 0;
  uint32_t cancel_percent_ = 0;
  uint32_t fail_percent_ = 0;
  uint32_t period_ = 0;  // of the texts that the fake engine writes; 0 = none
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::vector<Cell>> kv_;
  std::map<uint32_t, std::vector<Cell>> host_;  // by swap slot
  std::vector<std::vector<TokenId>> texts_;     // of choices that ended: prompts may continue them
  std::vector<const Client*> starts_;           // of this step
  uint64_t looked_up_ = 0;                      // prompt tokens of started requests
  std::map<RequestId, Client> clients_;
  std::set<RequestId> open_;
  double now_ = 0;
  uint64_t work_ = 0;  // tokens that all requests could need
  SimulationReport report_;
};

void Simulation::MakeWorld() {
  constexpr uint32_t kBlockSizes[] = {1, 2, 3, 4, 8, 16};
  block_size_ = kBlockSizes[Pick(0, 5)];
  const bool windowed = Chance(33);
  context_ = Pick(3, Chance(20) || windowed ? 160 : 48);
  geometry_.layers = geometry_.kv_heads = geometry_.head_dim = 1;
  geometry_.block_size = block_size_;
  if (windowed) geometry_.window = {.tokens = Pick(16, 50), .sinks = Chance(70) ? Pick(1, 9) : 0};
  const uint32_t least = geometry_.MostBlocks(context_, 1);
  kv_blocks_ = least + (Chance(30) ? 0 : Pick(0, 4 * least));
  report_.windows += windowed ? 1 : 0;
  options_.max_sequences = Pick(1, 12);
  options_.max_batch_tokens = Pick(1, Chance(50) ? 16 : 64);
  options_.prefill_chunk = Pick(1, 40);
  options_.max_queued_requests = Pick(1, 12);
  options_.max_queued_tokens = Pick(20, 600);
  options_.queue_deadline_seconds = Chance(25) ? Pick(1, 30) : 0;
  arrivals_left_ = Pick(1, 14);
  cancel_percent_ = Chance(50) ? Pick(1, 15) : 0;
  fail_percent_ = Chance(30) ? Pick(1, 4) : 0;
  if (Chance(50)) {
    options_.speculation = Chance(50) ? Speculation::kNgram : Speculation::kModel;
    options_.speculation_max_tokens = Pick(1, 24);
    period_ = Chance(80) ? Pick(1, 6) : 0;
  }
  options_.fair_share = Chance(70);
  options_.priority_aging_seconds = Chance(50) ? Pick(1, 10) : 0;
  options_.max_queued_per_key = Chance(30) ? Pick(1, 6) : 0;
  constexpr PrefixCacheMode kModes[] = {PrefixCacheMode::kOff, PrefixCacheMode::kOn,
                                        PrefixCacheMode::kOn, PrefixCacheMode::kPerKey};
  options_.prefix_cache = kModes[Pick(0, 3)];
  if (Chance(40)) options_.swap_bytes = Pick(0, 2 * kv_blocks_) * geometry_.BytesPerBlock();
  scheduler_ = std::make_unique<Scheduler>(options_, geometry_, kv_blocks_, context_);
  kv_.assign(kv_blocks_, std::vector<Cell>(block_size_));
}

SimulationReport Simulation::Run() {
  uint64_t quiet_steps = 0;  // since the last arrival
  while (arrivals_left_ > 0 || !scheduler_->idle()) {
    while (arrivals_left_ > 0 && (scheduler_->idle() || Chance(35))) Arrive();
    if (Chance(cancel_percent_)) CancelSomething();
    Step();
    now_ += 0.01 * Pick(0, 100);
    if (arrivals_left_ > 0) continue;
    Check(++quiet_steps <= 4 * work_ + 16, "a request starves");
  }
  TakeEndings();
  Check(open_.empty(), "a request has no end though the scheduler is idle");
  const SchedulerStats stats = scheduler_->stats();
  Check(stats.kv_blocks_used == 0, "an idle scheduler holds blocks");
  Check(stats.running + stats.waiting + stats.queued_requests + stats.waiting_tokens == 0,
        "an idle scheduler counts sequences");
  Check(stats.generated_tokens == report_.tokens, "generated tokens are miscounted");
  Check(stats.drafts == report_.drafts, "drafts are miscounted");
  const bool caches = options_.prefix_cache != PrefixCacheMode::kOff;
  Check(stats.prefix_queries == (caches ? looked_up_ : 0), "prompts are looked up more than once");
  Check(stats.prefix_hits <= stats.prefix_queries, "more was found than looked for");
  Check(stats.swap_slots_used == 0, "an idle scheduler holds host memory");
  Check(caches || stats.kv_blocks_cached == 0, "blocks are cached without a cache");
  report_.preemptions = stats.preemptions;
  report_.swaps = stats.swapped_preemptions;
  report_.cached_tokens = stats.prefix_hits;
  report_.evictions = stats.prefix_evictions;
  return report_;
}

Request Simulation::MakeRequest() {
  Request request;
  request.id = 1000 + clients_.size() + report_.refusals;
  const uint32_t length = Chance(10) ? Pick(1, context_ + 2) : Pick(1, (context_ + 2) / 2);
  if (!texts_.empty() && Chance(60)) {
    // Continues, or leaves somewhere, a text that was there before.
    const std::vector<TokenId>& text = texts_[Pick(0, static_cast<uint32_t>(texts_.size()) - 1)];
    const uint32_t kept = std::min(Pick(1, static_cast<uint32_t>(text.size())), length);
    request.prompt.assign(text.begin(), text.begin() + kept);
  }
  while (request.prompt.size() < length) {
    request.prompt.push_back(static_cast<TokenId>(Pick(0, kVocabulary - 1)));
  }
  request.tenant = std::string(1, static_cast<char>('a' + Pick(0, 2)));
  if (Chance(20)) request.cache_salt = "salt";
  request.prompt_logprobs = Chance(10);
  request.choices = Chance(35) ? Pick(2, 6) : 1;
  request.max_tokens = Chance(20) ? 0 : Pick(1, 12);
  for (uint32_t i = Pick(0, 3); i > 0; --i) {
    request.stop_tokens.push_back(static_cast<TokenId>(Pick(0, kVocabulary - 1)));
  }
  if (Chance(10)) {
    for (uint32_t i = Pick(1, 8); i > 0; --i) {
      request.forced_tokens.push_back(static_cast<TokenId>(Pick(0, kVocabulary - 1)));
    }
  }
  request.priority = Chance(30) ? static_cast<int32_t>(Pick(0, 2)) - 1 : 0;
  return request;
}

void Simulation::Arrive() {
  --arrivals_left_;
  Client client;
  client.request = MakeRequest();
  const Request& request = client.request;
  client.arrival = now_;
  client.space = request.cache_salt + "/" +
                 (options_.prefix_cache == PrefixCacheMode::kPerKey ? request.tenant : "");
  const auto length = static_cast<uint32_t>(request.prompt.size());
  const uint64_t tokens = uint64_t{length} * request.choices;
  const SchedulerStats before = scheduler_->stats();
  const AdmitResult result = scheduler_->Add(request, now_);
  if (trace_) {
    std::printf("%.2f add %lu prompt %u n %u max %u priority %d -> %d\n", now_,
                static_cast<unsigned long>(request.id), length, request.choices, request.max_tokens,
                request.priority, static_cast<int>(result));
  }
  if (length + 1 > context_) {
    Check(result == AdmitResult::kPromptTooLong, "a prompt that does not fit was taken");
  } else {
    const bool full =
        before.queued_requests >= options_.max_queued_requests ||
        (before.queued_requests > 0 && before.waiting_tokens + tokens > options_.max_queued_tokens);
    uint32_t of_key = 0;
    for (const RequestId id : open_) {
      const Client& other = clients_.at(id);
      of_key += !other.started && other.request.tenant == request.tenant ? 1 : 0;
    }
    const bool key_full = options_.max_queued_per_key > 0 && of_key >= options_.max_queued_per_key;
    const AdmitResult expected = full       ? AdmitResult::kQueueFull
                                 : key_full ? AdmitResult::kKeyQueueFull
                                            : AdmitResult::kOk;
    Check(result == expected, "the queue bound is off");
  }
  if (result != AdmitResult::kOk) {
    ++report_.refusals;
    return;
  }
  const uint32_t room = context_ - length;
  const auto forced = static_cast<uint32_t>(request.forced_tokens.size());
  const uint32_t wanted = forced > 0 ? forced : request.max_tokens;
  client.max_tokens = wanted == 0 ? room : std::min(wanted, room);
  client.choices.resize(request.choices);
  for (Choice& choice : client.choices) choice.tokens = request.prompt;
  work_ += uint64_t{request.choices} * (length + client.max_tokens);
  report_.choices += request.choices;
  open_.insert(request.id);
  clients_.emplace(request.id, std::move(client));
}

void Simulation::CancelSomething() {
  if (open_.empty() || Chance(5)) {
    scheduler_->Cancel(7, FinishReason::kCancelled);  // unknown: ignored
    return;
  }
  auto it = open_.begin();
  std::advance(it, Pick(0, static_cast<uint32_t>(open_.size()) - 1));
  Client& client = clients_.at(*it);
  const FinishReason reason = Chance(50) ? FinishReason::kCancelled : FinishReason::kStop;
  const auto cancel = [&](Choice& choice) {
    if (choice.finished) return;
    choice.cancelled = true;
    choice.cancel_reason = reason;
  };
  ++report_.cancels;
  if (Chance(50)) {
    for (Choice& choice : client.choices) cancel(choice);
    scheduler_->Cancel(*it, reason);
  } else {
    const uint32_t index = Pick(0, client.request.choices - 1);
    cancel(client.choices[index]);
    scheduler_->CancelChoice(*it, index, reason);
  }
  if (trace_) std::printf("%.2f cancel in %lu\n", now_, static_cast<unsigned long>(*it));
  if (Chance(50)) TakeEndings();
}

void Simulation::Step() {
  const uint64_t preemptions = scheduler_->stats().preemptions;
  StepPlan plan = scheduler_->Plan(now_);
  scheduler_->CheckIntegrity();
  TakeEndings();
  if (plan.empty()) {
    Check(scheduler_->idle(), "the plan is empty though sequences wait");
    return;
  }
  CheckPlan(plan, scheduler_->stats().preemptions - preemptions);
  for (PlannedRow& row : plan.rows) DraftWithModel(row);
  RunMovesAndWrites(plan);

  const bool step_fails = fail_percent_ > 0 && Chance(1);
  StepResult result;
  for (const PlannedRow& row : plan.rows) result.rows.push_back(RunRow(row, step_fails));
  if (Chance(50)) result.guess_cost = 0.01 * Pick(1, 150);
  scheduler_->Commit(plan, result, now_);
  scheduler_->CheckIntegrity();
  ++report_.steps;
  report_.rows += plan.rows.size();
  for (const BlockMove& move : plan.moves) {
    report_.copies += move.kind == BlockMove::Kind::kCopy ? 1 : 0;
  }
  TakeEndings();
}

void Simulation::CheckPlan(const StepPlan& plan, uint64_t preempted) {
  std::set<uint64_t> seen;
  std::map<BlockId, uint32_t> readers;
  uint32_t tokens = 0;
  for (const PlannedRow& row : plan.rows) {
    Check(seen.insert(row.sequence).second, "a sequence has two rows");
    tokens += row.tokens() + row.draft_room;
    CheckRow(row);
    const Sequence& sequence = *scheduler_->Find(row.sequence);
    std::set<BlockId> held;
    for (size_t i = 0; i < sequence.blocks.size(); ++i) {
      if (sequence.Holds(i)) held.insert(sequence.blocks[i]);
    }
    Check(held.size() == sequence.held_blocks(), "a block is twice in a table");
    Check(held.size() <= geometry_.MostBlocks(context_, row.tokens() + row.draft_room),
          "a sequence holds more than it sees");
    for (const BlockId block : held) ++readers[block];
  }
  CheckOrder();
  CheckChunks(plan);
  Check(tokens == plan.tokens, "the plan's tokens are miscounted");
  Check(tokens <= options_.max_batch_tokens, "the token budget is exceeded");
  Check(plan.rows.size() <= options_.max_sequences, "too many sequences run");
  Check(scheduler_->stats().running <= options_.max_sequences, "too many sequences are running");
  for (const PlannedRow& row : plan.rows) {
    const Sequence& sequence = *scheduler_->Find(row.sequence);
    for (uint32_t p = row.first; p < row.first + row.tokens() + row.draft_room; ++p) {
      Check(readers[sequence.blocks[p / block_size_]] == 1, "a row writes what another reads");
    }
  }
  std::set<std::pair<RequestId, uint32_t>> planned;
  for (const PlannedRow& row : plan.rows) {
    const Sequence& sequence = *scheduler_->Find(row.sequence);
    planned.emplace(sequence.request, sequence.choice);
  }
  for (const RequestId id : open_) {
    std::vector<Choice>& choices = clients_.at(id).choices;
    for (uint32_t i = 0; i < choices.size(); ++i) {
      if (choices[i].finished || planned.contains({id, i})) continue;
      Check(!choices[i].decoding || preempted > 0, "a running decode was left out of a step");
      choices[i].decoding = false;
    }
  }
}

void Simulation::CheckRow(const PlannedRow& row) {
  const Sequence* sequence = scheduler_->Find(row.sequence);
  Check(sequence != nullptr, "a row has no sequence");
  Choice& choice = ChoiceOf(*sequence);
  const auto prompt = static_cast<uint32_t>(clients_.at(sequence->request).request.prompt.size());
  if (trace_) {
    std::printf("%.2f row %lu/%u [%u, %u) of %zu%s\n", now_,
                static_cast<unsigned long>(sequence->request), sequence->choice, row.first,
                row.first + row.count, sequence->tokens.size(), row.samples ? " samples" : "");
  }
  Check(!choice.finished, "a finished choice is planned");
  Check(sequence->tokens == choice.tokens, "a sequence's tokens are not those it was given");
  const uint32_t shared = prompt - 1;  // a sibling's prompt, or its whole blocks
  const bool restarts =
      row.first == 0 || row.first == shared || row.first == shared / block_size_ * block_size_;
  const bool found = options_.prefix_cache != PrefixCacheMode::kOff || options_.swap_bytes > 0;
  const bool stopped = choice.computed == 0 || scheduler_->stats().preemptions > 0;
  Check(row.first == choice.computed || restarts || (found && stopped),
        "positions are computed out of order");
  Check(row.count > 0 && row.first + row.count <= choice.tokens.size(), "a row is out of range");
  Check(row.samples == (row.first + row.count == choice.tokens.size()), "a row samples wrongly");
  const uint32_t tokens = row.tokens() + row.draft_room;
  Check(sequence->blocks.size() * block_size_ >= row.first + tokens, "a block table is short");
  Check(row.drafts.empty() || options_.speculation == Speculation::kNgram, "the text drafts");
  Check(row.draft_room == 0 || options_.speculation == Speculation::kModel, "a model drafts");
  if (tokens > row.count) {
    const Client& owner = clients_.at(sequence->request);
    Check(row.count == 1 && row.samples, "a row that is no decode has drafts");
    Check(sequence->generated() + tokens <= owner.max_tokens, "a draft is beyond the end");
    Check(!ChoiceOf(*sequence).never_drafts, "drafts are wanted of a sequence that has none");
  }
  Client& client = clients_.at(sequence->request);
  if (!client.started) {
    CheckStart(row, *sequence, client);
  } else if (choice.computed == 0 && row.first > 0) {
    ++report_.shared_starts;
  }
}

// The first row of a request.
void Simulation::CheckStart(const PlannedRow& row, const Sequence& sequence, Client& client) {
  client.started = true;
  const bool caches = options_.prefix_cache != PrefixCacheMode::kOff;
  const bool scores = client.request.prompt_logprobs;
  Check(row.first == 0 || (caches && !scores), "a prompt that must be computed was not");
  Check(sequence.cached_tokens == row.first, "the found tokens are miscounted");
  if (row.first % block_size_ != 0) ++report_.partial_hits;
  if (!scores) looked_up_ += client.request.prompt.size();
  starts_.push_back(&client);
}

// Who started in this step against who still waits for the first.
void Simulation::CheckOrder() {
  for (const Client* starter : std::exchange(starts_, {})) {
    for (const RequestId id : open_) {
      const Client& other = clients_.at(id);
      const bool rivals = !other.started &&
                          (!options_.fair_share || other.request.tenant == starter->request.tenant);
      if (!rivals) continue;
      const double aging = options_.priority_aging_seconds;
      const auto urgency = [aging](const Client& c) {
        return aging > 0 ? c.arrival + aging * c.request.priority : c.request.priority;
      };
      Check(urgency(*starter) <= urgency(other), "a request was overtaken by a less urgent one");
    }
  }
}

// A chunk is longer than the limit only by what no other row wanted, and a long prompt does not
// leave a step half empty.
void Simulation::CheckChunks(const StepPlan& plan) const {
  const uint32_t chunk = std::min(options_.prefill_chunk, options_.max_batch_tokens);
  bool longer = false;
  bool shorter = false;
  bool unfinished = false;
  for (const PlannedRow& row : plan.rows) {
    const Sequence& sequence = *scheduler_->Find(row.sequence);
    const auto pending = static_cast<uint32_t>(sequence.tokens.size()) - row.first;
    longer |= row.count > chunk;
    shorter |= row.count < std::min(pending, chunk);
    unfinished |= row.count < pending;
  }
  Check(!longer || !shorter, "a chunk is longer than the limit though another row is cut");
  const size_t wanted = options_.max_batch_tokens / block_size_ + 2 * plan.rows.size();
  const bool tight = scheduler_->stats().kv_blocks_used + wanted > kv_blocks_;
  // A window's rows are as long as a tight pool lets them be.
  const bool windowed = geometry_.window.tokens > 0;
  Check(!unfinished || plan.tokens == options_.max_batch_tokens || tight || windowed,
        "a prompt waits though there is budget");
}

// What a model drafts: mostly what comes, fewer tokens than there is room for, or none at all.
void Simulation::DraftWithModel(PlannedRow& row) {
  const Sequence& sequence = *scheduler_->Find(row.sequence);
  if (row.draft_room == 0) return;
  std::vector<TokenId> tokens = sequence.tokens;
  for (uint32_t i = Chance(80) ? row.draft_room : Pick(0, row.draft_room); i > 0; --i) {
    tokens.push_back(Chance(80) ? Sample(clients_.at(sequence.request), sequence.choice, tokens)
                                : static_cast<TokenId>(Pick(0, kVocabulary - 1)));
    row.drafts.push_back(tokens.back());
  }
  report_.model_drafts += row.drafts.size();
  row.never_draft = Chance(2);
  ChoiceOf(sequence).never_drafts |= row.never_draft;
}

// Moves in order, then all rows write before any reads: the hardest order for a wrong table.
void Simulation::RunMovesAndWrites(const StepPlan& plan) {
  for (const BlockMove& move : plan.moves) {
    switch (move.kind) {
      case BlockMove::Kind::kCopy:
        kv_[move.to] = kv_[move.from];
        break;
      case BlockMove::Kind::kSwapOut:
        host_[move.to] = kv_[move.from];
        break;
      case BlockMove::Kind::kSwapIn:
        kv_[move.to] = host_.at(move.from);
        break;
    }
  }
  for (const PlannedRow& row : plan.rows) {
    const Sequence& sequence = *scheduler_->Find(row.sequence);
    const std::string& space = clients_.at(sequence.request).space;
    std::vector<TokenId> tokens = sequence.tokens;
    tokens.resize(row.first + row.count);
    tokens.insert(tokens.end(), row.drafts.begin(), row.drafts.end());
    const std::vector<uint64_t> texts = TextHashes(tokens);
    for (uint32_t p = row.first; p < row.first + row.tokens(); ++p) {
      kv_[sequence.blocks[p / block_size_]][p % block_size_] = {tokens[p], p, space, texts[p]};
    }
  }
}

std::vector<TokenId> Simulation::ReadBack(const PlannedRow& row, const Sequence& sequence) const {
  std::vector<TokenId> tokens;
  const std::vector<uint64_t> texts = TextHashes(sequence.tokens);
  const engine::AttentionWindow& window = geometry_.window;
  for (uint32_t p = 0; p < row.first + row.count; ++p) {
    tokens.push_back(sequence.tokens[p]);
    if (p >= window.sinks && p < window.Begin(row.first)) continue;
    Check(sequence.Holds(p / block_size_), "a block that a row sees was given back");
    const Cell& cell = kv_[sequence.blocks[p / block_size_]][p % block_size_];
    Check(cell.token == sequence.tokens[p] && cell.position == p,
          "the KV cache holds another token");
    Check(cell.text == texts[p], "the KV cache holds what came after another text");
    Check(cell.space == clients_.at(sequence.request).space, "a cache space leaks into another");
  }
  return tokens;
}

RowResult Simulation::RunRow(const PlannedRow& row, bool step_fails) {
  const Sequence& sequence = *scheduler_->Find(row.sequence);
  const Client& client = clients_.at(sequence.request);
  Choice& choice = ChoiceOf(sequence);
  std::vector<TokenId> tokens = ReadBack(row, sequence);
  choice.dropped = std::max(choice.dropped, sequence.hole_end - sequence.hole_begin);
  RowResult result;
  if (!row.drafts.empty() && Chance(fail_percent_)) {
    ++report_.drafts;
    ++report_.dropped_drafts;
    result.outcome = RowOutcome::kDropDrafts;
    return result;
  }
  choice.computed = row.first + row.count;
  choice.decoding = false;
  if (step_fails || Chance(fail_percent_)) {
    choice.failed = true;
    ++report_.failures;
    result.outcome = RowOutcome::kFailed;
    result.error = "made to fail";
    return result;
  }
  if (!row.samples) return result;
  report_.drafts += row.drafts.empty() ? 0 : 1;
  choice.decoding = true;
  for (size_t place = 0; place <= row.drafts.size(); ++place) {
    const TokenId token = Sample(client, sequence.choice, tokens);
    tokens.push_back(token);
    choice.tokens.push_back(token);
    result.accepted.push_back(token);
    const bool ends = StopsAt(client, choice) ||
                      choice.tokens.size() - client.request.prompt.size() == client.max_tokens;
    if (ends || place == row.drafts.size() || row.drafts[place] != token) break;
    ++choice.computed;
    ++report_.accepted_drafts;
  }
  report_.tokens += result.accepted.size();
  return result;
}

TokenId Simulation::Sample(const Client& client, uint32_t choice,
                           const std::vector<TokenId>& tokens) const {
  const std::vector<TokenId>& forced = client.request.forced_tokens;
  const size_t generated = tokens.size() - client.request.prompt.size();
  return generated < forced.size() ? forced[generated] : NextToken(tokens, choice, period_);
}

bool Simulation::StopsAt(const Client& client, const Choice& choice) const {
  const std::vector<TokenId>& stops = client.request.stop_tokens;
  return client.request.forced_tokens.empty() &&
         choice.tokens.size() > client.request.prompt.size() &&
         std::find(stops.begin(), stops.end(), choice.tokens.back()) != stops.end();
}

void Simulation::TakeEndings() {
  for (const Finished& ending : scheduler_->TakeFinished()) {
    Check(clients_.contains(ending.request), "an unknown request ended");
    Client& client = clients_.at(ending.request);
    Choice& choice = client.choices[ending.choice];
    Check(!choice.finished, "a choice ended twice");
    choice.finished = true;
    texts_.push_back(choice.tokens);
    report_.dropped_blocks += choice.dropped;
    report_.beyond_pool += choice.computed > kv_blocks_ * block_size_ ? 1 : 0;
    CheckEnding(client, choice, ending);
    CheckOutputs(client, ending.choice);
    if (trace_) {
      std::printf("%.2f end %lu/%u %s\n", now_, static_cast<unsigned long>(ending.request),
                  ending.choice, std::string(FinishReasonName(ending.reason)).c_str());
    }
    if (client.done()) open_.erase(ending.request);
  }
  for (const RequestId id : open_) {
    const Client& client = clients_.at(id);
    for (const Choice& choice : client.choices) {
      if (choice.finished) continue;
      const auto generated = choice.tokens.size() - client.request.prompt.size();
      Check(!choice.cancelled && !choice.failed, "a cancelled or failed choice goes on");
      Check(!StopsAt(client, choice), "a choice goes on after a stop token");
      Check(generated < client.max_tokens, "a choice goes on after its last token");
    }
  }
}

void Simulation::CheckEnding(const Client& client, const Choice& choice, const Finished& ending) {
  if (choice.cancelled) {
    Check(ending.reason == choice.cancel_reason, "a cancelled choice ended for another reason");
    return;
  }
  if (choice.failed) {
    Check(ending.reason == FinishReason::kError && ending.error == "made to fail",
          "a failed row ended without its error");
    return;
  }
  if (ending.reason == FinishReason::kError) {
    const double limit = options_.queue_deadline_seconds;
    Check(limit > 0 && now_ - client.arrival > limit && !client.started && !ending.error.empty(),
          "a choice failed for no reason");
    ++report_.deadlines;
    return;
  }
  const auto generated = choice.tokens.size() - client.request.prompt.size();
  const bool stops = StopsAt(client, choice);
  Check(stops || generated == client.max_tokens, "a choice ended too early");
  Check(ending.reason == (stops ? FinishReason::kStop : FinishReason::kLength),
        "a choice ended for the wrong reason");
}

// The tokens of a choice are those of a run alone, as far as it came.
void Simulation::CheckOutputs(const Client& client, uint32_t index) const {
  const Choice& choice = client.choices[index];
  std::vector<TokenId> alone = client.request.prompt;
  while (alone.size() < choice.tokens.size()) alone.push_back(Sample(client, index, alone));
  Check(alone == choice.tokens, "a choice's tokens depend on what ran beside it");
}

extern "C" void OnAbort(int) {
  std::string line = ReplayLine(current_seed);
  line.push_back('\n');
  const auto written = write(STDERR_FILENO, line.data(), line.size());
  static_cast<void>(written);
}

}  // namespace

SimulationReport& SimulationReport::operator+=(const SimulationReport& other) {
  steps += other.steps;
  rows += other.rows;
  tokens += other.tokens;
  copies += other.copies;
  shared_starts += other.shared_starts;
  preemptions += other.preemptions;
  swaps += other.swaps;
  cached_tokens += other.cached_tokens;
  partial_hits += other.partial_hits;
  evictions += other.evictions;
  drafts += other.drafts;
  model_drafts += other.model_drafts;
  accepted_drafts += other.accepted_drafts;
  dropped_drafts += other.dropped_drafts;
  refusals += other.refusals;
  cancels += other.cancels;
  failures += other.failures;
  deadlines += other.deadlines;
  choices += other.choices;
  windows += other.windows;
  dropped_blocks += other.dropped_blocks;
  beyond_pool += other.beyond_pool;
  return *this;
}

std::string SimulationReport::ToString() const {
  char text[800];
  std::snprintf(
      text, sizeof text,
      "{\"choices\": %lu, \"steps\": %lu, \"rows\": %lu, \"tokens\": %lu, "
      "\"copies\": %lu, \"shared_starts\": %lu, \"preemptions\": %lu, "
      "\"swaps\": %lu, \"cached_tokens\": %lu, \"partial_hits\": %lu, "
      "\"evictions\": %lu, \"drafts\": %lu, \"model_drafts\": %lu, "
      "\"accepted_drafts\": %lu, "
      "\"dropped_drafts\": %lu, "
      "\"refusals\": %lu, \"cancels\": %lu, \"failures\": %lu, \"deadlines\": %lu, "
      "\"windows\": %lu, \"dropped_blocks\": %lu, \"beyond_pool\": %lu}",
      static_cast<unsigned long>(choices), static_cast<unsigned long>(steps),
      static_cast<unsigned long>(rows), static_cast<unsigned long>(tokens),
      static_cast<unsigned long>(copies), static_cast<unsigned long>(shared_starts),
      static_cast<unsigned long>(preemptions), static_cast<unsigned long>(swaps),
      static_cast<unsigned long>(cached_tokens), static_cast<unsigned long>(partial_hits),
      static_cast<unsigned long>(evictions), static_cast<unsigned long>(drafts),
      static_cast<unsigned long>(model_drafts), static_cast<unsigned long>(accepted_drafts),
      static_cast<unsigned long>(dropped_drafts), static_cast<unsigned long>(refusals),
      static_cast<unsigned long>(cancels), static_cast<unsigned long>(failures),
      static_cast<unsigned long>(deadlines), static_cast<unsigned long>(windows),
      static_cast<unsigned long>(dropped_blocks), static_cast<unsigned long>(beyond_pool));
  return text;
}

SimulationReport Simulate(uint64_t seed, bool trace) {
  current_seed = seed;
  return Simulation(seed, trace).Run();
}

void PrintReplayOnAbort() { std::signal(SIGABRT, OnAbort); }

}  // namespace scheduler
