#include "engine/transformer.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "engine/stopwatch.h"
#include "engine/token_loop.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

uint32_t WidestInput(const ModelConfig& config) {
  return std::max(
      {config.hidden, config.query_width(), config.ffn, config.delta_net.value_width()});
}

std::unique_ptr<RopeTable> WindowedRope(const ModelConfig& config, const Weights& weights) {
  if (config.window_rope_base == 0.0) return nullptr;
  ModelConfig windowed = config;
  windowed.rope_base = config.window_rope_base;
  windowed.rope_scaling = RopeScaling::kNone;
  return std::make_unique<RopeTable>(windowed, weights.rope_factors);
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, const Weights& weights, fabric::Device& device,
                         fabric::WorkerTeam& team, KvCache& cache, StateCache& states,
                         uint32_t max_tokens, uint32_t max_context)
    : config_(config),
      weights_(weights),
      device_(device),
      team_(team),
      cache_(cache),
      rope_(config, weights.rope_factors),
      windowed_rope_(WindowedRope(config, weights)),
      attention_(config, cache, team, max_context, 0),
      projector_(config, weights, device, team, max_tokens, WidestInput(config)),
      layer_activities_(config.layers),
      residual_(size_t{max_tokens} * config.hidden),
      normed_(size_t{max_tokens} * config.hidden),
      input_(config.input_norms ? size_t{max_tokens} * config.hidden : 0),
      query_(size_t{max_tokens} * config.query_width()),
      gated_(config.gated_attention ? size_t{max_tokens} * 2 * config.query_width() : 0),
      key_(size_t{max_tokens} * config.kv_width()),
      value_(size_t{max_tokens} * config.kv_width()),
      attended_(size_t{max_tokens} * config.query_width()),
      activated_(size_t{max_tokens} * config.ffn),
      cosines_(size_t{max_tokens} * rope_.pairs() * (windowed_rope_ ? 2 : 1)),
      sines_(cosines_.size()) {
  if (config.sliding_window > 0) {
    windowed_ =
        std::make_unique<Attention>(config, cache, team, max_context, config.sliding_window);
  }
  if (config.recurrent()) {
    delta_net_ = std::make_unique<DeltaNet>(config, team, states, projector_, max_tokens);
  }
  if (config.experts.count > 0) {
    experts_ = std::make_unique<Experts>(config, weights, team, projector_, max_tokens);
  }
  uint32_t seen[2] = {0, 0};
  for (const LayerKind& kind : config.layer_kinds) place_.push_back(seen[kind.recurrent ? 1 : 0]++);
}

fabric::Status Transformer::Run(StepRows* rows, StepStats* stats) noexcept {
  Embed(*rows);
  projector_.BeginRun(*rows);
  attention_.Plan(*rows);
  if (windowed_) windowed_->Plan(*rows);
  fabric::DeviceCounters counted = device_.Counters();
  assert(rows->batch->layers <= config_.layers);
  const uint32_t layers = rows->batch->layers == 0 ? config_.layers : rows->batch->layers;
  for (uint32_t layer = 0; layer < layers; ++layer) {
    fabric::Status status = config_.layer_kinds[layer].recurrent
                                ? delta_net_->Run(weights_.layers[layer], place_[layer],
                                                  residual_.data(), normed_.data(), rows, stats)
                                : AttentionBlock(layer, rows, stats);
    if (status != fabric::Status::kOk) return status;
    status = experts_ ? experts_->Run(layer, residual_.data(), normed_.data(), rows, stats)
                      : FeedForwardBlock(layer, rows, stats);
    if (status != fabric::Status::kOk) return status;
    NoteActivity(layer, &counted);
  }
  return fabric::Status::kOk;
}

void Transformer::NoteActivity(uint32_t layer, fabric::DeviceCounters* counted) noexcept {
  const fabric::DeviceCounters now = device_.Counters();
  layer_activities_[layer].total_ops += now.total_ops - counted->total_ops;
  layer_activities_[layer].active_ops += now.active_ops - counted->active_ops;
  *counted = now;
}

