#include "engine/projector.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <initializer_list>

#include "engine/stopwatch.h"
#include "engine/token_loop.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

// The kinds of the projections of all layers whose input is, or is not, rotated.
ActivationKinds KindsOf(const Weights& weights, bool rotated) {
  ActivationKinds kinds;
  const auto add = [&](std::initializer_list<const Linear*> linears) {
    for (const Linear* linear : linears) {
      if (linear->present() && linear->rotated == rotated) kinds.Add(linear->activation);
    }
  };
  for (const LayerWeights& layer : weights.layers) {
    add({&layer.query, &layer.key, &layer.value, &layer.attention_output, &layer.gate, &layer.up,
         &layer.down});
    if (const DeltaNetWeights* net = layer.delta_net.get()) {
      add({&net->qkv, &net->gate, &net->alpha, &net->beta, &net->output});
    }
    if (layer.experts) add({&layer.experts->router});
  }
  return kinds;
}

fabric::Epilogue ActivationEpilogue(FfnActivation activation) {
  switch (activation) {
    case FfnActivation::kReluSquared:
      return fabric::Epilogue::kReluSquaredMul;
    case FfnActivation::kGelu:
      return fabric::Epilogue::kGeluMul;
    default:
      return fabric::Epilogue::kSiluMul;
  }
}

decltype(&fabric::SiluMul) ActivationFunction(FfnActivation activation) {
  switch (activation) {
    case FfnActivation::kReluSquared:
      return fabric::ReluSquaredMul;
    case FfnActivation::kGelu:
      return fabric::GeluMul;
    default:
      return fabric::SiluMul;
  }
}

// The most rows, and the highest ranks together, of the projections that share one input.
struct GroupWidth {
  size_t rows = 0;
  size_t ranks = 0;
};

GroupWidth WidestGroup(const Weights& weights) {
  uint32_t rows = 0;
  for (const LinearInfo& linear : weights.linears) {
    if (linear.name.starts_with("blk.")) rows = std::max(rows, linear.rows);
  }
  uint32_t rank = 0;
  for (const LoraAdapter& adapter : weights.adapters) {
    for (const LoraPair& pair : adapter.pairs) rank = std::max(rank, pair.rank);
  }
  return {Projector::kMaxGroup * size_t{rows}, Projector::kMaxGroup * size_t{rank}};
}

}  // namespace

Projector::Projector(const ModelConfig& config, const Weights& weights, fabric::Device& device,
                     fabric::WorkerTeam& team, uint32_t max_tokens, uint32_t widest)
    : config_(config),
      weights_(weights),
      device_(device),
      team_(team),
      input_(max_tokens, widest, KindsOf(weights, false)),
      rotated_input_(max_tokens, widest, KindsOf(weights, true)),
      rotated_(config.hadamard.active() ? size_t{max_tokens} * widest : 0),
      adapted_(weights.adapters.size()) {
  if (!weights.adapters.empty() || config.input_norms) {
    up_ = Floats(size_t{max_tokens} * config.ffn);
  }
  if (weights.adapters.empty()) return;
  for (std::vector<AdaptedToken>& tokens : adapted_) tokens.reserve(max_tokens);
  const GroupWidth group = WidestGroup(weights);
  gathered_ = Floats(size_t{max_tokens} * widest);
  low_ = Floats(max_tokens * group.ranks);
  delta_ = Floats(max_tokens * group.rows);
}

void Projector::BeginRun(const StepRows& rows) {
  any_adapted_ = false;
  for (std::vector<AdaptedToken>& tokens : adapted_) tokens.clear();
  for (size_t row = rows.begin; row < rows.end; ++row) {
    const BatchRow& source = rows.batch->rows[row];
    const uint32_t first = rows.first_token[row - rows.begin];
    for (const AdapterScale& adapter : source.adapters) {
      assert(adapter.adapter < adapted_.size());
      any_adapted_ = true;
      for (uint32_t i = 0; i < source.tokens.size(); ++i) {
        adapted_[adapter.adapter].push_back({first + i, adapter.scale});
      }
    }
  }
}

