#include "cli/local_model.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <stdexcept>

#include "engine/kv_geometry.h"

namespace cli {
namespace {

// A line on the terminal that is overwritten, and removed at the end; nothing in a log file.
void ShowProgress(const engine::LoadProgress& progress) {
  if (isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\rloading %.*s %3.0f %%", static_cast<int>(progress.phase.size()),
               progress.phase.data(), progress.fraction * 100.0);
  if (progress.fraction >= 1.0) std::fprintf(stderr, "\r\033[K");
}

class LogitsReceiver : public engine::LogitsSink {
 public:
  LogitsReceiver(uint32_t first, std::span<const uint32_t> outputs,
                 const LocalSequence::OnLogits& on_logits)
      : first_(first), outputs_(outputs), on_logits_(on_logits) {}

  void OnLogits(size_t, size_t output, std::span<float> logits) override {
    on_logits_(first_ + outputs_[output], logits);
  }

 private:
  uint32_t first_;
  std::span<const uint32_t> outputs_;
  const LocalSequence::OnLogits& on_logits_;
};

}  // namespace

LocalModel::LocalModel(const std::string& path, const config::Config& config,
                       const WrapDevice& wrap)
    : options_(config.engine),
      team_(config.threads),
      device_(wrap ? wrap(fabric::CreateDevice(config.fabric, team_))
                   : fabric::CreateDevice(config.fabric, team_)),
      model_(engine::Model::Load(path, options_, *device_, team_, ShowProgress)),
      adapters_(engine::DefaultAdapters(model_->weights())) {}

void LocalModel::PrepareKv(uint32_t sequences, uint32_t context) {
  const engine::KvGeometry geometry = engine::PlannedKvGeometry(model_->config(), options_);
  engine::EngineOptions options = options_;
  options.context_length = context;
  options.max_sequences = sequences;
  options.kv_bytes = geometry.BytesPerBlock() * geometry.BlocksFor(context) * sequences;
  engine_.reset();
  engine_ = std::make_unique<engine::Engine>(model_, options, *device_, team_);
}

fabric::Isa LocalModel::isa() const { return fabric::IsaOf(device_->name()); }

fabric::MachineLimits LocalModel::MeasureLimits() {
  return fabric::MeasureMachineLimits(team_, isa());
}

LocalSequence::LocalSequence(LocalModel& model, uint32_t index) : model_(model), index_(index) {
  const engine::Engine& engine = model.engine();
  blocks_.resize(engine.kv_geometry().BlocksFor(engine.context_length()));
  std::iota(blocks_.begin(), blocks_.end(), static_cast<engine::BlockId>(index * blocks_.size()));
}

uint32_t LocalSequence::Truncate(uint32_t length) {
  const bool keeps = length == size_ || !model_.engine().kv_geometry().recurrent();
  size_ = keeps ? length : 0;
  return size_;
}

void LocalSequence::Append(std::span<const engine::TokenId> tokens, uint32_t first_output,
                           const OnLogits& on_logits) {
  engine::Engine& engine = model_.engine();
  while (!tokens.empty()) {
    const auto count =
        static_cast<uint32_t>(std::min<size_t>(tokens.size(), engine.max_batch_tokens()));
    std::vector<uint32_t> outputs;
    for (uint32_t i = 0; i < count; ++i) {
      if (size_ + i >= first_output) outputs.push_back(i);
    }
    engine::BatchRow row;
    row.tokens = tokens.first(count);
    row.first_position = size_;
    row.block_table = blocks_;
    row.outputs = outputs;
    row.state_slot = index_;
    row.adapters = model_.adapters();
    row.output_kind = outputs.empty() ? engine::OutputKind::kNone : engine::OutputKind::kLogits;
    LogitsReceiver receiver(size_, outputs, on_logits);
    const engine::StepOutput output =
        engine.Step({.rows = {&row, 1}, .sink = outputs.empty() ? nullptr : &receiver});
    const engine::RowStatus status = output.rows[0].status;
    if (status != engine::RowStatus::kOk) throw std::runtime_error(RowStatusText(status, size_));
    size_ += count;
    tokens = tokens.subspan(count);
  }
}

std::span<float> LocalSequence::AppendForLast(std::span<const engine::TokenId> tokens) {
  const auto last = static_cast<uint32_t>(size_ + tokens.size() - 1);
  Append(tokens, last,
         [&](uint32_t, std::span<float> logits) { last_.assign(logits.begin(), logits.end()); });
  return last_;
}

std::string RowStatusText(engine::RowStatus status, uint32_t position) {
  const std::string where = " at or after position " + std::to_string(position) + ".";
  if (status == engine::RowStatus::kStateLost) {
    return "The model's recurrent state was lost" + where;
  }
  if (status == engine::RowStatus::kNonFinite) {
    return "The model gave a value that is not finite" + where;
  }
  return "The device failed" + where;
}

}  // namespace cli
