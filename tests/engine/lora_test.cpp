// A LoRA adapter makes of the model what merged weights would, each row of a batch has its own
// adapters and the bits that it has alone, and an adapter that does not fit is refused.

#include "engine/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <random>

#include "engine/errors.h"
#include "gguf/codec.h"
#include "tests/engine/rig.h"

namespace engine {
namespace {

using ::testing::HasSubstr;
using testing::LoadBytes;
using testing::LogitRows;
using testing::RandomTokens;
using testing::Rig;
using testing::SmallOptions;
using testing::TinyShape;
using testing::TinyWriter;

constexpr uint32_t kRank = 4;
constexpr float kAlpha = 6.0F;

TinyShape FloatLlama() {
  return {.architecture = "llama", .projections = gguf::TensorType::kF32, .sub_norms = false};
}

std::vector<std::byte> FloatBytes(const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

std::vector<float> Floats(const gguf::File& file, const std::string& name) {
  const gguf::TensorInfo& info = *file.FindTensor(name);
  std::vector<float> values(info.elements());
  for (uint64_t row = 0; row < info.rows(); ++row) {
    gguf::DequantizeRow(info, file.TensorBytes(info), {}, row,
                        std::span(values).subspan(row * info.cols(), info.cols()));
  }
  return values;
}

// An adapter of some of a model's projections, as a file and as numbers.
class TestAdapter {
 public:
  TestAdapter(const gguf::File& model, const std::vector<std::string>& suffixes, uint64_t seed,
              const std::string& architecture = "llama") {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(0.0F, 0.1F);
    writer_.metadata().Set("general.type", {gguf::ValueType::kString, std::string("adapter")});
    writer_.metadata().Set("adapter.type", {gguf::ValueType::kString, std::string("lora")});
    writer_.metadata().Set("general.architecture", {gguf::ValueType::kString, architecture});
    writer_.metadata().Set("adapter.lora.alpha",
                           {gguf::ValueType::kFloat32, static_cast<double>(kAlpha)});
    for (const gguf::TensorInfo& info : model.tensors()) {
      const bool wanted = std::any_of(
          suffixes.begin(), suffixes.end(),
          [&](const std::string& suffix) { return info.name.ends_with(suffix + ".weight"); });
      if (!wanted) continue;
      std::vector<float> a(kRank * info.cols());
      std::vector<float> b(info.rows() * kRank);
      for (float& value : a) value = normal(random);
      for (float& value : b) value = normal(random);
      writer_.AddTensor(info.name + ".lora_a", gguf::TensorType::kF32, {info.cols(), kRank},
                        FloatBytes(a));
      writer_.AddTensor(info.name + ".lora_b", gguf::TensorType::kF32, {kRank, info.rows()},
                        FloatBytes(b));
      factors_[info.name] = {std::move(a), std::move(b)};
    }
  }

  gguf::Writer& writer() { return writer_; }

  // The model with scale * alpha / rank * B A added to its weights, in double.
  gguf::Writer Merge(const gguf::File& model, double scale) const {
    gguf::Writer merged;
    merged.metadata() = model.metadata();
    for (const gguf::TensorInfo& info : model.tensors()) {
      std::vector<uint64_t> extents(info.extents.begin(), info.extents.begin() + info.rank);
      const auto found = factors_.find(info.name);
      if (found == factors_.end()) {
        const auto bytes = model.TensorBytes(info);
        merged.AddTensor(info.name, info.type, extents, {bytes.begin(), bytes.end()});
        continue;
      }
      const auto& [a, b] = found->second;
      std::vector<float> values = Floats(model, info.name);
      for (uint64_t row = 0; row < info.rows(); ++row) {
        for (uint64_t col = 0; col < info.cols(); ++col) {
          double sum = 0;
          for (uint32_t r = 0; r < kRank; ++r) {
            sum += double{b[row * kRank + r]} * double{a[r * info.cols() + col]};
          }
          float& value = values[row * info.cols() + col];
          value = static_cast<float>(double{value} + scale * double{kAlpha} / kRank * sum);
        }
      }
      merged.AddTensor(info.name, gguf::TensorType::kF32, extents, FloatBytes(values));
    }
    return merged;
  }

 private:
  gguf::Writer writer_;
  std::map<std::string, std::pair<std::vector<float>, std::vector<float>>> factors_;
};

// A model on a device with adapters from files in a directory of the test's own.
class Lora : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = ::testing::TempDir() + "lora_test_" +
                 ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(directory_);
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string Save(const std::string& name, const gguf::Writer& writer) {
    const std::string path = directory_ + "/" + name;
    const std::vector<std::byte> bytes = writer.Serialize();
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }

  static Rig RigOf(const gguf::Writer& model, const EngineOptions& options, int threads = 1) {
    auto team = std::make_unique<fabric::WorkerTeam>(threads);
    std::unique_ptr<fabric::Device> device = fabric::CreateDevice({}, *team);
    auto loaded = LoadBytes(model.Serialize(), options, *device);
    return Rig(std::move(loaded), options, std::move(device), std::move(team));
  }

  // The error of loading `adapter` beside a tiny llama; empty when it loads.
  std::string LoadError(const gguf::Writer& adapter) {
    EngineOptions options = SmallOptions(KvType::kF32);
    options.lora = {{.path = Save("bad.gguf", adapter)}};
    try {
      RigOf(TinyWriter(FloatLlama()), options);
      return "";
    } catch (const ModelError& error) {
      return error.what();
    }
  }

  std::string directory_;
};

// One row: a sequence with adapters of its own.
struct Chosen {
  std::vector<TokenId> tokens;
  std::vector<AdapterScale> adapters;
  LogitRows logits = {};
};

class ChosenSink : public LogitsSink {
 public:
  explicit ChosenSink(std::span<Chosen> rows) : rows_(rows) {}
  void OnLogits(size_t row, size_t, std::span<float> logits) override {
    rows_[row].logits.emplace_back(logits.begin(), logits.end());
  }

