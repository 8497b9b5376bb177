// The search for scales of block types: bytes hold what was chosen, the error is below that of
// plain rounding in every block and near the known figures on a bell curve, what a type holds
// exactly comes back, and extreme blocks stay finite.
#include "gguf/level_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "gguf/block_codec.h"
#include "gguf/codec.h"
#include "gguf/writer.h"

namespace gguf {
namespace {

// The formats as docs of their makers have them, apart from what the encoders say.
struct Format {
  TensorType type;
  LevelShape shape;
  float bell_error;         // |x - y| / |x| of normal values, at most
  float of_plain_rounding;  // weighted squared error against plain rounding's, at most
};

const Format kFormats[] = {
    {TensorType::kQ2_K, {256, 16, 0, 3, 0, 15, 15}, 0.268f, 0.82f},
    {TensorType::kQ3_K, {256, 16, -4, 3, -32, 31}, 0.147f, 0.90f},
    {TensorType::kQ4_K, {256, 32, 0, 15, 0, 63, 63}, 0.0715f, 0.87f},
    {TensorType::kQ5_K, {256, 32, 0, 31, 0, 63, 63}, 0.0353f, 0.87f},
    {TensorType::kQ6_K, {256, 16, -32, 31, -128, 127}, 0.0176f, 0.89f},
    {TensorType::kIQ4_NL, {32, 32, -127, 113, 1, 1, 0, &kNonlinearLevels}, 0.0750f, 0.85f},
    {TensorType::kIQ4_XS, {256, 32, -127, 113, -32, 31, 0, &kNonlinearLevels}, 0.0755f, 0.87f},
};

TensorInfo InfoOf(TensorType type, uint64_t cols) {
  TensorInfo info;
  info.name = "t";
  info.type = type;
  info.extents = {cols, 1, 1, 1};
  info.rank = 2;
  info.byte_size = TensorByteSize(type, 1, cols);
  return info;
}

std::vector<float> RoundTrip(TensorType type, std::span<const float> values) {
  const std::vector<std::byte> bytes = EncodeTensor(type, 1, values.size(), values);
  std::vector<float> back(values.size());
  DequantizeRow(InfoOf(type, values.size()), bytes, {}, 0, back);
  return back;
}

using Draw = std::function<float(std::mt19937*)>;

float Normal(std::mt19937* random) {
  // A sum of twelve: the same numbers with every standard library.
  float sum = -6;
  for (int i = 0; i < 12; ++i) sum += static_cast<float>((*random)()) * 0x1p-32f;
  return sum;
}

std::vector<float> Sample(size_t count, uint32_t seed, const Draw& draw) {
  std::mt19937 random(seed);
  std::vector<float> values(count);
  for (float& value : values) value = draw(&random);
  return values;
}

const std::pair<const char*, Draw> kShapes[] = {
    {"bell", [](std::mt19937* random) { return 0.02f * Normal(random); }},
    {"heavy tails",
     [](std::mt19937* random) {
       const float value = Normal(random);
       return value * value * value;
     }},
    {"even",
     [](std::mt19937* random) { return static_cast<float>((*random)()) * 0x1p-32f - 0.5f; }},
    {"one-sided", [](std::mt19937* random) { return std::fabs(Normal(random)) + 0.1f; }},
    {"other side", [](std::mt19937* random) { return -std::fabs(Normal(random)); }},
    {"half zeros",
     [](std::mt19937* random) { return (*random)() % 2 == 0 ? 0.0f : Normal(random); }},
};

float LevelOf(const LevelShape& shape, int code) {
  return shape.levels != nullptr ? (*shape.levels)[static_cast<size_t>(code)]
                                 : static_cast<float>(code + shape.lowest_level);
}

// What a block's choices stand for.
float WeightOf(const LevelShape& shape, const LevelBlock& block, int i) {
  const auto sub = static_cast<size_t>(i / shape.sub_block);
  const float scale = block.scale * static_cast<float>(block.sub_scales[sub]);
  const float minimum = block.minimum * static_cast<float>(block.sub_mins[sub]);
  const float product = scale * LevelOf(shape, block.codes[static_cast<size_t>(i)]);
  return shape.highest_min > 0 ? product - minimum : product;
}

TEST(LevelSearch, BytesHoldWhatWasChosen) {
  for (const Format& format : kFormats) {
    const LevelShape& shape = format.shape;
    const auto cols = static_cast<size_t>(shape.values);
    const auto sub_blocks = static_cast<size_t>(shape.values / shape.sub_block);
    for (const auto& [name, draw] : kShapes) {
      SCOPED_TRACE(std::string(TypeName(format.type)) + ", " + name);
      for (uint32_t seed = 0; seed < 20; ++seed) {
        const std::vector<float> values = Sample(cols, seed, draw);
        const LevelBlock chosen = ChooseLevels(shape, values.data());
        const std::vector<std::byte> bytes = EncodeTensor(format.type, 1, cols, values);
        BlockCodes codes;
        ReadBlockCodes(InfoOf(format.type, cols), bytes, 0, &codes);
        ASSERT_EQ(HalfToFloat(codes.scales[0]), chosen.scale);
        ASSERT_EQ(codes.mins.empty(), shape.highest_min == 0);
        const bool has_minimum = !codes.mins.empty();
        ASSERT_EQ(has_minimum ? HalfToFloat(codes.mins[0]) : 0, chosen.minimum);
        ASSERT_EQ(codes.sub_scales.size(), shape.lowest_scale == 1 ? 0 : sub_blocks);
        for (size_t sub = 0; sub < codes.sub_scales.size(); ++sub) {
          ASSERT_EQ(codes.sub_scales[sub], chosen.sub_scales[sub]) << sub;
          ASSERT_EQ(has_minimum ? codes.sub_mins[sub] : 0, -chosen.sub_mins[sub]) << sub;
        }
        const std::vector<float> back = RoundTrip(format.type, values);
        for (size_t i = 0; i < cols; ++i) {
          ASSERT_EQ(codes.codes[i], chosen.codes[i]) << i;
          ASSERT_EQ(back[i], WeightOf(shape, chosen, static_cast<int>(i))) << i;
        }
      }
    }
  }
}

// Every integer in range, at every place: blocks made by hand come back from their bytes, whatever
// the search would choose for them.
TEST(LevelSearch, WhatATypeHoldsComesBack) {
  std::mt19937 random(3);
  for (const Format& format : kFormats) {
    const LevelShape& shape = format.shape;
    const int levels = shape.levels != nullptr ? 16 : shape.highest_level - shape.lowest_level + 1;
    for (int round = 0; round < 50; ++round) {
      // One integer scale everywhere and the whole range of levels in each sub-block: there is one
      // best choice, without any error.
      LevelBlock block;
      block.scale =
          std::ldexp(shape.lowest_scale < 0 ? -1.0f : 1.0f, -static_cast<int>(random() % 8));
      block.minimum = shape.highest_min > 0 ? block.scale : 0;
      block.sub_scales.fill(
          static_cast<int8_t>(shape.lowest_scale < 0 ? shape.lowest_scale : shape.highest_scale));
      block.sub_mins.fill(static_cast<int8_t>(shape.highest_min));
      std::vector<float> values(static_cast<size_t>(shape.values));
      for (int i = 0; i < shape.values; ++i) {
        const int place = i % shape.sub_block;
        const int code = place == 0   ? 0
                         : place == 1 ? levels - 1
                                      : static_cast<int>(random() % static_cast<uint32_t>(levels));
        block.codes[static_cast<size_t>(i)] = static_cast<uint8_t>(code);
        values[static_cast<size_t>(i)] = WeightOf(shape, block, i);
      }
      ASSERT_EQ(RoundTrip(format.type, values), values) << TypeName(format.type) << " " << round;
    }
  }
}

double WeightedError(std::span<const float> values, std::span<const float> back) {
  double squares = 0;
  for (const float value : values) squares += double{value} * value;
  const double rms = std::sqrt(squares / static_cast<double>(values.size()));
  double error = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double difference = double{back[i]} - values[i];
    error += (std::fabs(values[i]) + rms) * difference * difference;
  }
  return error;
}

// Without a search: the range of a sub-block over its levels, the largest such scale over the
// largest integer, everything to the nearest.
std::vector<float> PlainRounding(const LevelShape& shape, std::span<const float> values) {
  const auto width = static_cast<size_t>(shape.sub_block);
  std::vector<float> scales, minimums;
  for (size_t first = 0; first < values.size(); first += width) {
    const auto [low, high] = std::ranges::minmax(values.subspan(first, width));
    minimums.push_back(shape.highest_min > 0 ? std::max(0.0f, -low) : 0);
    const float extreme = std::fabs(low) >= std::fabs(high) ? low : high;
    scales.push_back(shape.highest_min > 0 ? (std::max(high, 0.0f) + minimums.back()) /
                                                 static_cast<float>(shape.highest_level)
                                           : extreme / static_cast<float>(shape.lowest_level));
  }
  const auto by_size = [](float a, float b) { return std::fabs(a) < std::fabs(b); };
  const int reach = shape.lowest_scale < 0 ? shape.lowest_scale : shape.highest_scale;
  const float unit = HalfToFloat(
      FloatToHalf(*std::ranges::max_element(scales, by_size) / static_cast<float>(reach)));
  const float min_unit = shape.highest_min == 0
                             ? 0
                             : HalfToFloat(FloatToHalf(std::ranges::max(minimums) /
                                                       static_cast<float>(shape.highest_min)));
  std::vector<float> back;
  for (size_t i = 0; i < values.size(); ++i) {
    const float scale = unit * std::clamp(std::nearbyint(unit == 0 ? 0 : scales[i / width] / unit),
                                          static_cast<float>(shape.lowest_scale),
                                          static_cast<float>(shape.highest_scale));
    const float minimum =
        min_unit * std::nearbyint(min_unit == 0 ? 0 : minimums[i / width] / min_unit);
    float best = HUGE_VALF;
    const int levels = shape.levels != nullptr ? 16 : shape.highest_level - shape.lowest_level + 1;
    for (int code = 0; code < levels; ++code) {
      const float value = scale * LevelOf(shape, code) - minimum;
      if (std::fabs(value - values[i]) < std::fabs(best - values[i])) best = value;
    }
    back.push_back(best);
  }
  return back;
}

TEST(LevelSearch, ErrsLessThanPlainRoundingInEveryBlock) {
  for (const Format& format : kFormats) {
    const auto cols = static_cast<size_t>(format.shape.values);
    for (const auto& [name, draw] : kShapes) {
      SCOPED_TRACE(std::string(TypeName(format.type)) + ", " + name);
      double searched = 0, plain = 0;
      for (uint32_t seed = 0; seed < 60; ++seed) {
        const std::vector<float> values = Sample(cols, seed, draw);
        const double error = WeightedError(values, RoundTrip(format.type, values));
        const double other = WeightedError(values, PlainRounding(format.shape, values));
        EXPECT_LE(error, other) << seed;
        searched += error;
        plain += other;
      }
      std::printf("%s, %s: %.3f of plain rounding's error\n",
                  std::string(TypeName(format.type)).c_str(), name, searched / plain);
      EXPECT_LT(searched, plain * format.of_plain_rounding);
    }
  }
}

TEST(LevelSearch, ErrorOfABellCurve) {
  const std::vector<float> values = Sample(256 * 100, 1, kShapes[0].second);
  for (const Format& format : kFormats) {
    const std::vector<float> back = RoundTrip(format.type, values);
    double error = 0, squares = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      error += std::pow(double{back[i]} - values[i], 2);
      squares += double{values[i]} * values[i];
    }
    std::printf("%s: relative error %.4f\n", std::string(TypeName(format.type)).c_str(),
                std::sqrt(error / squares));
    EXPECT_LT(std::sqrt(error / squares), format.bell_error) << TypeName(format.type);
  }
}

