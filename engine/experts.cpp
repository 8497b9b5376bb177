#include "engine/experts.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "engine/finite.h"
#include "engine/token_loop.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

ActivationKinds KindsOf(const Weights& weights) {
  ActivationKinds kinds;
  for (const LayerWeights& layer : weights.layers) {
    if (!layer.experts) continue;
    for (const std::vector<Linear>* stack :
         {&layer.experts->gate, &layer.experts->up, &layer.experts->down}) {
      for (const Linear& linear : *stack) kinds.Add(linear.activation);
    }
  }
  return kinds;
}

// Tokens [first, first + count) of a view.
fabric::ActivationView Slice(const fabric::ActivationView& view, size_t first, uint32_t count) {
  fabric::ActivationView slice = view;
  slice.tokens = count;
  slice.values += first * view.value_stride;
  if (view.kind != fabric::ActivationKind::kFloat) {
    slice.codes += first * view.code_stride;
    slice.scales += first * view.scale_stride;
    slice.sums += first * view.scale_stride;
  }
  return slice;
}

}  // namespace

Experts::Experts(const ModelConfig& config, const Weights& weights, fabric::WorkerTeam& team,
                 Projector& projector, uint32_t max_tokens)
    : config_(config),
      weights_(weights),
      team_(team),
      projector_(projector),
      input_(max_tokens * config.experts.used, std::max(config.hidden, config.experts.ffn),
             KindsOf(weights)),
      router_(size_t{max_tokens} * config.experts.count),
      gathered_(size_t{max_tokens} * config.experts.used * config.hidden),
      gate_(size_t{max_tokens} * config.experts.used * config.experts.ffn),
      up_(size_t{max_tokens} * config.experts.used * config.experts.ffn),
      down_(size_t{max_tokens} * config.experts.used * config.hidden),
      sum_(size_t{max_tokens} * config.hidden),
      chosen_(size_t{max_tokens} * config.experts.used),
      visits_(chosen_.size()),
      visit_of_(chosen_.size()),
      not_finite_(chosen_.size()),
      group_begin_(config.experts.count + 1) {
  groups_.reserve(config.experts.count);
  views_.reserve(config.experts.count);
  ops_.reserve(size_t{2} * config.experts.count);
}

fabric::Status Experts::Run(uint32_t layer_index, float* residual, float* normed, StepRows* rows,
                            StepStats* stats) noexcept {
  const LayerWeights& layer = weights_.layers[layer_index];
  const ExpertWeights& experts = *layer.experts;
  const uint32_t hidden = config_.hidden;
  const uint32_t ffn = config_.experts.ffn;
  const uint32_t tokens = rows->size();
  projector_.Encode(residual, layer.ffn_norm, normed, hidden, {&experts.router}, rows);
  const std::array route = {Projection{.linear = &experts.router, .y = router_.data()}};
  fabric::Status status = projector_.Project(route, stats);
  if (status != fabric::Status::kOk) return status;

  ForTokens(team_, tokens, [&](uint32_t token) { Route(token, rows); });
  GroupVisits(tokens);
  const auto visit_count = static_cast<uint32_t>(size_t{tokens} * config_.experts.used);
  ForTokens(team_, visit_count, [&](uint32_t visit) {
    std::memcpy(gathered_.data() + size_t{visit} * hidden,
                normed + size_t{visits_[visit].token} * hidden, hidden * sizeof(float));
  });

  Encode(gathered_.data(), hidden, experts.gate.front().activation, rows);
  ops_.clear();
  for (size_t i = 0; i < groups_.size(); ++i) {
    const size_t at = size_t{groups_[i].first} * ffn;
    const Linear& gate = experts.gate[groups_[i].expert];
    const Linear& up = experts.up[groups_[i].expert];
    ops_.push_back(
        {.matrix = gate.matrix, .x = &views_[i], .y = gate_.data() + at, .y_stride = ffn});
    ops_.push_back({.matrix = up.matrix, .x = &views_[i], .y = up_.data() + at, .y_stride = ffn});
  }
  status = projector_.Execute(ops_, stats);
  if (status != fabric::Status::kOk) return status;

  const float limit = config_.experts.clamp[layer_index];
  ForTokens(team_, visit_count, [&](uint32_t visit) {
    float* gate = gate_.data() + size_t{visit} * ffn;
    float* up = up_.data() + size_t{visit} * ffn;
    // A NaN passes both comparisons by, and is found at the end.
    for (uint32_t i = 0; i < ffn; ++i) {
      gate[i] = gate[i] > limit ? limit : gate[i];
      up[i] = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
    }
    fabric::SiluMul(up, ffn, gate);
  });

  Encode(gate_.data(), ffn, experts.down.front().activation, rows);
  ops_.clear();
  for (size_t i = 0; i < groups_.size(); ++i) {
    ops_.push_back({.matrix = experts.down[groups_[i].expert].matrix,
                    .x = &views_[i],
                    .y = down_.data() + size_t{groups_[i].first} * hidden,
                    .y_stride = hidden});
  }
  status = projector_.Execute(ops_, stats);
  if (status != fabric::Status::kOk) return status;

  ForTokens(team_, tokens, [&](uint32_t token) {
    float* sum = sum_.data() + size_t{token} * hidden;
    std::memset(sum, 0, hidden * sizeof(float));
    for (uint32_t i = 0; i < config_.experts.used; ++i) {
      const uint32_t visit = visit_of_[size_t{token} * config_.experts.used + i];
      const float* y = down_.data() + size_t{visit} * hidden;
      const float weight = visits_[visit].weight;
      for (uint32_t c = 0; c < hidden; ++c) sum[c] += weight * y[c];
    }
    fabric::AddTo(sum, hidden, residual + size_t{token} * hidden);
  });
  return status;
}

