#include "engine/delta_net.h"

#include <array>
#include <cmath>
#include <cstring>
#include <functional>

#include "engine/portable_math.h"
#include "engine/stopwatch.h"
#include "engine/token_loop.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

// Beyond it softplus(x) is x in float.
constexpr double kSoftplusLinear = 20.0;
constexpr float kL2Epsilon = 1e-6F;

// A value that is not finite stays so: its row fails.
double Softplus(double x) {
  if (!(x <= kSoftplusLinear)) return x;
  return x < -700.0 ? 0.0 : PortableLog(1.0 + PortableExp(x));
}

// exp(a * softplus(x)), a <= 0.
float Decay(float a, float x) {
  const double exponent = double{a} * Softplus(double{x});
  if (!(exponent <= 0.0)) return static_cast<float>(exponent);
  return exponent < -700.0 ? 0.0F : static_cast<float>(PortableExp(exponent));
}

float Sigmoid(float x) {
  // exp() takes no less than -700; sigmoid is 0 in float long before.
  if (x < -700.0F) return 0.0F;
  if (!(x <= 700.0F)) return x > 0.0F ? 1.0F : x;
  return static_cast<float>(1.0 / (1.0 + PortableExp(-double{x})));
}

// x = x / |x| * scale.
void Normalise(float* x, uint32_t n, float scale) {
  const float factor = scale / std::sqrt(fabric::Dot(x, x, n) + kL2Epsilon);
  for (uint32_t i = 0; i < n; ++i) x[i] *= factor;
}

}  // namespace

DeltaNet::DeltaNet(const ModelConfig& config, fabric::WorkerTeam& team, StateCache& states,
                   Projector& projector, uint32_t max_tokens)
    : config_(config),
      shape_(config.delta_net),
      team_(team),
      states_(states),
      projector_(projector),
      mixed_(size_t{max_tokens} * shape_.channels()),
      convolved_(size_t{max_tokens} * shape_.channels()),
      gate_(size_t{max_tokens} * shape_.value_width()),
      decay_(size_t{max_tokens} * shape_.value_heads),
      beta_(size_t{max_tokens} * shape_.value_heads),
      out_(size_t{max_tokens} * shape_.value_width()) {}

fabric::Status DeltaNet::Run(const LayerWeights& layer, uint32_t recurrent_index, float* residual,
                             float* normed, StepRows* rows, StepStats* stats) noexcept {
  const DeltaNetWeights& weights = *layer.delta_net;
  projector_.Encode(residual, layer.attention_norm, normed, config_.hidden,
                    {&weights.qkv, &weights.gate, &weights.alpha, &weights.beta}, rows);
  const std::array inputs = {Projection{.linear = &weights.qkv, .y = mixed_.data()},
                             Projection{.linear = &weights.gate, .y = gate_.data()},
                             Projection{.linear = &weights.alpha, .y = decay_.data()},
                             Projection{.linear = &weights.beta, .y = beta_.data()}};
  const fabric::Status status = projector_.Project(inputs, stats);
  if (status != fabric::Status::kOk) return status;

  const Stopwatch stopwatch;
  ForTokens(team_, rows->size(), [&](uint32_t token) {
    Gates(weights, token);
    Convolve(weights, recurrent_index, *rows, token);
  });
  const size_t row_count = rows->end - rows->begin;
  const auto recur = [&](int, size_t begin, size_t end) {
    for (size_t job = begin; job < end; ++job) {
      const size_t row = rows->begin + job / shape_.value_heads;
      const auto head = static_cast<uint32_t>(job % shape_.value_heads);
      if (head == 0) KeepHistory(recurrent_index, *rows, row);
      Recur(weights, recurrent_index, *rows, row, head);
    }
  };
  team_.ParallelFor(row_count * shape_.value_heads, 1, std::ref(recur));
  stats->attention_seconds += stopwatch.Seconds();

  projector_.Encode(out_.data(), Vector(), out_.data(), shape_.value_width(), {&weights.output},
                    rows);
  const std::array output = {Projection{.linear = &weights.output, .y = residual, .add = true}};
  return projector_.Project(output, stats);
}

void DeltaNet::Gates(const DeltaNetWeights& weights, uint32_t token) {
  float* decay = decay_.data() + size_t{token} * shape_.value_heads;
  float* beta = beta_.data() + size_t{token} * shape_.value_heads;
  for (uint32_t head = 0; head < shape_.value_heads; ++head) {
    decay[head] = Decay(weights.a[head], decay[head] + weights.dt_bias[head]);
    beta[head] = Sigmoid(beta[head]);
  }
}