 private:
  std::span<Chosen> rows_;
};

// All rows in one step, logits of every position.
void StepTogether(Engine& engine, std::span<Chosen> chosen) {
  std::vector<BatchRow> rows(chosen.size());
  std::vector<std::vector<uint32_t>> outputs(chosen.size());
  std::vector<std::vector<BlockId>> tables(chosen.size());
  BlockId next = 0;
  for (size_t i = 0; i < chosen.size(); ++i) {
    const size_t count = chosen[i].tokens.size();
    outputs[i].resize(count);
    std::iota(outputs[i].begin(), outputs[i].end(), 0U);
    tables[i].resize(engine.kv_geometry().BlocksFor(count));
    for (BlockId& block : tables[i]) block = next++;
    rows[i].tokens = chosen[i].tokens;
    rows[i].block_table = tables[i];
    rows[i].outputs = outputs[i];
    rows[i].output_kind = OutputKind::kLogits;
    rows[i].adapters = chosen[i].adapters;
  }
  ChosenSink sink(chosen);
  for (const RowOutput& row : engine.Step({.rows = rows, .sink = &sink}).rows) {
    ASSERT_EQ(row.status, RowStatus::kOk);
  }
}

LogitRows Alone(Engine& engine, const std::vector<TokenId>& tokens,
                const std::vector<AdapterScale>& adapters) {
  Chosen chosen{.tokens = tokens, .adapters = adapters};
  StepTogether(engine, {&chosen, 1});
  return chosen.logits;
}

struct Delta {
  double max = 0;
  double mean = 0;
};

Delta Compare(const LogitRows& a, const LogitRows& b) {
  Delta delta;
  size_t count = 0;
  for (size_t row = 0; row < a.size(); ++row) {
    for (size_t i = 0; i < a[row].size(); ++i) {
      const double difference = std::abs(double{a[row][i]} - double{b[row][i]});
      delta.max = std::max(delta.max, difference);
      delta.mean += difference;
      ++count;
    }
  }
  delta.mean /= static_cast<double>(count);
  return delta;
}

const std::vector<std::string> kAllProjections = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                  "ffn_gate", "ffn_up", "ffn_down"};

TEST_F(Lora, GivesTheLogitsOfMergedWeights) {
  const std::vector<std::byte> bytes = TinyWriter(FloatLlama()).Serialize();
  const gguf::File model = gguf::File::Parse(bytes);
  for (const std::vector<std::string>& projections :
       {kAllProjections, {"attn_q"}, {"ffn_up"}, {"ffn_gate", "ffn_down"}}) {
    TestAdapter adapter(model, projections, 3);
    EngineOptions options = SmallOptions(KvType::kF32);
    options.lora = {{.path = Save("a.gguf", adapter.writer())}};
    Rig adapted = RigOf(TinyWriter(FloatLlama()), options);
    const std::vector<TokenId> tokens = RandomTokens(40, 96, 9);
    const LogitRows plain = Alone(*adapted.engine, tokens, {});
    for (const float scale : {1.0F, 0.5F, -2.0F}) {
      Rig merged = RigOf(adapter.Merge(model, double{scale}), SmallOptions(KvType::kF32));
      const LogitRows expected = Alone(*merged.engine, tokens, {});
      const LogitRows actual = Alone(*adapted.engine, tokens, {{0, scale}});
      const Delta delta = Compare(actual, expected);
      std::printf("%s, scale %g: max %.2e, mean %.2e; effect %.2e\n", projections[0].c_str(),
                  double{scale}, delta.max, delta.mean, Compare(plain, expected).max);
      EXPECT_LE(delta.max, 1e-3);
      EXPECT_LE(delta.mean, 1e-4);
      EXPECT_GT(Compare(plain, expected).max, 0.05) << "the adapter changes nothing";
    }
  }
}

TEST_F(Lora, RowsWithDifferentAdaptersKeepTheirBitsInOneStep) {
  for (const gguf::TensorType type : {gguf::TensorType::kF32, gguf::TensorType::kI2_S}) {
    TinyShape shape = FloatLlama();
    shape.projections = type;
    const std::vector<std::byte> bytes = TinyWriter(shape).Serialize();
    const gguf::File model = gguf::File::Parse(bytes);
    EngineOptions options = SmallOptions();
    options.lora = {
        {.path = Save("every.gguf", TestAdapter(model, kAllProjections, 3).writer())},
        {.path = Save("some.gguf", TestAdapter(model, {"attn_v", "ffn_up"}, 4).writer())}};
    Rig solo = RigOf(TinyWriter(shape), options);
    Rig plain = RigOf(TinyWriter(shape), SmallOptions());
    for (const int threads : {1, 2}) {
      Rig rig = RigOf(TinyWriter(shape), options, threads);
      std::vector<Chosen> rows = {{RandomTokens(33, 96, 1), {{0, 1.0F}}},
                                  {RandomTokens(1, 96, 2), {}},
                                  {RandomTokens(70, 96, 3), {}},
                                  {RandomTokens(20, 96, 4), {{0, 0.5F}, {1, -1.5F}}},
                                  {RandomTokens(5, 96, 5), {{1, 2.0F}}},
                                  {RandomTokens(1, 96, 6), {{0, 1.0F}}}};
      StepTogether(*rig.engine, rows);
      for (const Chosen& row : rows) {
        EXPECT_TRUE(row.logits == Alone(*solo.engine, row.tokens, row.adapters));
        if (row.adapters.empty()) {
          EXPECT_TRUE(row.logits == Alone(*plain.engine, row.tokens, {}));
        }
      }
    }
  }
}

TEST_F(Lora, ReadsItsMetadata) {
  const std::vector<std::byte> bytes = TinyWriter(FloatLlama()).Serialize();
  TestAdapter adapter(gguf::File::Parse(bytes), {"attn_q"}, 3);
  adapter.writer().metadata().Set("adapter.lora.task_name",
                                  {gguf::ValueType::kString, std::string("poems")});
  EngineOptions options = SmallOptions();
  options.lora = {{.path = Save("verse.gguf", adapter.writer()), .scale = 0.25F},
                  {.path = Save("verse.gguf", adapter.writer()), .scale = 0}};
  const Rig rig = RigOf(TinyWriter(FloatLlama()), options);
  const Weights& weights = rig.model->weights();
  ASSERT_EQ(weights.adapters.size(), 2U);
  EXPECT_EQ(weights.adapters[0].name, "verse");
  EXPECT_EQ(weights.adapters[0].task_name, "poems");
  EXPECT_EQ(weights.adapters[0].pairs.size(), 2U);
  EXPECT_EQ(weights.adapters[0].resident_bytes, 2 * kRank * (128 + 128) * sizeof(float));
  EXPECT_EQ(DefaultAdapters(weights), (std::vector<AdapterScale>{{0, 0.25F}}));
}

TEST_F(Lora, RefusesWhatDoesNotFit) {
  const std::vector<std::byte> bytes = TinyWriter(FloatLlama()).Serialize();
  const gguf::File model = gguf::File::Parse(bytes);
  const auto fresh = [&] { return TestAdapter(model, {"attn_q"}, 3); };
  EXPECT_EQ(LoadError(fresh().writer()), "");

  EXPECT_THAT(LoadError(TestAdapter(model, {"attn_q"}, 3, "qwen2").writer()),
              HasSubstr("must have general.architecture = \"llama\", but the file says \"qwen2\""));
  EXPECT_THAT(
      LoadError(TinyWriter(FloatLlama())),
      HasSubstr("must have general.type = \"adapter\", but the file does not have the key"));
  TestAdapter other_kind = fresh();
  other_kind.writer().metadata().Set("adapter.type",
                                     {gguf::ValueType::kString, std::string("dora")});
  EXPECT_THAT(LoadError(other_kind.writer()),
              HasSubstr("must have adapter.type = \"lora\", but the file says \"dora\""));
  TestAdapter activated = fresh();
  activated.writer().metadata().Set("adapter.alora.invocation_tokens",
                                    {gguf::ValueType::kUint32, uint64_t{1}});
  EXPECT_THAT(LoadError(activated.writer()), HasSubstr("activated by tokens in the prompt"));

  TestAdapter embedding = fresh();
  embedding.writer().AddTensor("token_embd.weight.lora_a", gguf::TensorType::kF32, {96, 4},
                               FloatBytes(std::vector<float>(96 * 4)));
  EXPECT_THAT(LoadError(embedding.writer()),
              HasSubstr("has token_embd.weight.lora_a, but no token_embd.weight.lora_b"));
  embedding.writer().AddTensor("token_embd.weight.lora_b", gguf::TensorType::kF32, {4, 128},
                               FloatBytes(std::vector<float>(128 * 4)));
  EXPECT_THAT(LoadError(embedding.writer()),
              HasSubstr("changes token_embd.weight, which is not a projection"));
  TestAdapter norm = fresh();
  norm.writer().AddTensor("blk.0.attn_norm.weight", gguf::TensorType::kF32, {128},
                          FloatBytes(std::vector<float>(128)));
  EXPECT_THAT(LoadError(norm.writer()), HasSubstr("has the tensor blk.0.attn_norm.weight"));

  TinyShape wide = FloatLlama();
  wide.hidden = 256;
  const std::vector<std::byte> wide_bytes = TinyWriter(wide).Serialize();
  EXPECT_THAT(LoadError(TestAdapter(gguf::File::Parse(wide_bytes), {"attn_q"}, 3).writer()),
              HasSubstr("blk.0.attn_q.weight.lora_a is 4 x 256 (rows x columns), but "
                        "blk.0.attn_q.weight needs 4 x 128"));
}

TEST(AdapterSetKey, TellsSetsApart) {
  EXPECT_EQ(AdapterSetKey({}), "");
  const std::vector<AdapterScale> one = {{0, 1.0F}};
  const std::vector<AdapterScale> half = {{0, 0.5F}};
  const std::vector<AdapterScale> other = {{1, 1.0F}};
  const std::vector<AdapterScale> both = {{0, 1.0F}, {1, 1.0F}};
  EXPECT_EQ(AdapterSetKey(one), AdapterSetKey(std::vector<AdapterScale>{{0, 1.0F}}));
  EXPECT_NE(AdapterSetKey(one), AdapterSetKey(half));
  EXPECT_NE(AdapterSetKey(one), AdapterSetKey(other));
  EXPECT_NE(AdapterSetKey(one), AdapterSetKey(both));
}

}  // namespace
}  // namespace engine
