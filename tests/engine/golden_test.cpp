// A model's log-probabilities equal those of an independent implementation along a given
// continuation: float paths closely, int8 paths on average (docs/decisions.md, "Golden files").

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/engine/rig.h"

namespace engine {
namespace {

using testing::BundledGolden;
using testing::BundledModel;
using testing::FileExists;
using testing::LogSoftmax;
using testing::Rig;
using testing::RunAlone;
using testing::SharedData;
using testing::SmallOptions;

// How far a model is from a golden file, over all cases, steps and reported tokens.
struct Distance {
  double mean = 0;
  double max = 0;
  size_t count = 0;
  size_t argmax_misses = 0;  // where the golden margin is above 0.3
};

Distance Compare(Engine& engine, const std::string& golden_path,
                 std::span<const AdapterScale> adapters = {}) {
  std::ifstream stream(golden_path);
  const nlohmann::json golden = nlohmann::json::parse(stream);
  Distance distance;
  double sum = 0;
  for (const auto& [name, entry] : golden.items()) {
    auto tokens = entry.at("prompt").get<std::vector<TokenId>>();
    const size_t prompt = tokens.size();
    const auto forced = entry.at("tokens").get<std::vector<TokenId>>();
    tokens.insert(tokens.end(), forced.begin(), forced.end() - 1);
    const testing::LogitRows logits = RunAlone(engine, tokens, prompt - 1, 64, adapters);
    const nlohmann::json& top = entry.at("top");
    EXPECT_EQ(logits.size(), top.size()) << name;
    for (size_t step = 0; step < logits.size(); ++step) {
      const std::vector<double> logprobs = LogSoftmax(logits[step]);
      for (const nlohmann::json& pair : top[step]) {
        const double delta = std::abs(logprobs[pair[0].get<size_t>()] - pair[1].get<double>());
        distance.max = std::max(distance.max, delta);
        sum += delta;
        ++distance.count;
      }
      const double margin = top[step][0][1].get<double>() - top[step][1][1].get<double>();
      const auto best = std::max_element(logprobs.begin(), logprobs.end()) - logprobs.begin();
      if (margin > 0.3 && best != top[step][0][0].get<std::ptrdiff_t>()) ++distance.argmax_misses;
    }
  }
  distance.mean = sum / static_cast<double>(distance.count);
  return distance;
}

std::string Describe(const Distance& distance) {
  return "mean " + std::to_string(distance.mean) + ", max " + std::to_string(distance.max) +
         " over " + std::to_string(distance.count) + " log-probabilities, " +
         std::to_string(distance.argmax_misses) + " argmax misses";
}

class TinyGolden : public ::testing::TestWithParam<const char*> {
 protected:
  Distance Run(const EngineOptions& options) {
    const std::string base = SharedData("golden/tiny/") + GetParam();
    Rig rig(base + ".gguf", options);
    const Distance distance = Compare(*rig.engine, base + ".json");
    RecordProperty("distance", Describe(distance));
    std::printf("%s: %s\n", GetParam(), Describe(distance).c_str());
    return distance;
  }
  void SetUp() override {
    if (!FileExists(SharedData("golden/tiny"))) {
      GTEST_SKIP() << "no shared data at " << SharedData("");
    }
  }
};

using TinyFloatGolden = TinyGolden;
TEST_P(TinyFloatGolden, EveryLogprobIsWithinOneThousandth) {
  const Distance distance = Run(SmallOptions(KvType::kF32));
  EXPECT_LE(distance.max, 1e-3);
  EXPECT_EQ(distance.argmax_misses, 0U);
}
INSTANTIATE_TEST_SUITE_P(Files, TinyFloatGolden,
                         ::testing::Values("tiny-llama-f32", "tiny-bitnet-silu-f32",
                                           "tiny-llama-linear-f32", "tiny-llama-yarn-f32",
                                           "tiny-llama-ternary-f32", "tiny-qwen2-f32",
                                           "tiny-qwen3-f32", "tiny-qwen3-hd128-f32"));

using TinyQuantisedGolden = TinyGolden;
TEST_P(TinyQuantisedGolden, MeanLogprobIsWithinEightHundredths) {
  EXPECT_LE(Run(SmallOptions(KvType::kF32)).mean, 0.08);
}
INSTANTIATE_TEST_SUITE_P(Files, TinyQuantisedGolden,
                         ::testing::Values("tiny-llama-ternary-TQ1_0", "tiny-llama-ternary-TQ2_0",
                                           "tiny-llama-Q8_0", "tiny-llama-Q6_K",
                                           "tiny-llama-Q5_K_M", "tiny-llama-Q4_K_M"));

// Models that tests/reference/generate.py made, and what its plain Python says of them.
std::string ArchGolden(const std::string& name) {
  return TERN_SOURCE_DIR "/tests/data/golden/arch/" + name;
}

void ExpectFloatMatch(const std::string& label, const Distance& distance) {
  std::printf("%s: %s\n", label.c_str(), Describe(distance).c_str());
  EXPECT_GT(distance.count, 500U);
  EXPECT_LE(distance.max, 1e-3);
  EXPECT_LE(distance.mean, 1e-4);
  EXPECT_EQ(distance.argmax_misses, 0U);
}

TEST(ReferenceGolden, TwoLoraAdaptersOverLlama) {
  EngineOptions options = SmallOptions(KvType::kF32);
  options.lora = {{.path = ArchGolden("lora-every.gguf")}, {.path = ArchGolden("lora-some.gguf")}};
  Rig rig(ArchGolden("llama.gguf"), options);
  ExpectFloatMatch("llama", Compare(*rig.engine, ArchGolden("llama.json")));
  const std::vector<AdapterScale> both = {{0, 0.5F}, {1, -0.75F}};
  ExpectFloatMatch("llama with adapters",
                   Compare(*rig.engine, ArchGolden("llama-lora.json"), both));
}

TEST(ReferenceGolden, RotatedWeightsMeanWhatTheUnrotatedDo) {
  Rig rig(ArchGolden("llama-hadamard.gguf"), SmallOptions(KvType::kF32));
  ExpectFloatMatch("llama, rotated", Compare(*rig.engine, ArchGolden("llama.json")));
}

TEST(ReferenceGolden, GatedDeltaNetAndGatedAttention) {
  for (const char* name : {"qwen35", "qwen35-hadamard"}) {
    Rig rig(ArchGolden(std::string(name) + ".gguf"), SmallOptions(KvType::kF32));
    ExpectFloatMatch(name, Compare(*rig.engine, ArchGolden("qwen35.json")));
  }
}

TEST(ReferenceGolden, MixtureOfExpertsWithSlidingWindows) {
  Rig rig(ArchGolden("maple.gguf"), SmallOptions(KvType::kF32));
  ExpectFloatMatch("maple", Compare(*rig.engine, ArchGolden("maple.json")));
}

TEST(ReferenceGolden, NormsAfterBlocksAndTwoRotations) {
  Rig rig(ArchGolden("gemma3.gguf"), SmallOptions(KvType::kF32));
  ExpectFloatMatch("gemma3", Compare(*rig.engine, ArchGolden("gemma3.json")));
}

TEST(DemoGolden, BundledModelMatchesItsTrainingCode) {
  for (const KvType type : {KvType::kF32, KvType::kF16}) {
    Rig rig(BundledModel(), SmallOptions(type));
    const Distance distance = Compare(*rig.engine, BundledGolden());
    std::printf("i2_s, %s KV: %s\n", type == KvType::kF32 ? "f32" : "f16",
                Describe(distance).c_str());
    EXPECT_LE(distance.mean, 0.03);
    EXPECT_EQ(distance.argmax_misses, 0U);
  }
}

TEST(DemoGolden, FloatFileMatchesTheFloatForward) {
  const std::string path = SharedData("models/tern-demo-7m-f16.gguf");
  if (!FileExists(path)) GTEST_SKIP() << "no " << path;
  Rig exact(path, SmallOptions(KvType::kF32));
  const Distance distance = Compare(*exact.engine, SharedData("models/golden_float.json"));
  std::printf("f16 file, f32 KV: %s\n", Describe(distance).c_str());
  EXPECT_LE(distance.max, 1e-3);
  EXPECT_EQ(distance.argmax_misses, 0U);

  Rig rounded(path, SmallOptions(KvType::kF16));
  const Distance with_half_kv = Compare(*rounded.engine, SharedData("models/golden_float.json"));
  std::printf("f16 file, f16 KV: %s\n", Describe(with_half_kv).c_str());
  EXPECT_LE(with_half_kv.mean, 1e-2);
}

TEST(DemoGolden, ThreeTernaryFormatsGiveTheSameBits) {
  const std::string other = SharedData("models/tern-demo-7m-tq1_0.gguf");
  if (!FileExists(other)) GTEST_SKIP() << "no " << other;
  const std::vector<TokenId> tokens = testing::RandomTokens(300, 4096, 7);
  Rig bundled(BundledModel(), SmallOptions());
  const testing::LogitRows expected = RunAlone(*bundled.engine, tokens, 0);
  for (const char* name : {"tq1_0", "tq2_0"}) {
    Rig rig(SharedData("models/tern-demo-7m-") + name + ".gguf", SmallOptions());
    EXPECT_TRUE(RunAlone(*rig.engine, tokens, 0) == expected) << name;
  }
}

}  // namespace
}  // namespace engine