// The causal convolution over the token and the kernel - 1 before it, per channel, oldest first;
// then SiLU, and unit length for queries and keys.
void DeltaNet::Convolve(const DeltaNetWeights& weights, uint32_t recurrent_index,
                        const StepRows& rows, uint32_t token) {
  const uint32_t channels = shape_.channels();
  const uint32_t row = rows.tokens[token].row;
  const BatchRow& source = rows.batch->rows[row];
  const uint32_t first = rows.first_token[row - rows.begin];
  const float* history =
      states_.HistoryBefore(source.state_slot, recurrent_index, source.first_position == 0);
  float* out = convolved_.data() + size_t{token} * channels;
  std::memset(out, 0, channels * sizeof(float));
  for (uint32_t tap = 0; tap < shape_.kernel; ++tap) {
    // The token that lies `back` before this one, in the row or in what the state keeps.
    const uint32_t back = shape_.kernel - 1 - tap;
    const uint32_t inside = token - first;
    const float* x = inside >= back ? mixed_.data() + size_t{token - back} * channels
                                    : history + size_t{tap + inside} * channels;
    const float* w = weights.convolution.data() + size_t{tap} * channels;
    for (uint32_t c = 0; c < channels; ++c) out[c] += w[c] * x[c];
  }
  fabric::SiluMul(weights.ones.data(), channels, out);
  const float query_scale = 1.0F / std::sqrt(static_cast<float>(shape_.key_dim));
  for (uint32_t head = 0; head < 2 * shape_.key_heads; ++head) {
    Normalise(out + size_t{head} * shape_.key_dim, shape_.key_dim,
              head < shape_.key_heads ? query_scale : 1.0F);
  }
}

void DeltaNet::KeepHistory(uint32_t recurrent_index, const StepRows& rows, size_t row) {
  const BatchRow& source = rows.batch->rows[row];
  const uint32_t channels = shape_.channels();
  const uint32_t kept = shape_.kernel - 1;
  const auto count = static_cast<uint32_t>(source.tokens.size());
  const uint32_t first = rows.first_token[row - rows.begin];
  const float* before =
      states_.HistoryBefore(source.state_slot, recurrent_index, source.first_position == 0);
  float* after = states_.HistoryAfter(source.state_slot, recurrent_index);
  for (uint32_t i = 0; i < kept; ++i) {
    // Element i of the new history is the token kept - i before the row's end.
    const float* x = count + i >= kept ? mixed_.data() + size_t{first + count + i - kept} * channels
                                       : before + size_t{count + i} * channels;
    std::memcpy(after + size_t{i} * channels, x, channels * sizeof(float));
  }
}

void DeltaNet::Recur(const DeltaNetWeights& weights, uint32_t recurrent_index, const StepRows& rows,
                     size_t row, uint32_t head) {
  const BatchRow& source = rows.batch->rows[row];
  const uint32_t first = rows.first_token[row - rows.begin];
  const size_t head_floats = size_t{shape_.key_dim} * shape_.value_dim;
  const float* before =
      states_.StateBefore(source.state_slot, recurrent_index, source.first_position == 0) +
      head * head_floats;
  float* after = states_.StateAfter(source.state_slot, recurrent_index) + head * head_floats;
  // The file has the value heads tiled over the key heads.
  const uint32_t key_head = head % shape_.key_heads;
  const uint32_t per_key = shape_.value_heads / shape_.key_heads;
  const uint32_t place =
      config_.hadamard.grouped_values ? key_head * per_key + head / shape_.key_heads : head;
  for (uint32_t i = 0; i < source.tokens.size(); ++i) {
    const size_t token = first + i;
    const float* q = convolved_.data() + token * shape_.channels() + key_head * shape_.key_dim;
    const size_t gate = token * shape_.value_width() + head * shape_.value_dim;
    float* out = out_.data() + token * shape_.value_width() + place * shape_.value_dim;
    fabric::DeltaRule({.before = i == 0 ? before : after,
                       .after = after,
                       .query = q,
                       .key = q + shape_.key_width(),
                       .value = convolved_.data() + token * shape_.channels() +
                                2 * shape_.key_width() + head * shape_.value_dim,
                       .decay = decay_[token * shape_.value_heads + head],
                       .beta = beta_[token * shape_.value_heads + head],
                       .key_dim = shape_.key_dim,
                       .value_dim = shape_.value_dim,
                       .out = out});
    fabric::RmsNorm(out, weights.state_norm.data(), config_.norm_eps, shape_.value_dim, out);
    fabric::SiluMul(out, shape_.value_dim, gate_.data() + gate);
    std::memcpy(out, gate_.data() + gate, shape_.value_dim * sizeof(float));
  }
}

size_t DeltaNet::workspace_bytes() const {
  size_t floats = 0;
  for (const Floats* buffer : {&mixed_, &convolved_, &gate_, &decay_, &beta_, &out_}) {
    floats += buffer->size();
  }
  return floats * sizeof(float);
}

}  // namespace engine
