#include "engine/transformer.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <functional>

#include "engine/stopwatch.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

// Fewer tokens than this are not worth a wake-up of the team for a norm or a rotation.
constexpr uint32_t kInlineTokens = 4;

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
      device_(device),
      team_(team),
      cache_(cache),
      rope_(config, weights.rope_factors),
      attention_(config, cache, team, max_context),
      input_(max_tokens, WidestInput(config), KindsOf(weights)),
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
  ForTokens(rows.size(), [&](uint32_t t) {
    const StepToken& token = rows.tokens[t];
    assert(token.id >= 0 && static_cast<uint32_t>(token.id) < config_.vocabulary);
    weights_.embedding->GetRow(static_cast<uint32_t>(token.id),
                               {residual_.data() + size_t{t} * config_.hidden, config_.hidden});
    const size_t angles = size_t{t} * rope_.pairs();
    rope_.Fill(token.position, cosines_.data() + angles, sines_.data() + angles);
  });
}

fabric::Status Transformer::AttentionBlock(uint32_t index, StepRows* rows, StepStats* stats) {
  const LayerWeights& layer = weights_.layers[index];
  NormAndEncode(residual_.data(), layer.attention_norm, normed_.data(), config_.hidden,
                {&layer.query, &layer.key, &layer.value}, rows);
  const std::array qkv = {Op(layer.query, query_.data(), fabric::Epilogue::kStore),
                          Op(layer.key, key_.data(), fabric::Epilogue::kStore),
                          Op(layer.value, value_.data(), fabric::Epilogue::kStore)};
  const fabric::Status status = Project(qkv, stats);
  if (status != fabric::Status::kOk) return status;

  RotateAndStore(index, *rows);
  const Stopwatch stopwatch;
  attention_.Attend(index, query_.data(), attended_.data());
  stats->attention_seconds += stopwatch.Seconds();
  stats->kv_bytes += attention_.planned_bytes();

  NormAndEncode(attended_.data(), layer.attention_sub_norm, attended_.data(), config_.query_width(),
                {&layer.attention_output}, rows);
  const std::array output = {Op(layer.attention_output, residual_.data(), fabric::Epilogue::kAdd)};
  return Project(output, stats);
}

fabric::Status Transformer::FeedForwardBlock(uint32_t index, StepRows* rows, StepStats* stats) {
  const LayerWeights& layer = weights_.layers[index];
  const fabric::Epilogue activate = config_.activation == FfnActivation::kReluSquared
                                        ? fabric::Epilogue::kReluSquaredMul
                                        : fabric::Epilogue::kSiluMul;
  NormAndEncode(residual_.data(), layer.ffn_norm, normed_.data(), config_.hidden,
                {&layer.gate, &layer.up}, rows);
  const std::array gate_up = {Op(layer.gate, activated_.data(), fabric::Epilogue::kStore),
                              Op(layer.up, activated_.data(), activate)};
  const fabric::Status status = Project(gate_up, stats);
  if (status != fabric::Status::kOk) return status;

  NormAndEncode(activated_.data(), layer.ffn_sub_norm, activated_.data(), config_.ffn,
                {&layer.down}, rows);
  const std::array down = {Op(layer.down, residual_.data(), fabric::Epilogue::kAdd)};
  return Project(down, stats);
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
  ForTokens(rows.size(), [&](uint32_t t) {
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

void Transformer::NormAndEncode(const float* source, const Vector& norm, float* buffer,
                                uint32_t cols, std::initializer_list<const Linear*> readers,
                                StepRows* rows) {
  ActivationKinds kinds;
  for (const Linear* linear : readers) kinds.Add(linear->activation);
  input_.Begin(buffer, rows->size(), cols, kinds);
  ForTokens(rows->size(), [&](uint32_t t) {
    const size_t first = size_t{t} * cols;
    if (!norm.empty()) {
      fabric::RmsNorm(source + first, norm.data(), config_.norm_eps, cols, buffer + first);
    }
    if (!input_.Encode(t)) rows->non_finite[t] = 1;
  });
}

fabric::ProjectionOp Transformer::Op(const Linear& linear, float* y,
                                     fabric::Epilogue epilogue) const {
  return {.matrix = linear.matrix,
          .x = input_.View(linear.activation),
          .y = y,
          .y_stride = linear.rows,
          .bias = linear.bias.empty() ? nullptr : linear.bias.data(),
          .epilogue = epilogue};
}

fabric::Status Transformer::Project(std::span<const fabric::ProjectionOp> ops, StepStats* stats) {
  const Stopwatch stopwatch;
  const fabric::Status status = fabric::Execute(device_, ops);
  stats->projection_seconds += stopwatch.Seconds();
  return status;
}

template <typename Task>
void Transformer::ForTokens(uint32_t tokens, const Task& task) {
  if (tokens < kInlineTokens || team_.size() == 1) {
    for (uint32_t token = 0; token < tokens; ++token) task(token);
    return;
  }
  const auto range = [&task](int, size_t begin, size_t end) {
    for (size_t token = begin; token < end; ++token) task(static_cast<uint32_t>(token));
  };
  const size_t grain = std::max<size_t>(1, tokens / (4 * static_cast<size_t>(team_.size())));
  team_.ParallelFor(tokens, grain, std::ref(range));
}

size_t Transformer::workspace_bytes() const {
  size_t floats = 0;
  for (const Floats* buffer : {&residual_, &normed_, &query_, &key_, &value_, &attended_,
                               &activated_, &cosines_, &sines_}) {
    floats += buffer->size();
  }
  return floats * sizeof(float) + input_.bytes() + attention_.workspace_bytes();
}

}  // namespace engine