void Transformer::Embed(const StepRows& rows) {
  ForTokens(team_, rows.size(), [&](uint32_t t) {
    const StepToken& token = rows.tokens[t];
    assert(token.id >= 0 && static_cast<uint32_t>(token.id) < config_.vocabulary);
    float* residual = residual_.data() + size_t{t} * config_.hidden;
    weights_.embedding.GetRow(static_cast<uint32_t>(token.id), {residual, config_.hidden});
    if (config_.hadamard.inverse_embedding) config_.hadamard.Invert(residual, config_.hidden);
    for (uint32_t i = 0; config_.embedding_scale != 1.0F && i < config_.hidden; ++i) {
      residual[i] *= config_.embedding_scale;
    }
    const size_t angles = AnglesOf(t, false);
    rope_.Fill(token.position, cosines_.data() + angles, sines_.data() + angles);
    if (!windowed_rope_) return;
    const size_t windowed = AnglesOf(t, true);
    windowed_rope_->Fill(token.position, cosines_.data() + windowed, sines_.data() + windowed);
  });
}

fabric::Status Transformer::AttentionBlock(uint32_t index, StepRows* rows, StepStats* stats) {
  const LayerWeights& layer = weights_.layers[index];
  const fabric::Status status = ProjectHeads(layer, rows, stats);
  if (status != fabric::Status::kOk) return status;

  RotateAndStore(index, *rows);
  const Stopwatch stopwatch;
  Attention& attention = config_.layer_kinds[index].windowed ? *windowed_ : attention_;
  attention.Attend(place_[index], query_.data(), attended_.data());
  stats->attention_seconds += stopwatch.Seconds();
  stats->kv_bytes += attention.planned_bytes();
  if (config_.gated_attention) GateAttended(*rows);

  projector_.Encode(attended_.data(), layer.attention_sub_norm, attended_.data(),
                    config_.query_width(), {&layer.attention_output}, rows);
  return AddToResidual(layer.attention_output, layer.attention_post_norm, *rows, stats);
}

fabric::Status Transformer::ProjectHeads(const LayerWeights& layer, StepRows* rows,
                                         StepStats* stats) {
  float* queries = config_.gated_attention ? gated_.data() : query_.data();
  const std::array qkv = {Projection{.linear = &layer.query, .y = queries},
                          Projection{.linear = &layer.key, .y = key_.data()},
                          Projection{.linear = &layer.value, .y = value_.data()}};
  if (!config_.input_norms) {
    projector_.Encode(residual_.data(), layer.attention_norm, normed_.data(), config_.hidden,
                      {&layer.query, &layer.key, &layer.value}, rows);
    return projector_.Project(qkv, stats);
  }
  Normalise(layer.attention_norm, *rows);
  const std::array norms = {&layer.query_input_norm, &layer.key_input_norm,
                            &layer.value_input_norm};
  for (size_t i = 0; i < qkv.size(); ++i) {
    projector_.Encode(normed_.data(), *norms[i], input_.data(), config_.hidden, {qkv[i].linear},
                      rows);
    const fabric::Status status = projector_.Project({&qkv[i], 1}, stats);
    if (status != fabric::Status::kOk) return status;
  }
  return fabric::Status::kOk;
}

// normed = N(x).
void Transformer::Normalise(const Vector& norm, const StepRows& rows) {
  ForTokens(team_, rows.size(), [&](uint32_t t) {
    const size_t first = size_t{t} * config_.hidden;
    fabric::RmsNorm(residual_.data() + first, norm.data(), config_.norm_eps, config_.hidden,
                    normed_.data() + first);
  });
}

// x += W y, or x += N(W y), of the y that was encoded last.
fabric::Status Transformer::AddToResidual(const Linear& linear, const Vector& post_norm,
                                          const StepRows& rows, StepStats* stats) {
  const bool add = post_norm.empty();
  const std::array projection = {
      Projection{.linear = &linear, .y = add ? residual_.data() : normed_.data(), .add = add}};
  const fabric::Status status = projector_.Project(projection, stats);
  if (status != fabric::Status::kOk || add) return status;
  ForTokens(team_, rows.size(), [&](uint32_t t) {
    const size_t first = size_t{t} * config_.hidden;
    float* sum = normed_.data() + first;
    fabric::RmsNorm(sum, post_norm.data(), config_.norm_eps, config_.hidden, sum);
    fabric::AddTo(sum, config_.hidden, residual_.data() + first);
  });
  return status;
}

// attended *= sigmoid(gate), by 1 / (1 + exp(-gate)). The gates are what gated_ has become.
void Transformer::GateAttended(const StepRows& rows) {
  const uint32_t width = config_.query_width();
  ForTokens(team_, rows.size(), [&](uint32_t t) {
    float* gates = gated_.data() + size_t{t} * 2 * width;
    float* attended = attended_.data() + size_t{t} * width;
    for (uint32_t i = 0; i < width; ++i) gates[i] = -gates[i];
    fabric::ExpShifted(gates, 0.0F, width, gates);
    for (uint32_t i = 0; i < width; ++i) attended[i] /= 1.0F + gates[i];
  });
}