TEST(LevelSearch, ZerosStayZeros) {
  for (const Format& format : kFormats) {
    const std::vector<float> zeros(512, 0.0f);
    EXPECT_EQ(RoundTrip(format.type, zeros), zeros) << TypeName(format.type);
    // A block of zeros beside others: no scale of theirs leaks into it.
    std::vector<float> values = Sample(512, 4, kShapes[0].second);
    std::fill_n(values.begin() + 256, 256, 0.0f);
    const std::vector<float> back = RoundTrip(format.type, values);
    EXPECT_EQ(std::vector(back.begin() + 256, back.end()), std::vector<float>(256, 0.0f))
        << TypeName(format.type);
  }
}

TEST(LevelSearch, ExtremeBlocksStayFiniteAndNear) {
  constexpr float kLargest = 65504;
  const std::pair<const char*, Draw> blocks[] = {
      {"largest", [](std::mt19937*) { return kLargest; }},
      {"lowest", [](std::mt19937*) { return -kLargest; }},
      {"both", [](std::mt19937* random) { return (*random)() % 2 == 0 ? kLargest : -kLargest; }},
      {"one", [](std::mt19937*) { return 1.0f; }},
      {"minus a third", [](std::mt19937*) { return -1.0f / 3; }},
  };
  for (const Format& format : kFormats) {
    // Levels of both signs do not reach equally far; and scales are float16.
    const LevelShape& shape = format.shape;
    const float bound = shape.lowest_level < 0 ? -static_cast<float>(shape.lowest_level) /
                                                         static_cast<float>(shape.highest_level) -
                                                     0.999f
                                               : 0.001f;
    for (const auto& [name, draw] : blocks) {
      const std::vector<float> values = Sample(256, 5, draw);
      const std::vector<float> back = RoundTrip(format.type, values);
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_LE(std::fabs(back[i] - values[i]), std::fabs(values[i]) * bound)
            << TypeName(format.type) << ", " << name << ", " << i;
      }
    }
    // An outlier in a block that vanishes beside it, and values below every float16. The scale of
    // an outlier of a thousandth is a subnormal float16, a few units large.
    for (const float outlier : {kLargest, -kLargest, 1e-3f}) {
      for (const float rest : {1e-7f, 1e-30f, std::numeric_limits<float>::denorm_min()}) {
        std::vector<float> values(256, rest);
        values[77] = outlier;
        const std::vector<float> back = RoundTrip(format.type, values);
        for (size_t i = 0; i < values.size(); ++i) ASSERT_TRUE(std::isfinite(back[i]));
        EXPECT_NEAR(back[77], outlier, std::fabs(outlier) * 0.03f)
            << TypeName(format.type) << ", " << outlier << ", " << rest;
        std::fill(values.begin(), values.end(), rest);
        for (const float value : RoundTrip(format.type, values)) {
          ASSERT_LE(std::fabs(value), 1e-6f) << TypeName(format.type) << ", " << rest;
        }
      }
    }
  }
}

}  // namespace
}  // namespace gguf