// Softmax and the division by the chosen ones' sum need one exp per expert: the denominator of the
// softmax cancels.
void Experts::Route(uint32_t token, StepRows* rows) {
  const uint32_t count = config_.experts.count;
  const uint32_t used = config_.experts.used;
  float* p = router_.data() + size_t{token} * count;
  Visit* chosen = chosen_.data() + size_t{token} * used;
  if (!AllFinite({p, count})) {
    rows->non_finite[token] = 1;
    std::fill_n(p, count, 0.0F);
  }
  bool finite = true;
  const size_t best = fabric::ArgMax(p, count, &finite);
  fabric::ExpShifted(p, p[best], count, p);
  // Ascending experts; `taken` marks a chosen one, for no probability is negative.
  constexpr float kTaken = -1.0F;
  float total = 0.0F;
  for (uint32_t i = 0; i < used; ++i) {
    const size_t expert = fabric::ArgMax(p, count, &finite);
    chosen[i] = {.token = token, .expert = static_cast<uint32_t>(expert), .weight = p[expert]};
    total += p[expert];
    p[expert] = kTaken;
  }
  for (uint32_t i = 0; i < used; ++i) chosen[i].weight /= total;
  std::sort(chosen, chosen + used,
            [](const Visit& a, const Visit& b) { return a.expert < b.expert; });
}

// Counting sort by expert, which keeps the tokens' order.
void Experts::GroupVisits(uint32_t tokens) {
  const size_t count = size_t{tokens} * config_.experts.used;
  std::fill(group_begin_.begin(), group_begin_.end(), 0U);
  for (size_t i = 0; i < count; ++i) ++group_begin_[chosen_[i].expert + 1];
  groups_.clear();
  for (uint32_t expert = 0; expert < config_.experts.count; ++expert) {
    const uint32_t size = group_begin_[expert + 1];
    if (size > 0) {
      groups_.push_back({.expert = expert, .first = group_begin_[expert], .count = size});
    }
    group_begin_[expert + 1] += group_begin_[expert];
  }
  for (size_t i = 0; i < count; ++i) {
    const uint32_t place = group_begin_[chosen_[i].expert]++;
    visits_[place] = chosen_[i];
    visit_of_[i] = place;
  }
}

void Experts::Encode(const float* values, uint32_t cols, fabric::ActivationKind kind,
                     StepRows* rows) {
  ActivationKinds kinds;
  kinds.Add(kind);
  const auto count = static_cast<uint32_t>(size_t{rows->size()} * config_.experts.used);
  input_.Begin(values, count, cols, kinds);
  ForTokens(team_, count,
            [&](uint32_t visit) { not_finite_[visit] = input_.Encode(visit) ? 0 : 1; });
  for (uint32_t visit = 0; visit < count; ++visit) {
    if (not_finite_[visit] != 0) rows->non_finite[visits_[visit].token] = 1;
  }
  views_.clear();
  for (const Group& group : groups_) {
    views_.push_back(Slice(*input_.View(kind), group.first, group.count));
  }
}

size_t Experts::workspace_bytes() const {
  size_t floats = 0;
  for (const Floats* buffer : {&router_, &gathered_, &gate_, &up_, &down_, &sum_}) {
    floats += buffer->size();
  }
  return floats * sizeof(float) + input_.bytes();
}

}  // namespace engine
