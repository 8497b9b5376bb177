// Property: the candidates of a screened head are those of the full head, bit for bit and in the
// same order, with a strict bound also on heads made to mislead the sketch; a statistical bound
// notices such heads; and a head that must be computed in full is.

#include "engine/head.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "engine/candidates.h"
#include "fabric/half.h"

namespace engine {
namespace {

using Random = std::independent_bits_engine<std::mt19937, 32, uint32_t>;

constexpr uint32_t kHidden = 512;
constexpr uint32_t kVocabulary = 4099;

// A head of Q6_K rows given as codes, on a device of its own.
struct HeadRig {
  fabric::WorkerTeam team{2};
  std::unique_ptr<fabric::Device> device = fabric::CreateDevice({}, team);
  ModelConfig config;
  Weights weights;
  std::shared_ptr<fabric::QuantizedMatrix> matrix =
      std::make_shared<fabric::QuantizedMatrix>(fabric::QuantizedType::kQ6_K, kVocabulary, kHidden);
  std::unique_ptr<Head> head;

  HeadRig() {
    config.hidden = kHidden;
    config.vocabulary = kVocabulary;
    config.norm_eps = 1e-6F;
    weights.output_norm = Vector(kHidden);
    for (float& value : weights.output_norm) value = 1.0F;
  }

  void SetRow(uint32_t row, const std::vector<uint8_t>& codes, uint16_t scale) {
    const std::vector<int8_t> sub_scales(kHidden / 16, 20);
    const std::vector<uint16_t> scales(kHidden / 256, scale);
    matrix->SetRow(
        row,
        {.codes = codes, .sub_scales = sub_scales, .sub_mins = {}, .scales = scales, .mins = {}});
  }

  void Build(HeadMode mode = HeadMode::kStrict, uint64_t least_bytes = 0) {
    weights.head_matrix.quantized = matrix;
    weights.head.activation = fabric::ActivationKind::kInt8Block;
    weights.head.rows = kVocabulary;
    weights.head.cols = kHidden;
    EXPECT_EQ(device->Upload(std::shared_ptr<const fabric::QuantizedMatrix>(matrix),
                             &weights.head.matrix),
              fabric::Status::kOk);
    EngineOptions options;
    options.head = mode;
    options.screened_head_bytes = least_bytes;
    head = std::make_unique<Head>(config, weights, options, *device, team);
  }

  // The same with rows of floats, screened: fill(row) is called once per token.
  void BuildFloats(const std::function<void(std::vector<float>*)>& fill) {
    auto dense =
        std::make_shared<fabric::DenseMatrix>(fabric::DenseType::kF32, kVocabulary, config.hidden);
    std::vector<float> row(config.hidden);
    for (uint32_t r = 0; r < kVocabulary; ++r) {
      fill(&row);
      std::memcpy(dense->Row(r).data(), row.data(), row.size() * sizeof(float));
    }
    weights.head_matrix.dense = dense;
    weights.head.activation = fabric::ActivationKind::kFloat;
    weights.head.rows = kVocabulary;
    weights.head.cols = config.hidden;
    EXPECT_EQ(
        device->Upload(std::shared_ptr<const fabric::DenseMatrix>(dense), &weights.head.matrix),
        fabric::Status::kOk);
    EngineOptions options;
    options.head = HeadMode::kScreened;
    options.screened_head_bytes = 0;
    head = std::make_unique<Head>(config, weights, options, *device, team);
  }

