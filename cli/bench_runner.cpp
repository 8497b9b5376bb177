#include "cli/bench_runner.h"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "fabric/seconds_since.h"

namespace cli {
namespace {

using engine::TokenId;

// Any tokens do; these differ from place to place without repeating soon.
std::vector<TokenId> BenchTokens(size_t count, uint32_t vocabulary) {
  std::vector<TokenId> tokens(count);
  uint32_t state = 12345;
  for (TokenId& token : tokens) {
    state = state * 1664525 + 1013904223;
    token = static_cast<TokenId>((state >> 8) % vocabulary);
  }
  return tokens;
}

double MultiplyAdds(const engine::Linear& linear) {
  return static_cast<double>(linear.rows) * static_cast<double>(linear.cols);
}

// Per token.
double LayerMultiplyAdds(const engine::ModelConfig& config, const engine::Weights& weights) {
  double sum = 0;
  for (const engine::LayerWeights& layer : weights.layers) {
    for (const engine::Linear* linear :
         {&layer.query, &layer.key, &layer.value, &layer.attention_output, &layer.gate, &layer.up,
          &layer.down}) {
      sum += MultiplyAdds(*linear);
    }
    if (const engine::DeltaNetWeights* net = layer.delta_net.get()) {
      for (const engine::Linear* linear :
           {&net->qkv, &net->gate, &net->alpha, &net->beta, &net->output}) {
        sum += MultiplyAdds(*linear);
      }
    }
    if (const engine::ExpertWeights* experts = layer.experts.get()) {
      const double one = MultiplyAdds(experts->gate[0]) + MultiplyAdds(experts->up[0]) +
                         MultiplyAdds(experts->down[0]);
      sum += MultiplyAdds(experts->router) + config.experts.used * one;
    }
  }
  return sum;
}

}  // namespace

BenchRunner::BenchRunner(LocalModel& model, BenchPlan plan)
    : model_(model), plan_(std::move(plan)), isa_(fabric::IsaName(model.isa())) {
  const uint32_t batch = *std::max_element(plan_.batches.begin(), plan_.batches.end());
  const uint32_t depth = *std::max_element(plan_.depths.begin(), plan_.depths.end());
  const uint32_t context = std::max(depth + std::max(plan_.prompt, plan_.generate), 1U);
  if (batch > model_.max_batch_tokens()) {
    throw std::runtime_error("A batch of " + std::to_string(batch) +
                             " needs at least as many tokens per step; the engine takes " +
                             std::to_string(model_.max_batch_tokens()) + ".");
  }
  model_.PrepareKv(batch, context);
  for (uint32_t i = 0; i < batch; ++i) sequences_.emplace_back(model_, i);
  tokens_ = BenchTokens(context, model_.model().config().vocabulary);
  layer_macs_ = LayerMultiplyAdds(model_.model().config(), model_.model().weights());
  head_macs_ = MultiplyAdds(model_.model().weights().head);
}

fabric::MachineLimits BenchRunner::MeasureLimits() { return model_.MeasureLimits(); }

void BenchRunner::Step(const std::vector<uint32_t>& sequences, uint32_t position, uint32_t count,
                       bool output, Cost* cost) {
  const uint32_t last = count - 1;
  std::vector<engine::BatchRow> rows(sequences.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].tokens = std::span(tokens_).subspan(position, count);
    rows[i].first_position = position;
    rows[i].block_table = sequences_[sequences[i]].blocks();
    rows[i].state_slot = sequences[i];
    rows[i].adapters = model_.adapters();
    if (!output) continue;
    rows[i].outputs = {&last, 1};
    rows[i].output_kind = engine::OutputKind::kCandidates;
  }
  const auto start = std::chrono::steady_clock::now();
  const engine::StepOutput result = model_.engine().Step({.rows = rows});
  cost->seconds += fabric::SecondsSince(start);
  cost->bytes += result.stats.weight_bytes + result.stats.kv_bytes;
  cost->head_positions += output ? rows.size() : 0;
  for (const engine::RowOutput& row : result.rows) {
    if (row.status != engine::RowStatus::kOk) {
      throw std::runtime_error(RowStatusText(row.status, position));
    }
  }
}

BenchRunner::Cost BenchRunner::Fill(uint32_t batch, uint32_t position, uint32_t count,
                                    bool output) {
  Cost cost;
  const uint32_t budget = model_.max_batch_tokens();
  const uint32_t end = position + count;
  // Whole prompts of several sequences share a step when they fit; long ones are cut.
  const uint32_t chunk = std::min(count, budget);
  const uint32_t together = std::max(budget / std::max(chunk, 1U), 1U);
  for (uint32_t first = 0; first < batch; first += together) {
    std::vector<uint32_t> group;
    for (uint32_t i = first; i < std::min(first + together, batch); ++i) group.push_back(i);
    for (uint32_t at = position; at < end; at += chunk) {
      const uint32_t take = std::min(chunk, end - at);
      Step(group, at, take, output && at + take == end, &cost);
    }
  }
  return cost;
}

