#include "tests/engine/rig.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <random>
#include <stdexcept>

#include "gguf/codec.h"

namespace engine::testing {
namespace {

class BareModel : public Model {
 public:
  BareModel(ModelConfig config, Weights weights)
      : config_(std::move(config)), weights_(std::move(weights)) {}
  const ModelConfig& config() const override { return config_; }
  const text::Tokenizer& tokenizer() const override { throw std::logic_error("no tokenizer"); }
  const text::ChatTemplate* chat_template() const override { return nullptr; }
  const Weights& weights() const override { return weights_; }
  const std::string& path() const override { return path_; }
  const LoadReport& load_report() const override { return load_report_; }

 private:
  std::string path_;
  LoadReport load_report_;
  ModelConfig config_;
  Weights weights_;
};

class Collector : public LogitsSink {
 public:
  explicit Collector(LogitRows* rows) : rows_(rows) {}
  void OnLogits(size_t, size_t, std::span<float> logits) override {
    rows_->emplace_back(logits.begin(), logits.end());
  }

 private:
  LogitRows* rows_;
};

std::vector<std::byte> FloatBytes(std::span<const float> values) {
  std::vector<std::byte> bytes(values.size_bytes());
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// Adds tensors of random values to a file.
class TensorMaker {
 public:
  TensorMaker(gguf::Writer* writer, uint64_t seed) : writer_(writer), random_(seed) {}

  void AddNorm(const std::string& name, uint32_t size) {
    std::uniform_real_distribution<float> around_one(0.7F, 1.3F);
    std::vector<float> values(size);
    for (float& value : values) value = around_one(random_);
    writer_->AddTensor(name, gguf::TensorType::kF32, {size}, FloatBytes(values));
  }

  void AddMatrix(const std::string& name, gguf::TensorType type, uint32_t rows, uint32_t cols) {
    std::vector<float> values(size_t{rows} * cols);
    const bool dense = type == gguf::TensorType::kF32 || type == gguf::TensorType::kF16 ||
                       type == gguf::TensorType::kBF16;
    if (!dense && !gguf::HasBlockCodes(type)) {
      // A half can hold the scale, so that every ternary format keeps it.
      const float scale = 0.0625F;
      std::uniform_int_distribution<int> trit(-1, 1);
      for (float& value : values) value = scale * static_cast<float>(trit(random_));
    } else {
      std::normal_distribution<float> normal(0.0F, 0.08F);
      for (float& value : values) value = normal(random_);
    }
    writer_->AddTensor(name, type, {cols, rows}, gguf::EncodeTensor(type, rows, cols, values));
  }

 private:
  gguf::Writer* writer_;
  std::mt19937_64 random_;
};

void SetUint(gguf::Metadata* metadata, const std::string& key, uint64_t value) {
  metadata->Set(key, {gguf::ValueType::kUint32, value});
}

}  // namespace

std::string SharedData(const std::string& name) {
  const char* directory = std::getenv("TERN_TEST_DATA");
  const std::string root =
      directory != nullptr ? directory : std::string(TERN_SOURCE_DIR "/../shared/data");
  return root + "/" + name;
}

bool FileExists(const std::string& path) { return std::filesystem::exists(path); }

std::string BundledModel() { return TERN_SOURCE_DIR "/models/tern-demo-7m-i2_s.gguf"; }
std::string BundledGolden() { return TERN_SOURCE_DIR "/tests/data/models/golden.json"; }

Rig::Rig(const std::string& path, const EngineOptions& options, int threads,
         const std::string& device_name)
    : team(std::make_unique<fabric::WorkerTeam>(threads)) {
  fabric::FabricOptions fabric_options;
  fabric_options.device = device_name;
  device = fabric::CreateDevice(fabric_options, *team);
  model = Model::Load(path, options, *device, *team);
  engine = std::make_unique<Engine>(model, options, *device, *team);
}

Rig::Rig(std::shared_ptr<const Model> a_model, const EngineOptions& options,
         std::unique_ptr<fabric::Device> a_device, std::unique_ptr<fabric::WorkerTeam> a_team)
    : team(std::move(a_team)), device(std::move(a_device)), model(std::move(a_model)) {
  engine = std::make_unique<Engine>(model, options, *device, *team);
}

EngineOptions SmallOptions(KvType type) {
  EngineOptions options;
  options.kv_type = type;
  options.kv_bytes = uint64_t{16} << 20;
  return options;
}

LogitRows RunAlone(Engine& engine, std::span<const TokenId> tokens, size_t first_output,
                   size_t chunk, std::span<const AdapterScale> adapters) {
  std::vector<BlockId> blocks(engine.kv_geometry().BlocksFor(tokens.size()));
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<BlockId>(i);
  LogitRows logits;
  Collector collector(&logits);
  for (size_t first = 0; first < tokens.size(); first += chunk) {
    const size_t count = std::min(chunk, tokens.size() - first);
    std::vector<uint32_t> outputs;
    for (size_t i = 0; i < count; ++i) {
      if (first + i >= first_output) outputs.push_back(static_cast<uint32_t>(i));
    }
    const BatchRow row = {.tokens = tokens.subspan(first, count),
                          .first_position = static_cast<uint32_t>(first),
                          .block_table = blocks,
                          .outputs = outputs,
                          .output_kind = OutputKind::kLogits,
                          .query = {},
                          .adapters = adapters};
    const StepOutput output = engine.Step({.rows = {&row, 1}, .sink = &collector});
    EXPECT_EQ(output.rows[0].status, RowStatus::kOk);
  }
  return logits;
}

std::vector<double> LogSoftmax(std::span<const float> logits) {
  const double best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - best);
  std::vector<double> result;
  for (const float logit : logits) result.push_back(logit - best - std::log(sum));
  return result;
}

gguf::Writer TinyWriter(const TinyShape& shape) {
  gguf::Writer writer;
  gguf::Metadata& metadata = writer.metadata();
  const std::string arch = shape.architecture + ".";
  metadata.Set("general.architecture", {gguf::ValueType::kString, shape.architecture});
  SetUint(&metadata, arch + "block_count", shape.layers);
  SetUint(&metadata, arch + "embedding_length", shape.hidden);
  SetUint(&metadata, arch + "feed_forward_length", shape.ffn);
  SetUint(&metadata, arch + "context_length", shape.context);
  SetUint(&metadata, arch + "vocab_size", shape.vocabulary);
  SetUint(&metadata, arch + "attention.head_count", shape.heads);
  SetUint(&metadata, arch + "attention.head_count_kv", shape.kv_heads);
  SetUint(&metadata, arch + "attention.key_length", shape.head_dim);
  SetUint(&metadata, arch + "rope.dimension_count", shape.head_dim);
  metadata.Set(arch + "attention.layer_norm_rms_epsilon", {gguf::ValueType::kFloat32, 1e-5});

  TensorMaker maker(&writer, shape.seed);
  const uint32_t query_width = shape.heads * shape.head_dim;
  const uint32_t kv_width = shape.kv_heads * shape.head_dim;
  maker.AddMatrix("token_embd.weight", gguf::TensorType::kF16, shape.vocabulary, shape.hidden);
  if (!shape.tied_head) {
    maker.AddMatrix("output.weight", gguf::TensorType::kF16, shape.vocabulary, shape.hidden);
  }
  maker.AddNorm("output_norm.weight", shape.hidden);
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    const auto matrix = [&](const char* name, uint32_t rows, uint32_t cols) {
      maker.AddMatrix(prefix + name, shape.projections, rows, cols);
    };
    maker.AddNorm(prefix + "attn_norm.weight", shape.hidden);
    maker.AddNorm(prefix + "ffn_norm.weight", shape.hidden);
    if (shape.sub_norms) {
      maker.AddNorm(prefix + "attn_sub_norm.weight", query_width);
      maker.AddNorm(prefix + "ffn_sub_norm.weight", shape.ffn);
    }
    matrix("attn_q.weight", query_width, shape.hidden);
    matrix("attn_k.weight", kv_width, shape.hidden);
    matrix("attn_v.weight", kv_width, shape.hidden);
    matrix("attn_output.weight", shape.hidden, query_width);
    matrix("ffn_gate.weight", shape.ffn, shape.hidden);
    matrix("ffn_up.weight", shape.ffn, shape.hidden);
    matrix("ffn_down.weight", shape.hidden, shape.ffn);
  }
  return writer;
}

