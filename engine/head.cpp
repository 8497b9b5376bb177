#include "engine/head.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/candidates.h"
#include "fabric/coarse_screen.h"
#include "fabric/strict_screen.h"
#include "fabric/vector_ops.h"

namespace engine {
namespace {

// Logits that one pass over the head's matrix makes. More positions per pass save passes, but the
// buffer should not outgrow what a batch of decodes needs.
constexpr size_t kLogitBytes = size_t{16} << 20;
constexpr uint32_t kMinPositions = 8;
constexpr uint32_t kMaxPositions = 64;

uint32_t PositionsPerPass(uint32_t vocabulary, uint32_t max_tokens) {
  const auto fitting = static_cast<uint32_t>(kLogitBytes / (size_t{vocabulary} * sizeof(float)));
  return std::min(std::clamp(fitting, kMinPositions, kMaxPositions), max_tokens);
}

// Positions that share a strict sketch. Each refines rows of its own, and from about eight on a
// full pass is bound by arithmetic and not by the bytes that a sketch saves. A coarse sketch saves
// arithmetic, too.
constexpr uint32_t kStrictPositions = 4;
// The best rows of the sketch are made exact first: the worse of the wanted ones among them then
// rules out the others.
constexpr size_t kExtraSeeds = 32;
// More rows left over than this share of the vocabulary cost what the sketch saved.
constexpr size_t kMostRows = 6;
constexpr uint32_t kLongestPause = 256;
// Logits that come near the largest float are left to the full path.
constexpr float kLargestLogit = 1e37F;

std::unique_ptr<fabric::RowScreen> MakeScreen(const Weights& weights, const EngineOptions& options,
                                              fabric::WorkerTeam& team, uint32_t capacity) {
  const SharedMatrix& matrix = weights.head_matrix;
  const HeadMode mode = UsableHeadMode(weights, options);
  const bool kept = weights.head_sketch != nullptr && weights.head_sketch_mode == mode;
  const auto sketch = [&](const auto& measure) {
    return kept ? weights.head_sketch : std::make_shared<const fabric::RowSketch>(measure());
  };
  switch (mode) {
    case HeadMode::kFull:
      return nullptr;
    case HeadMode::kStrict:
      return std::make_unique<fabric::StrictScreen>(
          matrix.quantized,
          sketch([&] { return fabric::StrictScreen::Measure(*matrix.quantized); }), team,
          kStrictPositions);
    case HeadMode::kScreened:
      return std::make_unique<fabric::CoarseScreen>(
          matrix.AsMatrix(),
          sketch([&] { return fabric::CoarseScreen::Measure(matrix.AsMatrix()); }), team, capacity);
  }
  return nullptr;
}

ActivationKinds KindOf(const Linear& linear) {
  ActivationKinds kinds;
  kinds.Add(linear.activation);
  return kinds;
}

}  // namespace

std::string_view HeadModeName(HeadMode mode) {
  switch (mode) {
    case HeadMode::kFull:
      return "full";
    case HeadMode::kStrict:
      return "strict";
    case HeadMode::kScreened:
      return "screened";
  }
  return "";
}

HeadMode UsableHeadMode(const Weights& weights, const EngineOptions& options) {
  const SharedMatrix& matrix = weights.head_matrix;
  const bool shared = matrix.dense != nullptr || matrix.quantized != nullptr;
  const bool worth_it =
      shared && weights.head.bias.empty() && matrix.bytes() >= options.screened_head_bytes;
  const bool possible =
      options.head != HeadMode::kStrict ||
      (matrix.quantized != nullptr && fabric::StrictScreen::Supports(*matrix.quantized));
  return worth_it && possible ? options.head : HeadMode::kFull;
}

Head::Head(const ModelConfig& config, const Weights& weights, const EngineOptions& options,
           fabric::Device& device, fabric::WorkerTeam& team)
    : config_(config),
      weights_(weights),
      device_(device),
      capacity_(PositionsPerPass(config.vocabulary, std::max(1U, options.max_batch_tokens))),
      kinds_(KindOf(weights.head)),
      input_(capacity_, config.hidden, kinds_),
      normed_(size_t{capacity_} * config.hidden),
      logits_(size_t{capacity_} * config.vocabulary),
      screen_(MakeScreen(weights, options, team, capacity_)),
      mode_(UsableHeadMode(weights, options)) {}

void Head::FinalNorm(const float* hidden, float* out) const noexcept {
  fabric::RmsNorm(hidden, weights_.output_norm.data(), config_.norm_eps, config_.hidden, out);
}

void Head::Encode(std::span<const float* const> hidden) noexcept {
  const auto positions = static_cast<uint32_t>(hidden.size());
  input_.Begin(normed_.data(), positions, config_.hidden, kinds_);
  for (uint32_t i = 0; i < positions; ++i) {
    float* normed = normed_.data() + size_t{i} * config_.hidden;
    FinalNorm(hidden[i], normed);
    if (weights_.head.rotated) config_.hadamard.Apply(normed, config_.hidden);
    input_.Encode(i);
  }
}

fabric::Status Head::Compute(std::span<const float* const> hidden) noexcept {
  Encode(hidden);
  const Linear& head = weights_.head;
  const std::array op = {
      fabric::ProjectionOp{.matrix = head.matrix,
                           .x = input_.View(head.activation),
                           .y = logits_.data(),
                           .y_stride = config_.vocabulary,
                           .bias = head.bias.empty() ? nullptr : head.bias.data(),
                           .epilogue = fabric::Epilogue::kStore}};
  return fabric::Execute(device_, op);
}

bool Head::WantsScreen(size_t positions) {
  if (screen_ == nullptr || positions > std::min(screen_->max_tokens(), capacity_)) return false;
  if (mode_ == HeadMode::kScreened || pause_ == 0) return true;
  pause_ -= static_cast<uint32_t>(std::min<size_t>(pause_, positions));
  return false;
}

void Head::Screen(std::span<const float* const> hidden) noexcept {
  Encode(hidden);
  screen_->Sketch(*input_.View(weights_.head.activation));
}

bool Head::FindBest(size_t i, const HeadQuery& query, std::span<Candidate> out, StepStats* stats) {
  const auto token = static_cast<uint32_t>(i);
  const std::span<const float> sketch = screen_->Sketched(token);
  const bool in_range = screen_->LargestRow() * screen_->Norm(token) < kLargestLogit;
  if (!in_range || !query.bias.empty() || out.empty()) return false;

  seeds_.resize(std::min(out.size() + kExtraSeeds, sketch.size()));
  SelectBest(sketch, query.mask, seeds_);
  if (seeds_.size() < out.size() || seeds_.back().token < 0) return false;
  std::sort(seeds_.begin(), seeds_.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  found_.clear();
  rows_.clear();
  for (const Candidate& seed : seeds_) rows_.push_back(static_cast<uint32_t>(seed.token));
  if (!RefineRows(i, stats)) return false;
  const auto worst = found_.begin() + static_cast<ptrdiff_t>(out.size()) - 1;
  std::nth_element(found_.begin(), worst, found_.end(), BetterCandidate);

  if (!CollectRows(i, query, worst->logit)) {
    pause_length_ = std::min(kLongestPause, std::max(1U, 2 * pause_length_));
    pause_ = pause_length_;
    return false;
  }
  if (!RefineRows(i, stats)) return false;
  pause_length_ = 0;
  std::partial_sort_copy(found_.begin(), found_.end(), out.begin(), out.end(), BetterCandidate);
  stats->screened_positions += 1;
  stats->refined_rows += found_.size();
  stats->weight_bytes += found_.size() * screen_->row_bytes();
  return true;
}

// rows_: all tokens but the seeds whose logit may reach `least`. False when they are too many or a
// bound is not a number.
bool Head::CollectRows(size_t i, const HeadQuery& query, float least) {
  const auto token = static_cast<uint32_t>(i);
  const std::span<const float> sketch = screen_->Sketched(token);
  const std::span<const float> reach = screen_->Reach();
  const float norm = screen_->Norm(token);
  rows_.clear();
  const auto seed_below = [](const Candidate& seed, uint32_t row) {
    return static_cast<uint32_t>(seed.token) < row;
  };
  const size_t limit = sketch.size() / kMostRows;
  for (uint32_t row = 0; row < sketch.size(); ++row) {
    const float highest = sketch[row] + reach[row] * norm;
    if (highest < least) continue;
    if (std::isnan(highest) || rows_.size() == limit) return false;
    if (!query.mask.empty() && ((query.mask[row / 64] >> (row % 64)) & 1) == 0) continue;
    const auto seed = std::lower_bound(seeds_.begin(), seeds_.end(), row, seed_below);
    if (seed != seeds_.end() && static_cast<uint32_t>(seed->token) == row) continue;
    rows_.push_back(row);
  }
  return true;
}

// Appends rows_ with their exact logits to found_. False when one is not finite or so far from the
// sketch that others may be, too.
bool Head::RefineRows(size_t i, StepStats* stats) {
  const auto token = static_cast<uint32_t>(i);
  const std::span<const float> sketch = screen_->Sketched(token);
  const std::span<const float> reach = screen_->Reach();
  const float trusted = screen_->guard() * screen_->Norm(token);
  refined_.resize(rows_.size());
  screen_->Refine(token, rows_, refined_.data());
  for (size_t r = 0; r < rows_.size(); ++r) {
    const uint32_t row = rows_[r];
    if (!std::isfinite(refined_[r])) return false;
    if (std::abs(refined_[r] - sketch[row]) > reach[row] * trusted) {
      stats->guard_trips += 1;
      return false;
    }
    found_.push_back({static_cast<TokenId>(row), refined_[r]});
  }
  return true;
}

size_t Head::workspace_bytes() const {
  return (normed_.size() + logits_.size()) * sizeof(float) + input_.bytes() +
         (screen_ == nullptr ? 0 : screen_->bytes());
}

}  // namespace engine