BenchRunner::Cost BenchRunner::Generate(uint32_t batch, uint32_t position, uint32_t count) {
  Cost cost;
  std::vector<uint32_t> all(batch);
  for (uint32_t i = 0; i < batch; ++i) all[i] = i;
  for (uint32_t i = 0; i < count; ++i) Step(all, position + i, 1, true, &cost);
  return cost;
}

void BenchRunner::AddResidency(const fabric::DeviceCounters& before,
                               const fabric::DeviceCounters& after, double tokens,
                               BenchResult* result) const {
  result->pool_bytes = model_.device().pool().bytes;
  const auto hits = static_cast<double>(after.residency_hits - before.residency_hits);
  const auto misses = static_cast<double>(after.residency_misses - before.residency_misses);
  if (hits + misses > 0) result->residency_hit_rate = hits / (hits + misses);
  result->fetched_bytes_per_token =
      static_cast<double>(after.fetched_bytes - before.fetched_bytes) / tokens;
  result->fetch_seconds = after.fetch_seconds - before.fetch_seconds;
  result->fetch_wait_seconds = after.fetch_wait_seconds - before.fetch_wait_seconds;
}

BenchResult BenchRunner::Measure(const std::string& test, uint32_t batch, uint32_t depth,
                                 uint32_t count, const std::function<Cost()>& work,
                                 const fabric::MachineLimits& limits) {
  const double tokens = static_cast<double>(batch) * count;
  work();
  std::vector<double> rates;
  Cost last;
  fabric::DeviceCounters before;
  for (uint32_t run = 0; run < plan_.repetitions; ++run) {
    before = model_.device().Counters();
    last = work();
    rates.push_back(tokens / last.seconds);
  }
  std::sort(rates.begin(), rates.end());

  BenchResult result{.test = test + std::to_string(count),
                     .batch = batch,
                     .depth = depth,
                     .threads = model_.threads(),
                     .isa = isa_,
                     .head = std::string(engine::HeadModeName(model_.engine().head_mode()))};
  const size_t middle = rates.size() / 2;
  result.median = rates.size() % 2 == 1 ? rates[middle] : (rates[middle - 1] + rates[middle]) / 2;
  result.min = rates.front();
  result.max = rates.back();
  result.bytes_per_token = static_cast<double>(last.bytes) / tokens;
  const fabric::DeviceCounters after = model_.device().Counters();
  if (const uint64_t ops = after.total_ops - before.total_ops; ops > 0) {
    result.skip_rate =
        1 - static_cast<double>(after.active_ops - before.active_ops) / static_cast<double>(ops);
  }
  constexpr double kPicojoules = 1e-12;
  result.energy_proxy_joules_per_token =
      (after.energy_picojoules - before.energy_picojoules) * kPicojoules / tokens;
  AddResidency(before, after, tokens, &result);
  const double head_share = static_cast<double>(last.head_positions) / tokens;
  const double macs = layer_macs_ + head_macs_ * head_share;
  const double by_memory = limits.read_bytes_per_second / result.bytes_per_token;
  const double by_compute = limits.int8_macs_per_second / macs;
  result.memory_bound = by_memory < by_compute;
  result.limit_tokens_per_second = std::min(by_memory, by_compute);
  return result;
}

void BenchRunner::Run(const fabric::MachineLimits& limits,
                      const std::function<void(const BenchResult&)>& on_result) {
  // The cache is filled once, deeper and deeper, for as many sequences as there will be: what a
  // test writes behind a depth are the tokens that belong there.
  const uint32_t most = *std::max_element(plan_.batches.begin(), plan_.batches.end());
  std::sort(plan_.depths.begin(), plan_.depths.end());
  uint32_t filled = 0;
  for (const uint32_t depth : plan_.depths) {
    if (depth > filled) Fill(most, filled, depth - filled, false);
    filled = depth;
    for (const uint32_t batch : plan_.batches) {
      if (plan_.prompt > 0) {
        on_result(Measure(
            "pp", batch, depth, plan_.prompt,
            [&] { return Fill(batch, depth, plan_.prompt, true); }, limits));
      }
      if (plan_.generate > 0) {
        on_result(Measure(
            "tg", batch, depth, plan_.generate,
            [&] { return Generate(batch, depth, plan_.generate); }, limits));
      }
    }
  }
}

}  // namespace cli
