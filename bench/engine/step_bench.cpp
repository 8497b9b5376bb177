// Where the time of an engine step goes: decodes at several contexts and batch sizes and a prefill
// chunk, for the bundled demo model and for the shape of BitNet b1.58 2B-4T with random weights.
//
// Counters are milliseconds per step inside the layers' projections, attention and the
// head, and what is left for norms, rotation and quantisation; GB/s counts the weights streamed.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <random>
#include <stdexcept>

#include "engine/engine.h"
#include "fabric/cpu/isa.h"

namespace engine {
namespace {

ModelConfig Shape2B() {
  ModelConfig config;
  config.architecture = "bitnet-b1.58";
  config.name = "2B-4T shape";
  config.layers = 30;
  config.layer_kinds.resize(config.layers);
  config.hidden = 2560;
  config.heads = 20;
  config.kv_heads = 5;
  config.head_dim = 128;
  config.ffn = 6912;
  config.vocabulary = 128256;
  config.context_length = 4096;
  config.activation = FfnActivation::kReluSquared;
  config.rope = RopeKind::kNeox;
  config.rope_dim = 128;
  config.rope_base = 500000.0;
  config.attention_sub_norm = true;
  config.ffn_sub_norm = true;
  config.tied_head = true;
  return config;
}

// Random weights straight on the device: a third of the trits are zero, all norms are one.
class RandomModel : public Model {
 public:
  RandomModel(const ModelConfig& config, fabric::Device& device) : config_(config) {
    auto embedding = std::make_shared<fabric::DenseMatrix>(fabric::DenseType::kF16,
                                                           config.vocabulary, config.hidden);
    for (uint32_t row = 0; row < config.vocabulary; ++row) {
      for (uint8_t& byte : embedding->Row(row)) byte = static_cast<uint8_t>(random_() & 0x1f);
    }
    weights_.embedding = {.dense = embedding, .quantized = nullptr};
    weights_.head = {
        .matrix = Upload(device, std::shared_ptr<const fabric::DenseMatrix>(embedding)),
        .activation = fabric::ActivationKind::kFloat,
        .rows = config.vocabulary,
        .cols = config.hidden,
        .bias = {}};
    weights_.output_norm = Ones(config.hidden);
    for (uint32_t i = 0; i < config.layers; ++i) {
      LayerWeights& layer = weights_.layers.emplace_back();
      layer.attention_norm = Ones(config.hidden);
      layer.ffn_norm = Ones(config.hidden);
      layer.attention_sub_norm = Ones(config.query_width());
      layer.ffn_sub_norm = Ones(config.ffn);
      layer.query = Ternary(device, config.query_width(), config.hidden);
      layer.key = Ternary(device, config.kv_width(), config.hidden);
      layer.value = Ternary(device, config.kv_width(), config.hidden);
      layer.attention_output = Ternary(device, config.hidden, config.query_width());
      layer.gate = Ternary(device, config.ffn, config.hidden);
      layer.up = Ternary(device, config.ffn, config.hidden);
      layer.down = Ternary(device, config.hidden, config.ffn);
    }
  }
  const ModelConfig& config() const override { return config_; }
  const text::Tokenizer& tokenizer() const override { throw std::logic_error("no tokenizer"); }
  const text::ChatTemplate* chat_template() const override { return nullptr; }
  const Weights& weights() const override { return weights_; }
  const std::string& path() const override { return config_.name; }
  const engine::LoadReport& load_report() const override { return load_report_; }

 private:
  engine::LoadReport load_report_;

  static Vector Ones(uint32_t size) {
    Vector ones(size);
    for (float& one : ones) one = 1.0F;
    return ones;
  }

  static fabric::MatrixId Upload(fabric::Device& device, fabric::Matrix matrix) {
    fabric::MatrixId id;
    if (device.Upload(std::move(matrix), &id) != fabric::Status::kOk) {
      throw std::runtime_error("the device is full");
    }
    return id;
  }

  Linear Ternary(fabric::Device& device, uint32_t rows, uint32_t cols) {
    fabric::TernaryMatrix matrix(rows, cols, fabric::ScaleKind::kTensor, 0,
                                 fabric::TernaryLayout::kPanel2Bit);
    std::vector<int8_t> trits(cols);
    const float scale = 0.02F;
    for (int8_t& trit : trits) trit = static_cast<int8_t>(static_cast<int>(random_() % 3) - 1);
    for (uint32_t row = 0; row < rows; ++row) {
      std::rotate(trits.begin(), trits.begin() + 1 + static_cast<int>(random_() % 30), trits.end());
      matrix.SetRow(row, trits, {&scale, 1});
    }
    matrix.CountNonZeros();
    return {.matrix = Upload(device, std::move(matrix)),
            .activation = fabric::ActivationKind::kInt8Token,
            .rows = rows,
            .cols = cols,
            .bias = {}};
  }

