// Property: every calibration gives the trits and the scale of its published formula, computed by
// an independent program (calibration_reference.py), whatever the size of the range.

#include "engine/quantize/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/quantize/error.h"

namespace engine::quantize {
namespace {

using testing::HasSubstr;

std::string Letters(const std::vector<int8_t>& trits) {
  std::string letters;
  for (const int8_t trit : trits) letters += "-0+"[trit + 1];
  return letters;
}

TEST(Calibration, EqualsTheIndependentReference) {
  std::ifstream file(TERN_SOURCE_DIR "/tests/data/calibration.json");
  const nlohmann::json golden = nlohmann::json::parse(file);
  const auto inputs = golden["inputs"].get<std::map<std::string, std::vector<float>>>();
  std::map<std::string, int> compared;
  for (const nlohmann::json& expected : golden["cases"]) {
    const std::vector<float>& values = inputs.at(expected["input"]);
    const std::string name = expected["rule"];
    const auto rule = FindCalibration(name);
    ASSERT_TRUE(rule.has_value()) << name;
    std::vector<int8_t> trits(values.size());
    const float scale = Ternarize(values,
                                  {.rule = *rule,
                                   .threshold = expected["threshold"].get<double>(),
                                   .fit_scale = expected["fit_scale"].get<bool>()},
                                  trits);
    EXPECT_EQ(scale, expected["scale"].get<float>()) << expected;
    EXPECT_EQ(Letters(trits), expected["trits"].get<std::string>()) << expected;
    ++compared[name];
  }
  EXPECT_EQ(compared.size(), 6u);
  EXPECT_GE(golden["cases"].size(), 128u);
}

// By hand: mean|w| = 1.25, kept at 0.7 times that are 1, 2 and 1.75.
TEST(Calibration, HandComputedVectors) {
  const std::vector<float> values = {1, -2, 0.25F, 1.75F};
  std::vector<int8_t> trits(4);
  EXPECT_EQ(Ternarize(values, {.rule = Calibration::kAbsmean}, trits), 1.25F);
  EXPECT_EQ(Letters(trits), "+-0+");
  EXPECT_EQ(Ternarize(values, {.rule = Calibration::kTwn}, trits), 4.75F / 3);
  EXPECT_EQ(Letters(trits), "+-0+");
  EXPECT_EQ(Ternarize(values, {.rule = Calibration::kAbsmax}, trits), 2.0F);
  EXPECT_EQ(Letters(trits), "0-0+");  // |w| = max / 2 is a tie and goes to 0, as round-half-even
  EXPECT_EQ(Ternarize(values, {.rule = Calibration::kMinmax}, trits), 1.875F);
  EXPECT_EQ(Letters(trits), "+-0+");
  EXPECT_EQ(Ternarize(values, {.rule = Calibration::kPercentile, .threshold = 50}, trits), 1.875F);
  EXPECT_EQ(Letters(trits), "0-0+");
}

// The counting of large ranges and the sorting of small ones are one definition.
TEST(Calibration, PercentileOfALargeRangeIsTheSortedOne) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> values(200001);
  for (float& value : values) value = normal(random);
  std::vector<float> sorted;
  for (const float value : values) sorted.push_back(std::fabs(value));
  std::sort(sorted.begin(), sorted.end());
  for (const double percent : {0.001, 10.0, 46.0, 99.99, 100.0}) {
    std::vector<int8_t> trits(values.size());
    Ternarize(values, {.rule = Calibration::kPercentile, .threshold = percent}, trits);
    const auto rank = static_cast<size_t>(std::ceil(percent / 100 * 200001)) - 1;
    const auto zeros = static_cast<size_t>(std::count(trits.begin(), trits.end(), 0));
    const auto [first, last] = std::equal_range(sorted.begin(), sorted.end(), sorted[rank]);
    const auto covered = static_cast<size_t>(last - sorted.begin());
    const auto below = static_cast<size_t>(first - sorted.begin());
    const size_t expected = covered > rank + 1 ? below : covered;
    EXPECT_EQ(zeros, expected) << percent;
  }
}

// Lloyd-Max's three levels of a normal distribution: threshold 0.612 sigma, level 1.224 sigma,
// 45.95 % zeros, error 0.1902 of the variance. The defaults of the fitted rules are near it.
TEST(Calibration, DefaultsAreNearTheOptimumOfANormalDistribution) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> values(1 << 18);
  for (float& value : values) value = normal(random);
  for (const Calibration rule :
       {Calibration::kTwn, Calibration::kPercentile, Calibration::kMeanStd}) {
    std::vector<int8_t> trits(values.size());
    const double scale = Ternarize(values, {.rule = rule}, trits);
    double error = 0, squares = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      error += std::pow(values[i] - scale * trits[i], 2);
      squares += std::pow(values[i], 2);
    }
    EXPECT_NEAR(error / squares, 0.1902, 0.003) << CalibrationName(rule);
  }
}

TEST(Calibration, ZerosGiveScaleZero) {
  const std::vector<float> values(10, 0.0F);
  for (const Calibration rule :
       {Calibration::kAbsmean, Calibration::kTwn, Calibration::kPercentile, Calibration::kMeanStd,
        Calibration::kAbsmax, Calibration::kMinmax}) {
    std::vector<int8_t> trits(10, 1);
    EXPECT_EQ(Ternarize(values, {.rule = rule}, trits), 0.0F) << CalibrationName(rule);
    EXPECT_EQ(Letters(trits), "0000000000") << CalibrationName(rule);
  }
}

TEST(Calibration, WeightsThatAreNotFiniteAreRefused) {
  for (const float bad : {std::numeric_limits<float>::infinity(), std::nanf("")}) {
    std::vector<float> values(70000, 0.5F);
    values[69999] = bad;
    std::vector<int8_t> trits(values.size());
    EXPECT_THROW(Ternarize(values, {}, trits), QuantizeError);
  }
}

TEST(Calibration, ThresholdsThatMeanNothingAreRefused) {
  EXPECT_THROW(CheckCalibration({.rule = Calibration::kTwn, .threshold = -1}), QuantizeError);
  EXPECT_THROW(CheckCalibration({.rule = Calibration::kPercentile, .threshold = 101}),
               QuantizeError);
  EXPECT_THROW(CheckCalibration({.rule = Calibration::kAbsmax, .threshold = std::nan("")}),
               QuantizeError);
  CheckCalibration({.rule = Calibration::kMeanStd, .threshold = -1});
}

TEST(ExactScale, OnlyTernaryFloatsHaveOne) {
  EXPECT_EQ(FindExactScale(std::vector<float>{0.5F, 0, -0.5F, 0.5F}), 0.5F);
  EXPECT_EQ(FindExactScale(std::vector<float>{0, -0.0F}), 0.0F);
  EXPECT_EQ(FindExactScale(std::vector<float>{0.5F, 0.25F}), std::nullopt);
  EXPECT_EQ(FindExactScale(std::vector<float>{0, std::nanf("")}), std::nullopt);
}

}  // namespace
}  // namespace engine::quantize