std::shared_ptr<const Model> LoadBytes(std::span<const std::byte> bytes,
                                       const EngineOptions& options, fabric::Device& device) {
  PackedCache no_cache;
  return LoadBytes(bytes, options, device, no_cache);
}

std::shared_ptr<const Model> LoadBytes(std::span<const std::byte> bytes,
                                       const EngineOptions& options, fabric::Device& device,
                                       PackedCache& cache) {
  const gguf::File file = gguf::File::Parse(bytes);
  ModelConfig config = ModelConfig::FromGguf(file, options);
  Weights weights = LoadWeights(file, config, device, options, cache);
  for (const LoraSource& source : options.lora) {
    weights.adapters.push_back(LoadLora(source, config, weights, device));
  }
  return std::make_shared<const BareModel>(std::move(config), std::move(weights));
}

Rig TinyRig(const TinyShape& shape, const EngineOptions& options, int threads) {
  auto team = std::make_unique<fabric::WorkerTeam>(threads);
  std::unique_ptr<fabric::Device> device = fabric::CreateDevice({}, *team);
  std::shared_ptr<const Model> model = LoadBytes(TinyWriter(shape).Serialize(), options, *device);
  return Rig(std::move(model), options, std::move(device), std::move(team));
}

std::vector<TokenId> RandomTokens(size_t count, uint32_t vocabulary, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<TokenId> any(0, static_cast<TokenId>(vocabulary) - 1);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = any(random);
  return tokens;
}

}  // namespace engine::testing