  std::mt19937 random_{1};
  ModelConfig config_;
  Weights weights_;
};

struct Bed {
  Bed(bool large, int threads) : team(threads), device(fabric::CreateDevice({}, team)) {
    EngineOptions options;
    options.kv_bytes = uint64_t{700} << 20;
    model = large ? std::make_shared<const RandomModel>(Shape2B(), *device)
                  : Model::Load(TERN_SOURCE_DIR "/models/tern-demo-7m-i2_s.gguf", options, *device,
                                team);
    engine = std::make_unique<Engine>(model, options, *device, team);
  }
  fabric::WorkerTeam team;
  std::unique_ptr<fabric::Device> device;
  std::shared_ptr<const Model> model;
  std::unique_ptr<Engine> engine;
};

// One bed at a time: the 2B shape takes more than a gigabyte.
Bed& SharedBed(bool large, int threads) {
  static std::pair<bool, int> current;
  static std::unique_ptr<Bed> bed;
  if (!bed || current != std::pair(large, threads)) {
    bed.reset();
    bed = std::make_unique<Bed>(large, threads);
    current = {large, threads};
  }
  return *bed;
}

// `rows` sequences of `count` tokens each at position `context`, the best token of the last wanted.
void RunSteps(benchmark::State& state, bool large) {
  const auto threads = static_cast<int>(state.range(0));
  const auto context = static_cast<uint32_t>(state.range(1));
  const auto row_count = static_cast<uint32_t>(state.range(2));
  const auto count = static_cast<uint32_t>(state.range(3));
  Engine& engine = *SharedBed(large, threads).engine;
  const uint32_t blocks_per_row = engine.kv_geometry().BlocksFor(context + count);
  if (uint64_t{blocks_per_row} * row_count > engine.kv_blocks()) {
    state.SkipWithError("the KV pool is too small");
    return;
  }
  std::vector<BlockId> blocks(size_t{blocks_per_row} * row_count);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<BlockId>(i);
  const std::vector<TokenId> tokens(count, 100);
  const uint32_t last = count - 1;
  std::vector<BatchRow> rows;
  for (uint32_t i = 0; i < row_count; ++i) {
    rows.push_back(
        {.tokens = tokens,
         .first_position = context,
         .block_table = std::span(blocks).subspan(size_t{i} * blocks_per_row, blocks_per_row),
         .outputs = {&last, 1},
         .output_kind = OutputKind::kCandidates,
         .query = {}});
  }
  StepStats sum;
  for ([[maybe_unused]] const auto iteration : state) {
    const StepStats stats = engine.Step({.rows = rows}).stats;
    sum.seconds += stats.seconds;
    sum.projection_seconds += stats.projection_seconds;
    sum.attention_seconds += stats.attention_seconds;
    sum.head_seconds += stats.head_seconds;
    sum.weight_bytes += stats.weight_bytes;
  }
  const double to_ms = 1e3 / static_cast<double>(state.iterations());
  state.counters["projections_ms"] = sum.projection_seconds * to_ms;
  state.counters["attention_ms"] = sum.attention_seconds * to_ms;
  state.counters["head_ms"] = sum.head_seconds * to_ms;
  state.counters["rest_ms"] =
      (sum.seconds - sum.projection_seconds - sum.attention_seconds - sum.head_seconds) * to_ms;
  state.counters["GB/s"] = static_cast<double>(sum.weight_bytes) / sum.seconds * 1e-9;
  state.counters["tokens/s"] =
      static_cast<double>(state.iterations()) * row_count * count / sum.seconds;
}

void BM_Demo(benchmark::State& state) { RunSteps(state, false); }
BENCHMARK(BM_Demo)
    ->ArgNames({"threads", "context", "rows", "tokens"})
    ->Args({1, 100, 1, 1})
    ->Args({2, 100, 1, 1})
    ->Args({2, 1000, 1, 1})
    ->Args({2, 100, 16, 1})
    ->Args({2, 0, 1, 512})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

void BM_Shape2B(benchmark::State& state) { RunSteps(state, true); }
BENCHMARK(BM_Shape2B)
    ->ArgNames({"threads", "context", "rows", "tokens"})
    ->Args({1, 100, 1, 1})
    ->Args({2, 100, 1, 1})
    ->Args({2, 4000, 1, 1})
    ->Args({2, 100, 8, 1})
    ->Args({2, 0, 1, 128})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace engine

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  benchmark::AddCustomContext("isa", std::string(fabric::IsaName(fabric::ActiveIsa())));
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
