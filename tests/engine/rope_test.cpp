// Rotary tables follow the published formulas of plain, linear, YaRN and per-frequency scaling.

#include "engine/rope.h"

#include <gtest/gtest.h>

#include <cmath>

namespace engine {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.rope_dim = 64;
  config.rope_base = 10000.0;
  config.rope_original_context = 128;
  return config;
}

// Checks that pair i turns by position * frequency(i) and is scaled by `magnitude`.
template <typename Frequency>
void ExpectFrequencies(const RopeTable& table, const Frequency& frequency, double magnitude) {
  std::vector<float> cosines(table.pairs());
  std::vector<float> sines(table.pairs());
  for (const uint32_t position : {0U, 1U, 77U, 4095U, 1'000'000U}) {
    table.Fill(position, cosines.data(), sines.data());
    for (uint32_t i = 0; i < table.pairs(); ++i) {
      const double angle = position * frequency(i);
      EXPECT_NEAR(cosines[i], magnitude * std::cos(angle), 2e-7) << position << " " << i;
      EXPECT_NEAR(sines[i], magnitude * std::sin(angle), 2e-7) << position << " " << i;
    }
  }
}

double Plain(uint32_t i) { return std::pow(10000.0, -2.0 * i / 64); }

TEST(RopeTable, PlainAndLinear) {
  ModelConfig config = Config();
  ExpectFrequencies(RopeTable(config, {}), Plain, 1.0);
  config.rope_scaling = RopeScaling::kLinear;
  config.rope_scaling_factor = 4.0;
  ExpectFrequencies(
      RopeTable(config, {}), [](uint32_t i) { return Plain(i) / 4; }, 1.0);
}

TEST(RopeTable, FactorsDivideTheirFrequency) {
  std::vector<float> factors(32, 1.0F);
  factors[3] = 8.0F;
  ExpectFrequencies(
      RopeTable(Config(), factors), [](uint32_t i) { return i == 3 ? Plain(i) / 8 : Plain(i); },
      1.0);
}

TEST(RopeTable, YarnKeepsFastPairsAndInterpolatesSlowOnes) {
  ModelConfig config = Config();
  config.rope_scaling = RopeScaling::kYarn;
  config.rope_scaling_factor = 4.0;
  const double magnitude = 1.0 + 0.1 * std::log(4.0);
  // Rotations within 128 positions: 32 at pair -1.57, so low is 0; 1 at pair 10.47, so high is 11.
  ExpectFrequencies(
      RopeTable(config, {}),
      [](uint32_t i) {
        const double keep = 1.0 - std::min(1.0, i / 11.0);
        return Plain(i) / 4 * (1 - keep) + Plain(i) * keep;
      },
      magnitude);
  config.rope_attention_factor = 0.5;
  std::vector<float> cosines(32);
  std::vector<float> sines(32);
  RopeTable(config, {}).Fill(0, cosines.data(), sines.data());
  EXPECT_NEAR(cosines[0], 0.5 * magnitude, 1e-7);
}

}  // namespace
}  // namespace engine
