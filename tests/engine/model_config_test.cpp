// Hyperparameters are read as each architecture means them, and a file that lies or asks for what
// the engine does not do is refused with a sentence that names the key.

#include "engine/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "engine/errors.h"
#include "tests/engine/rig.h"

namespace engine {
namespace {

using ::testing::HasSubstr;
using testing::TinyShape;
using testing::TinyWriter;

gguf::MetadataValue Uint(uint64_t value) { return {gguf::ValueType::kUint32, value}; }
gguf::MetadataValue Float(double value) { return {gguf::ValueType::kFloat32, value}; }
gguf::MetadataValue Text(const char* value) {
  return {gguf::ValueType::kString, std::string(value)};
}

using Change = std::function<void(gguf::Metadata&)>;

ModelConfig Read(const TinyShape& shape, const Change& change = {},
                 const EngineOptions& options = {}) {
  gguf::Writer writer = TinyWriter(shape);
  if (change) change(writer.metadata());
  const std::vector<std::byte> bytes = writer.Serialize();
  return ModelConfig::FromGguf(gguf::File::Parse(bytes), options);
}

TEST(ModelConfig, ReadsTheBundledModel) {
  const ModelConfig config = ModelConfig::FromGguf(gguf::File::Open(testing::BundledModel()), {});
  EXPECT_EQ(config.architecture, "bitnet-b1.58");
  EXPECT_EQ(config.name, "Tern demo 7M");
  EXPECT_EQ(config.layers, 8U);
  EXPECT_EQ(config.hidden, 256U);
  EXPECT_EQ(config.heads, 4U);
  EXPECT_EQ(config.kv_heads, 2U);
  EXPECT_EQ(config.head_dim, 64U);
  EXPECT_EQ(config.ffn, 768U);
  EXPECT_EQ(config.vocabulary, 4096U);
  EXPECT_EQ(config.context_length, 1024U);
  EXPECT_EQ(config.activation, FfnActivation::kReluSquared);
  EXPECT_EQ(config.rope, RopeKind::kNeox);
  EXPECT_TRUE(config.attention_sub_norm);
  EXPECT_TRUE(config.ffn_sub_norm);
  EXPECT_TRUE(config.tied_head);
  EXPECT_FALSE(config.qk_norm);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.ternary_activation, ActivationMode::kToken);
}

TEST(ModelConfig, PoolingIsTheFilesOrLast) {
  const std::string key = TinyShape{}.architecture + ".pooling_type";
  const std::pair<int64_t, Pooling> cases[] = {{-1, Pooling::kLast}, {0, Pooling::kLast},
                                               {1, Pooling::kMean},  {2, Pooling::kCls},
                                               {3, Pooling::kLast},  {4, Pooling::kLast}};
  for (const auto& [type, pooling] : cases) {
    const auto set = [&key, type = type](gguf::Metadata& metadata) {
      metadata.Set(key, {gguf::ValueType::kInt32, type});
    };
    EXPECT_EQ(Read({}, set).pooling, pooling) << type;
  }
  EXPECT_EQ(Read({}).pooling, Pooling::kLast);
}

TEST(ModelConfig, ActivationFollowsTheKeyThenTheArchitecture) {
  TinyShape shape;
  const auto activation = [&](const char* architecture, const char* key = nullptr) {
    shape.architecture = architecture;
    return Read(shape,
                [&](gguf::Metadata& metadata) {
                  if (key != nullptr) {
                    metadata.Set(std::string(architecture) + ".hidden_activation", Text(key));
                  }
                })
        .activation;
  };
  EXPECT_EQ(activation("bitnet-b1.58"), FfnActivation::kReluSquared);
  EXPECT_EQ(activation("bitnet-25"), FfnActivation::kReluSquared);
  EXPECT_EQ(activation("bitnet"), FfnActivation::kSilu);
  EXPECT_EQ(activation("llama"), FfnActivation::kSilu);
  EXPECT_EQ(activation("bitnet", "relu2"), FfnActivation::kReluSquared);
  EXPECT_EQ(activation("bitnet-b1.58", "silu"), FfnActivation::kSilu);
  EXPECT_EQ(activation("gemma3"), FfnActivation::kGelu);
  EXPECT_EQ(activation("llama", "gelu_pytorch_tanh"), FfnActivation::kGelu);
  EXPECT_THROW(activation("bitnet", "gelu"), ModelError);
}

TEST(ModelConfig, GemmasWindowsAndScales) {
  const auto layers = [](uint64_t count, uint64_t window) {
    return [=](gguf::Metadata& metadata) {
      metadata.Set("gemma3.block_count", Uint(count));
      metadata.Set("gemma3.rope.freq_base", {gguf::ValueType::kFloat32, 1e6});
      if (window > 0) metadata.Set("gemma3.attention.sliding_window", Uint(window));
    };
  };
  const ModelConfig plain = Read({.architecture = "gemma3"}, layers(7, 0));
  EXPECT_EQ(plain.embedding_scale, std::sqrt(static_cast<float>(plain.hidden)));
  EXPECT_TRUE(plain.post_norms);
  EXPECT_EQ(plain.sliding_window, 0U);
  EXPECT_EQ(plain.window_rope_base, 0.0);
  for (const LayerKind& kind : plain.layer_kinds) EXPECT_FALSE(kind.windowed);
  EXPECT_EQ(plain.score_dim, 0U);

  const ModelConfig windowed = Read({.architecture = "gemma3"}, layers(7, 16));
  EXPECT_EQ(windowed.sliding_window, 16U);
  EXPECT_EQ(windowed.context_length, plain.context_length);
  EXPECT_EQ(windowed.rope_base, 1e6);
  EXPECT_EQ(windowed.window_rope_base, 10000.0);
  for (size_t i = 0; i < 7; ++i) EXPECT_EQ(windowed.layer_kinds[i].windowed, i != 5) << i;

  const ModelConfig largest = Read({.architecture = "gemma3"}, layers(62, 16));
  EXPECT_EQ(largest.score_dim, largest.hidden / largest.heads);
}

TEST(ModelConfig, Bitnet2BConvertedAsBitnetIsKnownByItsShape) {
  const ModelConfig config = Read({.architecture = "bitnet"}, [](gguf::Metadata& metadata) {
    metadata.Set("bitnet.vocab_size", Uint(128256));
    metadata.Set("bitnet.embedding_length", Uint(2560));
    metadata.Set("bitnet.block_count", Uint(30));
  });
  EXPECT_EQ(config.activation, FfnActivation::kReluSquared);
}

TEST(ModelConfig, RopeOrderFollowsTheArchitecture) {
  EXPECT_EQ(Read({.architecture = "llama"}).rope, RopeKind::kNorm);
  EXPECT_EQ(Read({.architecture = "bitnet"}).rope, RopeKind::kNeox);
  EXPECT_EQ(Read({.architecture = "qwen2"}).rope, RopeKind::kNeox);
  EXPECT_EQ(Read({.architecture = "qwen3"}).rope, RopeKind::kNeox);
}

TEST(ModelConfig, ActivationsOfTernaryTensorsFollowTheModelNotTheFormat) {
  const TinyShape one_scale = {.architecture = "llama",
                               .hidden = 256,
                               .heads = 16,
                               .ffn = 256,
                               .projections = gguf::TensorType::kTQ2_0};
  EXPECT_EQ(Read(one_scale).ternary_activation, ActivationMode::kToken);
  EngineOptions options;
  options.activation = ActivationMode::kFloat;
  EXPECT_EQ(Read(one_scale, {}, options).ternary_activation, ActivationMode::kFloat);
}

TEST(ModelConfig, HeadSizeDefaultsToHiddenOverHeads) {
  const std::string path = testing::SharedData("golden/tiny/tiny-llama-yarn-f32.gguf");
  if (!testing::FileExists(path)) GTEST_SKIP() << "no " << path;
  const ModelConfig config = ModelConfig::FromGguf(gguf::File::Open(path), {});
  EXPECT_EQ(config.head_dim, 64U);
  EXPECT_EQ(config.rope_scaling, RopeScaling::kYarn);
  EXPECT_EQ(config.rope_scaling_factor, 4.0);
  EXPECT_EQ(config.rope_original_context, 128U);
}

TEST(ModelConfig, SlidingWindowBoundsTheContext) {
  EXPECT_EQ(Read({},
                 [](gguf::Metadata& metadata) {
                   metadata.Set("bitnet-b1.58.attention.sliding_window", Uint(128));
                 })
                .context_length,
            128U);
}

TEST(ModelConfig, VocabularyFallsBackToTheTokenList) {
  gguf::MetadataArray tokens;
  tokens.element_type = gguf::ValueType::kString;
  tokens.values = std::vector<std::string>(96, "x");
  gguf::Metadata metadata;
  gguf::Writer writer = TinyWriter({});
  for (const auto& [key, value] : writer.metadata().entries()) {
    if (key != "bitnet-b1.58.vocab_size") metadata.Set(key, value);
  }
  writer.metadata() = metadata;
  const std::vector<std::byte> without = writer.Serialize();
  EXPECT_THROW(ModelConfig::FromGguf(gguf::File::Parse(without), {}), ModelError);
  writer.metadata().Set("tokenizer.ggml.tokens", {gguf::ValueType::kArray, tokens});
  const std::vector<std::byte> with = writer.Serialize();
  EXPECT_EQ(ModelConfig::FromGguf(gguf::File::Parse(with), {}).vocabulary, 96U);
}

TEST(ModelConfig, RefusesWhatItCannotRunNamingTheKey) {
  struct Case {
    const char* key;
    gguf::MetadataValue value;
    const char* named;  // in the message
  };
  const std::vector<Case> cases = {
      {"general.architecture", Text("gemma"), "gemma"},
      {"llama.block_count", Uint(0), "llama.block_count"},
      {"llama.block_count", Uint(1U << 30), "llama.block_count"},
      {"llama.embedding_length", Uint(0), "llama.embedding_length"},
      {"llama.embedding_length", Uint(0xffffffff), "llama.embedding_length"},
      {"llama.feed_forward_length", Uint(0x7fffffff), "llama.feed_forward_length"},
      {"llama.context_length", Uint(0), "llama.context_length"},
      {"llama.vocab_size", Uint(0), "llama.vocab_size"},
      {"llama.attention.head_count", Uint(0), "llama.attention.head_count"},
      {"llama.attention.head_count_kv", Uint(3), "llama.attention.head_count_kv"},
      {"llama.attention.key_length", Uint(15), "15"},
      {"llama.attention.value_length", Uint(8), "llama.attention.value_length"},
      {"llama.attention.layer_norm_rms_epsilon", Float(0), "layer_norm_rms_epsilon"},
      {"llama.attention.layer_norm_rms_epsilon", Float(-1), "layer_norm_rms_epsilon"},
      {"llama.rope.dimension_count", Uint(7), "llama.rope.dimension_count"},
      {"llama.rope.dimension_count", Uint(64), "llama.rope.dimension_count"},
      {"llama.rope.freq_base", Float(-1), "llama.rope.freq_base"},
      {"llama.rope.freq_base", Float(0.5), "llama.rope.freq_base"},
      {"llama.rope.scaling.type", Text("longrope"), "longrope"},
      {"llama.rope.scaling.factor", Float(-2), "llama.rope.scaling.factor"},
      {"llama.expert_count", Uint(8), "llama.expert_count"},
      {"prism.hadamard.version", Uint(2), "prism.hadamard.version"},
  };
  for (const Case& test : cases) {
    try {
      Read({.architecture = "llama"},
           [&](gguf::Metadata& metadata) { metadata.Set(test.key, test.value); });
      ADD_FAILURE() << test.key << " was accepted";
    } catch (const ModelError& error) {
      EXPECT_THAT(error.what(), HasSubstr(test.named));
    }
  }
}

}  // namespace
}  // namespace engine