void Projector::Encode(const float* source, const Vector& norm, float* buffer, uint32_t cols,
                       std::initializer_list<const Linear*> readers, StepRows* rows) {
  ActivationKinds kinds;
  ActivationKinds rotated_kinds;
  bool rotates = false;
  for (const Linear* linear : readers) {
    (linear->rotated ? rotated_kinds : kinds).Add(linear->activation);
    rotates |= linear->rotated;
  }
  values_ = buffer;
  tokens_ = rows->size();
  cols_ = cols;
  input_.Begin(buffer, tokens_, cols, kinds);
  rotated_input_.Begin(rotated_.data(), tokens_, cols, rotated_kinds);
  ForTokens(team_, tokens_, [&](uint32_t t) {
    const size_t first = size_t{t} * cols;
    if (!norm.empty()) {
      fabric::RmsNorm(source + first, norm.data(), config_.norm_eps, cols, buffer + first);
    }
    bool finite = input_.Encode(t);
    if (rotates) {
      float* rotated = rotated_.data() + first;
      std::memcpy(rotated, buffer + first, cols * sizeof(float));
      config_.hadamard.Apply(rotated, cols);
      finite &= rotated_input_.Encode(t);
    }
    if (!finite) rows->non_finite[t] = 1;
  });
}

fabric::Status Projector::Project(std::span<const Projection> projections,
                                  StepStats* stats) noexcept {
  assert(projections.size() <= kMaxGroup);
  std::array<fabric::ProjectionOp, kMaxGroup> ops;
  for (size_t i = 0; i < projections.size(); ++i) {
    ops[i] = Op(*projections[i].linear, projections[i].y,
                projections[i].add ? fabric::Epilogue::kAdd : fabric::Epilogue::kStore);
  }
  const fabric::Status status = Execute(std::span(ops).first(projections.size()), stats);
  if (status != fabric::Status::kOk || !any_adapted_) return status;
  return AddAdapters(projections, stats);
}

// The activation is fused into the second projection unless an adapter has something to add before
// it; the bits are the same either way.
fabric::Status Projector::ProjectGated(const Linear& gate_linear, const Linear& up_linear,
                                       float* gate, StepStats* stats) noexcept {
  if (!any_adapted_ || (!Adapted(gate_linear) && !Adapted(up_linear))) {
    const std::array ops = {Op(gate_linear, gate, fabric::Epilogue::kStore),
                            Op(up_linear, gate, ActivationEpilogue(config_.activation))};
    return Execute(ops, stats);
  }
  const std::array projections = {Projection{.linear = &gate_linear, .y = gate},
                                  Projection{.linear = &up_linear, .y = up_.data()}};
  const fabric::Status status = Project(projections, stats);
  if (status == fabric::Status::kOk) Activate(gate_linear.rows, gate);
  return status;
}

fabric::Status Projector::ProjectOntoGate(const Linear& up_linear, float* gate,
                                          StepStats* stats) noexcept {
  assert(config_.input_norms);
  const std::array up = {Projection{.linear = &up_linear, .y = up_.data()}};
  const fabric::Status status = Project(up, stats);
  if (status == fabric::Status::kOk) Activate(up_linear.rows, gate);
  return status;
}

// gate[t] = act(gate[t]) * up_[t].
void Projector::Activate(uint32_t ffn, float* gate) {
  const auto activate = ActivationFunction(config_.activation);
  ForTokens(team_, tokens_, [&](uint32_t t) {
    const size_t first = size_t{t} * ffn;
    activate(up_.data() + first, ffn, gate + first);
  });
}

bool Projector::Adapted(const Linear& linear) const {
  for (size_t i = 0; i < adapted_.size(); ++i) {
    if (!adapted_[i].empty() && weights_.adapters[i].Find(linear.index) != nullptr) return true;
  }
  return false;
}

fabric::Status Projector::AddAdapters(std::span<const Projection> projections,
                                      StepStats* stats) noexcept {
  for (size_t i = 0; i < adapted_.size(); ++i) {
    if (adapted_[i].empty()) continue;
    const fabric::Status status = AddAdapter(weights_.adapters[i], adapted_[i], projections, stats);
    if (status != fabric::Status::kOk) return status;
  }
  return fabric::Status::kOk;
}