  std::vector<Candidate> FullBest(const std::vector<float>& hidden, const HeadQuery& query) {
    const float* pointer = hidden.data();
    EXPECT_EQ(head->Compute({&pointer, 1}), fabric::Status::kOk);
    std::vector<Candidate> best(query.k);
    SelectBest(head->Logits(0), query.mask, best);
    return best;
  }
};

const uint16_t kScale = fabric::FloatToHalf(0.001F);

std::vector<uint8_t> RandomCodes(Random& random) {
  std::vector<uint8_t> codes(kHidden);
  for (uint8_t& code : codes) code = static_cast<uint8_t>(random() % 64);
  return codes;
}

// A hidden state that points along a row, as a model that is sure of its next token has, with
// noise.
std::vector<float> Along(const std::vector<uint8_t>& codes, float noise, Random& random) {
  std::normal_distribution<float> normal;
  std::vector<float> hidden(kHidden);
  for (size_t i = 0; i < kHidden; ++i) {
    hidden[i] = (static_cast<float>(codes[i]) - 32.0F) / 18.0F + noise * normal(random);
  }
  return hidden;
}

// Compares every k with the full head; returns how many queries the sketch settled.
int CountSettled(HeadRig& rig, const std::vector<float>& hidden,
                 std::span<const uint64_t> mask = {}) {
  int settled = 0;
  for (const uint32_t k : {1U, 2U, 40U}) {
    const HeadQuery query{.k = k, .mask = mask, .bias = {}};
    const std::vector<Candidate> expected = rig.FullBest(hidden, query);
    while (!rig.head->WantsScreen(1)) {
    }
    const float* pointer = hidden.data();
    rig.head->Screen({&pointer, 1});
    std::vector<Candidate> found(k);
    StepStats stats;
    if (!rig.head->FindBest(0, query, found, &stats)) continue;
    ++settled;
    EXPECT_GE(stats.refined_rows, k);
    for (uint32_t i = 0; i < k; ++i) {
      EXPECT_EQ(found[i].token, expected[i].token) << "k " << k << " place " << i;
      EXPECT_EQ(std::memcmp(&found[i].logit, &expected[i].logit, sizeof(float)), 0);
    }
  }
  return settled;
}

// Builds the rig from random rows; returns their codes.
std::vector<std::vector<uint8_t>> BuildRandomRows(HeadRig& rig, Random& random,
                                                  HeadMode mode = HeadMode::kStrict) {
  std::vector<std::vector<uint8_t>> rows;
  for (uint32_t row = 0; row < kVocabulary; ++row) {
    rows.push_back(RandomCodes(random));
    rig.SetRow(row, rows.back(), kScale);
  }
  rig.Build(mode);
  return rows;
}

TEST(ScreenedHead, GivesTheCandidatesOfTheFullHead) {
  HeadRig rig;
  Random random(1);
  const auto rows = BuildRandomRows(rig, random);
  ASSERT_EQ(rig.head->mode(), HeadMode::kStrict);
  int settled = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const auto& row = rows[random() % kVocabulary];
    settled += CountSettled(rig, Along(row, 0.5F * static_cast<float>(trial % 8), random));
  }
  // Sure or not: even without a clear winner most queries are settled by the sketch.
  EXPECT_GE(settled, 90) << "of 180";
}

// All rows have the same upper bits; the lower ones, which the sketch does not see, follow or
// oppose the hidden state. Some rows are equal, so that ids decide.
TEST(ScreenedHead, IsNotMisledByLowerBitsOrTies) {
  Random random(2);
  int settled = 0;
  for (int trial = 0; trial < 12; ++trial) {
    HeadRig rig;
    const std::vector<uint8_t> common = RandomCodes(random);
    const std::vector<float> hidden = Along(common, 1.0F, random);
    const uint32_t winner = random() % (kVocabulary - 40);
    for (uint32_t row = 0; row < kVocabulary; ++row) {
      // Most rows are far off; a few share the winner's upper bits.
      const bool near = row % 97 == 0 || row == winner || row == winner + 31;
      std::vector<uint8_t> codes = near ? common : RandomCodes(random);
      for (size_t i = 0; near && i < kHidden; ++i) {
        const bool follow = row == winner || row == winner + 31
                                ? hidden[i] > 0
                                : (hidden[i] > 0) == (random() % 100 < 99U - trial);
        codes[i] = static_cast<uint8_t>((codes[i] & 0x3C) | (follow ? 3 : 0));
      }
      rig.SetRow(row, codes, kScale);
    }
    rig.Build();
    settled += CountSettled(rig, hidden);
    const HeadQuery query{.k = 2, .mask = {}, .bias = {}};
    const std::vector<Candidate> best = rig.FullBest(hidden, query);
    EXPECT_EQ(best[0].token, static_cast<TokenId>(winner));
    EXPECT_EQ(best[1].token, static_cast<TokenId>(winner + 31));
    EXPECT_EQ(best[0].logit, best[1].logit);
  }
  EXPECT_GE(settled, 20) << "of 36";
}

TEST(ScreenedHead, ObeysTheMask) {
  HeadRig rig;
  Random random(3);
  const auto rows = BuildRandomRows(rig, random);
  std::vector<uint64_t> mask((kVocabulary + 63) / 64);
  for (uint64_t& word : mask) word = uint64_t{random()} << 32 | random();
  int settled = 0;
  for (int trial = 0; trial < 10; ++trial) {
    settled += CountSettled(rig, Along(rows[random() % kVocabulary], 0.5F, random), mask);
  }
  EXPECT_GE(settled, 15) << "of 30";
  // Fewer tokens than are asked for: the full head decides.
  const std::vector<uint64_t> few = [&] {
    std::vector<uint64_t> bits(mask.size());
    bits[3] = 5;
    return bits;
  }();
  EXPECT_EQ(CountSettled(rig, Along(rows[7], 0.0F, random), few), 0);
}

TEST(ScreenedHead, LeavesHopelessQueriesToTheFullHeadAndPauses) {
  HeadRig rig;
  Random random(4);
  // Every row is the same: nothing can be ruled out.
  const std::vector<uint8_t> codes = RandomCodes(random);
  for (uint32_t row = 0; row < kVocabulary; ++row) rig.SetRow(row, codes, kScale);
  rig.Build();
  const std::vector<float> hidden = Along(codes, 0.0F, random);
  const float* pointer = hidden.data();
  uint32_t paused = 0;
  for (int sketch = 0; sketch < 5; ++sketch) {
    paused = 0;
    while (!rig.head->WantsScreen(1)) ++paused;
    rig.head->Screen({&pointer, 1});
    std::vector<Candidate> found(1);
    StepStats stats;
    EXPECT_FALSE(rig.head->FindBest(0, {}, found, &stats));
  }
  EXPECT_EQ(paused, 8U);  // after pauses of 1, 2 and 4
}

TEST(ScreenedHead, ValuesThatAreNotFiniteAreLeftToTheFullHead) {
  for (const uint16_t bad : {uint16_t{0x7C00}, uint16_t{0x7E00}}) {
    HeadRig rig;
    Random random(5);
    for (uint32_t row = 0; row < kVocabulary; ++row) rig.SetRow(row, RandomCodes(random), kScale);
    const std::vector<uint8_t> codes = RandomCodes(random);
    rig.SetRow(17, codes, bad);
    rig.Build();
    EXPECT_EQ(CountSettled(rig, Along(codes, 0.1F, random)), 0);
  }
}

TEST(ScreenedHead, IsOffWhenAskedAndWhenItDoesNotPay) {
  HeadRig full;
  full.Build(HeadMode::kFull);
  EXPECT_EQ(full.head->mode(), HeadMode::kFull);
  HeadRig small;
  small.Build(HeadMode::kStrict, uint64_t{32} << 20);
  EXPECT_EQ(small.head->mode(), HeadMode::kFull);
  HeadRig on;
  on.Build();
  EXPECT_EQ(on.head->mode(), HeadMode::kStrict);
  EXPECT_TRUE(on.head->WantsScreen(4));
  EXPECT_FALSE(on.head->WantsScreen(5));
}

TEST(CoarselyScreenedHead, GivesTheCandidatesOfTheFullHead) {
  HeadRig rig;
  Random random(6);
  const auto rows = BuildRandomRows(rig, random, HeadMode::kScreened);
  ASSERT_EQ(rig.head->mode(), HeadMode::kScreened);
  int settled = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const auto& row = rows[random() % kVocabulary];
    settled += CountSettled(rig, Along(row, 0.5F * static_cast<float>(trial % 8), random));
  }
  EXPECT_GE(settled, 60) << "of 180: with 4,099 tokens only the best stands out";
}