fabric::Status Transformer::FeedForwardBlock(uint32_t index, StepRows* rows, StepStats* stats) {
  const LayerWeights& layer = weights_.layers[index];
  const fabric::Status status = ProjectFfn(layer, rows, stats);
  if (status != fabric::Status::kOk) return status;

  projector_.Encode(activated_.data(), layer.ffn_sub_norm, activated_.data(), config_.ffn,
                    {&layer.down}, rows);
  return AddToResidual(layer.down, layer.ffn_post_norm, *rows, stats);
}

// activated = act(Wgate h) * Wup h.
fabric::Status Transformer::ProjectFfn(const LayerWeights& layer, StepRows* rows,
                                       StepStats* stats) {
  if (!config_.input_norms) {
    projector_.Encode(residual_.data(), layer.ffn_norm, normed_.data(), config_.hidden,
                      {&layer.gate, &layer.up}, rows);
    return projector_.ProjectGated(layer.gate, layer.up, activated_.data(), stats);
  }
  Normalise(layer.ffn_norm, *rows);
  projector_.Encode(normed_.data(), layer.gate_input_norm, input_.data(), config_.hidden,
                    {&layer.gate}, rows);
  const std::array gate = {Projection{.linear = &layer.gate, .y = activated_.data()}};
  const fabric::Status status = projector_.Project(gate, stats);
  if (status != fabric::Status::kOk) return status;
  projector_.Encode(normed_.data(), layer.up_input_norm, input_.data(), config_.hidden, {&layer.up},
                    rows);
  return projector_.ProjectOntoGate(layer.up, activated_.data(), stats);
}

// Takes queries apart from their gates and normalises queries and keys where the model does,
// rotates them where the layer does, and stores keys and values.
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
    if (config_.gated_attention) SplitGates(t);
    if (config_.qk_norm) {
      normalise(query, config_.heads, layer.query_norm);
      normalise(key, config_.kv_heads, layer.key_norm);
    }
    const size_t angles = AnglesOf(t, config_.layer_kinds[index].windowed);
    const float* cosines = cosines_.data() + angles;
    const float* sines = sines_.data() + angles;
    if (config_.layer_kinds[index].rope) {
      fabric::Rope(query, config_.heads, head_dim, config_.rope_dim, neox, cosines, sines);
      fabric::Rope(key, config_.kv_heads, head_dim, config_.rope_dim, neox, cosines, sines);
    }
    const StepToken& token = rows.tokens[t];
    cache_.Write(place_[index], rows.BlockTable(token)[token.position / block_size],
                 token.position % block_size, key, value);
  });
}

// Where the angles of a token are for layers with or without a window.
size_t Transformer::AnglesOf(uint32_t token, bool windowed) const {
  const size_t pairs = rope_.pairs();
  if (!windowed_rope_) return token * pairs;
  return token * 2 * pairs + (windowed ? pairs : 0);
}

// [query, gate] of every head become all queries in query_ and all gates at the beginning of the
// token's part of gated_.
void Transformer::SplitGates(uint32_t token) {
  const uint32_t head_dim = config_.head_dim;
  const uint32_t width = config_.query_width();
  float* pairs = gated_.data() + size_t{token} * 2 * width;
  float* query = query_.data() + size_t{token} * width;
  for (uint32_t head = 0; head < config_.heads; ++head) {
    const float* pair = pairs + size_t{head} * 2 * head_dim;
    std::memcpy(query + size_t{head} * head_dim, pair, head_dim * sizeof(float));
    // Ascending heads: what is overwritten has been read.
    std::memmove(pairs + size_t{head} * head_dim, pair + head_dim, head_dim * sizeof(float));
  }
}

size_t Transformer::workspace_bytes() const {
  size_t floats = 0;
  for (const Floats* buffer : {&residual_, &normed_, &input_, &query_, &gated_, &key_, &value_,
                               &attended_, &activated_, &cosines_, &sines_}) {
    floats += buffer->size();
  }
  size_t bytes =
      floats * sizeof(float) + projector_.workspace_bytes() + attention_.workspace_bytes();
  if (windowed_) bytes += windowed_->workspace_bytes();
  if (delta_net_) bytes += delta_net_->workspace_bytes();
  if (experts_) bytes += experts_->workspace_bytes();
  return bytes;
}

}  // namespace engine