// y[t] += scale[t] * factor * B (A x[t]) for the adapter's tokens, gathered so that each matrix is
// read once for all of them.
fabric::Status Projector::AddAdapter(const LoraAdapter& adapter,
                                     std::span<const AdaptedToken> tokens,
                                     std::span<const Projection> projections,
                                     StepStats* stats) noexcept {
  struct Part {
    const Projection* projection = nullptr;
    const LoraPair* pair = nullptr;
    float* low = nullptr;
    float* delta = nullptr;
    fabric::ActivationView low_view;
  };
  std::array<Part, kMaxGroup> parts;
  size_t count = 0;
  float* low = low_.data();
  float* delta = delta_.data();
  for (const Projection& projection : projections) {
    const LoraPair* pair = adapter.Find(projection.linear->index);
    if (pair == nullptr) continue;
    parts[count++] = {
        .projection = &projection, .pair = pair, .low = low, .delta = delta, .low_view = {}};
    low += tokens.size() * pair->rank;
    delta += tokens.size() * projection.linear->rows;
  }
  if (count == 0) return fabric::Status::kOk;

  const auto size = static_cast<uint32_t>(tokens.size());
  ForTokens(team_, size, [&](uint32_t i) {
    std::memcpy(gathered_.data() + size_t{i} * cols_, values_ + size_t{tokens[i].token} * cols_,
                cols_ * sizeof(float));
  });
  const fabric::ActivationView x = {.kind = fabric::ActivationKind::kFloat,
                                    .tokens = size,
                                    .cols = cols_,
                                    .values = gathered_.data(),
                                    .value_stride = cols_};
  std::array<fabric::ProjectionOp, kMaxGroup> ops;
  for (size_t i = 0; i < count; ++i) {
    ops[i] = {.matrix = parts[i].pair->a,
              .x = &x,
              .y = parts[i].low,
              .y_stride = parts[i].pair->rank,
              .bias = nullptr,
              .epilogue = fabric::Epilogue::kStore};
  }
  fabric::Status status = Execute(std::span(ops).first(count), stats);
  if (status != fabric::Status::kOk) return status;

  for (size_t i = 0; i < count; ++i) {
    Part& part = parts[i];
    for (size_t t = 0; t < size; ++t) {
      const float factor = tokens[t].scale * part.pair->factor;
      for (size_t r = 0; r < part.pair->rank; ++r) part.low[t * part.pair->rank + r] *= factor;
    }
    part.low_view = x;
    part.low_view.cols = part.pair->rank;
    part.low_view.values = part.low;
    part.low_view.value_stride = part.pair->rank;
    ops[i] = {.matrix = part.pair->b,
              .x = &part.low_view,
              .y = part.delta,
              .y_stride = part.projection->linear->rows,
              .bias = nullptr,
              .epilogue = fabric::Epilogue::kStore};
  }
  status = Execute(std::span(ops).first(count), stats);
  if (status != fabric::Status::kOk) return status;

  ForTokens(team_, size, [&](uint32_t t) {
    for (size_t i = 0; i < count; ++i) {
      const size_t rows = parts[i].projection->linear->rows;
      fabric::AddTo(parts[i].delta + t * rows, rows,
                    parts[i].projection->y + tokens[t].token * rows);
    }
  });
  return status;
}

fabric::ProjectionOp Projector::Op(const Linear& linear, float* y,
                                   fabric::Epilogue epilogue) const {
  return {.matrix = linear.matrix,
          .x = (linear.rotated ? rotated_input_ : input_).View(linear.activation),
          .y = y,
          .y_stride = linear.rows,
          .bias = linear.bias.empty() ? nullptr : linear.bias.data(),
          .epilogue = epilogue};
}

fabric::Status Projector::Execute(std::span<const fabric::ProjectionOp> ops,
                                  StepStats* stats) noexcept {
  const Stopwatch stopwatch;
  const fabric::Status status = fabric::Execute(device_, ops);
  stats->projection_seconds += stopwatch.Seconds();
  return status;
}

size_t Projector::workspace_bytes() const {
  size_t floats = 0;
  for (const Floats* buffer : {&rotated_, &gathered_, &low_, &delta_, &up_}) {
    floats += buffer->size();
  }
  return floats * sizeof(float) + input_.bytes() + rotated_input_.bytes();
}

}  // namespace engine
