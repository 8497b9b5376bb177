#include "engine/transformer.h"

#include <algorithm>
#include <array>
#include <cassert>

#include "engine/stopwatch.h"
#include "engine/token_loop.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

ActivationKinds KindsOf(const Weights& weights) {
  ActivationKinds kinds;
  for (const LayerWeights& layer : weights.layers) {
    for (const Linear* linear : {&layer.query, &layer.key, &layer.value, &layer.attention_output,
                                 &layer.gate, &layer.up, &layer.down}) {
      kinds.Add(linear->activation);
    }
  }
  return kinds;
}

uint32_t WidestInput(const ModelConfig& config) {
  return std::max({config.hidden, config.query_width(), config.ffn});
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, const Weights& weights, fabric::Device& device,
                         fabric::WorkerTeam& team, KvCache& cache, uint32_t max_tokens,
                         uint32_t max_context)
    : config_(config),
      weights_(weights),
      team_(team),
      cache_(cache),
      rope_(config, weights.rope_factors),
      attention_(config, cache, team, max_context),
      projector_(config, weights, device, team, max_tokens, WidestInput(config), KindsOf(weights)),
      residual_(size_t{max_tokens} * config.hidden),
      normed_(size_t{max_tokens} * config.hidden),
      query_(size_t{max_tokens} * config.query_width()),
      key_(size_t{max_tokens} * config.kv_width()),
      value_(size_t{max_tokens} * config.kv_width()),
      attended_(size_t{max_tokens} * config.query_width()),
      activated_(size_t{max_tokens} * config.ffn),
      cosines_(size_t{max_tokens} * rope_.pairs()),
      sines_(size_t{max_tokens} * rope_.pairs()) {}

fabric::Status Transformer::Run(StepRows* rows, StepStats* stats) noexcept {
  Embed(*rows);
  projector_.BeginRun(*rows);
  attention_.Plan(*rows);
  for (uint32_t layer = 0; layer < config_.layers; ++layer) {
    fabric::Status status = AttentionBlock(layer, rows, stats);
    if (status != fabric::Status::kOk) return status;
    status = FeedForwardBlock(layer, rows, stats);
    if (status != fabric::Status::kOk) return status;
  }
  return fabric::Status::kOk;
}

void Transformer::Embed(const StepRows& rows) {
  ForTokens(team_, rows.size(), [&](uint32_t t) {
    const StepToken& token = rows.tokens[t];
    assert(token.id >= 0 && static_cast<uint32_t>(token.id) < config_.vocabulary);
    weights_.embedding.GetRow(static_cast<uint32_t>(token.id),
                              {residual_.data() + size_t{t} * config_.hidden, config_.hidden});
    const size_t angles = size_t{t} * rope_.pairs();
    rope_.Fill(token.position, cosines_.data() + angles, sines_.data() + angles);
  });
}

fabric::Status Transformer::AttentionBlock(uint32_t index, StepRows* rows, StepStats* stats) {
  const LayerWeights& layer = weights_.layers[index];
  projector_.Encode(residual_.data(), layer.attention_norm, normed_.data(), config_.hidden,
                    {&layer.query, &layer.key, &layer.value}, rows);
  const std::array qkv = {Projection{.linear = &layer.query, .y = query_.data()},
                          Projection{.linear = &layer.key, .y = key_.data()},
                          Projection{.linear = &layer.value, .y = value_.data()}};
  const fabric::Status status = projector_.Project(qkv, stats);
  if (status != fabric::Status::kOk) return status;

  RotateAndStore(index, *rows);
  const Stopwatch stopwatch;
  attention_.Attend(index, query_.data(), attended_.data());
  stats->attention_seconds += stopwatch.Seconds();
  stats->kv_bytes += attention_.planned_bytes();

  projector_.Encode(attended_.data(), layer.attention_sub_norm, attended_.data(),
                    config_.query_width(), {&layer.attention_output}, rows);
  const std::array output = {
      Projection{.linear = &layer.attention_output, .y = residual_.data(), .add = true}};
  return projector_.Project(output, stats);
}

fabric::Status Transformer::FeedForwardBlock(uint32_t index, StepRows* rows, StepStats* stats) {
  const LayerWeights& layer = weights_.layers[index];
  projector_.Encode(residual_.data(), layer.ffn_norm, normed_.data(), config_.hidden,
                    {&layer.gate, &layer.up}, rows);
  const fabric::Status status =
      projector_.ProjectGated(layer.gate, layer.up, activated_.data(), stats);
  if (status != fabric::Status::kOk) return status;

  projector_.Encode(activated_.data(), layer.ffn_sub_norm, activated_.data(), config_.ffn,
                    {&layer.down}, rows);
  const std::array down = {Projection{.linear = &layer.down, .y = residual_.data(), .add = true}};
  return projector_.Project(down, stats);
}

// Normalises queries and keys where the model does, rotates them, and stores keys and values.
void Transformer::RotateAndStore(uint32_t index, const StepRows& rows) {
  const LayerWeights& layer = weights_.layers[index];
  const uint32_t head_dim = config_.head_dim;
  const bool neox = config_.rope == RopeKind::kNeox;
  const uint32_t block_size = cache_.geometry().block_size;
  const auto normalise = [&](float* heads, uint32_t count, const Vector& norm) {
    for (uint32_t head = 0; head < count; ++head) {
      float* x = heads + size_t{head} * head_dim;
      fabric::RmsNorm(x, norm.data(), config_.norm_eps, head_dim, x);
    }
  };
  ForTokens(team_, rows.size(), [&](uint32_t t) {
    float* query = query_.data() + size_t{t} * config_.query_width();
    float* key = key_.data() + size_t{t} * config_.kv_width();
    const float* value = value_.data() + size_t{t} * config_.kv_width();
    if (config_.qk_norm) {
      normalise(query, config_.heads, layer.query_norm);
      normalise(key, config_.kv_heads, layer.key_norm);
    }
    const float* cosines = cosines_.data() + size_t{t} * rope_.pairs();
    const float* sines = sines_.data() + size_t{t} * rope_.pairs();
    fabric::Rope(query, config_.heads, head_dim, config_.rope_dim, neox, cosines, sines);
    fabric::Rope(key, config_.kv_heads, head_dim, config_.rope_dim, neox, cosines, sines);
    const StepToken& token = rows.tokens[t];
    cache_.Write(index, rows.BlockTable(token)[token.position / block_size],
                 token.position % block_size, key, value);
  });
}

size_t Transformer::workspace_bytes() const {
  size_t floats = 0;
  for (const Floats* buffer : {&residual_, &normed_, &query_, &key_, &value_, &attended_,
                               &activated_, &cosines_, &sines_}) {
    floats += buffer->size();
  }
  return floats * sizeof(float) + projector_.workspace_bytes() + attention_.workspace_bytes();
}

}  // namespace engine