// Every row's weights lie at the ends of the sketch's levels that the hidden state points to: none
// is as unrelated to it as the bound assumes. The width is odd, or the rotation would undo that.
TEST(CoarselyScreenedHead, GuardSendsAMisleadingHeadToTheFullOne) {
  HeadRig rig;
  Random random(7);
  rig.config.hidden = kHidden - 1;
  std::vector<float> hidden(rig.config.hidden);
  std::normal_distribution<float> normal;
  for (float& value : hidden) value = normal(random);
  rig.BuildFloats([&](std::vector<float>* row) {
    for (size_t i = 0; i < row->size(); ++i) {
      const float level = std::clamp(std::floor(normal(random)) + 0.5F, -1.5F, 1.5F);
      (*row)[i] = level + (hidden[i] > 0 ? 0.45F : -0.45F);
    }
  });
  const float* pointer = hidden.data();
  for (int repeat = 0; repeat < 3; ++repeat) {
    ASSERT_TRUE(rig.head->WantsScreen(1));
    rig.head->Screen({&pointer, 1});
    std::vector<Candidate> found(1);
    StepStats stats;
    EXPECT_FALSE(rig.head->FindBest(0, {}, found, &stats));
    EXPECT_EQ(stats.guard_trips, 1U);
    EXPECT_EQ(stats.screened_positions, 0U);
  }
}

// What a position gets must not depend on what came before it or is beside it.
TEST(CoarselyScreenedHead, NeverPausesAndTakesAllPositionsOfAPass) {
  HeadRig rig;
  Random random(8);
  const std::vector<uint8_t> codes = RandomCodes(random);
  for (uint32_t row = 0; row < kVocabulary; ++row) rig.SetRow(row, codes, kScale);
  rig.Build(HeadMode::kScreened);
  EXPECT_TRUE(rig.head->WantsScreen(rig.head->capacity()));
  const std::vector<float> hidden = Along(codes, 0.0F, random);
  const std::vector<const float*> pointers(rig.head->capacity(), hidden.data());
  for (int repeat = 0; repeat < 3; ++repeat) {
    ASSERT_TRUE(rig.head->WantsScreen(pointers.size()));
    rig.head->Screen(pointers);
    for (size_t i = 0; i < pointers.size(); ++i) {
      std::vector<Candidate> found(1);
      StepStats stats;
      EXPECT_FALSE(rig.head->FindBest(i, {}, found, &stats)) << "all rows are equal";
    }
  }
}

// A type without two planes has a coarse sketch, too.
TEST(CoarselyScreenedHead, TakesFloats) {
  HeadRig rig;
  Random random(9);
  std::normal_distribution<float> normal;
  std::vector<float> first;
  rig.BuildFloats([&](std::vector<float>* row) {
    for (float& value : *row) value = 0.02F * normal(random);
    if (first.empty()) first = *row;
  });
  ASSERT_EQ(rig.head->mode(), HeadMode::kScreened);
  EXPECT_GE(CountSettled(rig, first), 1);
}

}  // namespace
}  // namespace engine
