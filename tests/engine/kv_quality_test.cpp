// What q8 and t2 keep of real keys and values: those of the bundled model along its golden texts,
// held exactly in an f32 cache and rounded here. The floors are a little below what is measured, so
// that a worse rule is noticed.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fabric/vector_ops.h"
#include "gguf/codec.h"
#include "tests/engine/rig.h"

namespace engine {
namespace {

using testing::Rig;
using testing::SmallOptions;

std::vector<std::vector<TokenId>> GoldenTexts() {
  std::ifstream stream(testing::BundledGolden());
  const nlohmann::json golden = nlohmann::json::parse(stream);
  std::vector<std::vector<TokenId>> texts;
  for (const auto& [name, entry] : golden.items()) {
    auto tokens = entry.at("prompt").get<std::vector<TokenId>>();
    const auto forced = entry.at("tokens").get<std::vector<TokenId>>();
    tokens.insert(tokens.end(), forced.begin(), forced.end());
    texts.push_back(tokens);
  }
  return texts;
}

using Row = std::vector<float>;

// All rows of keys and of values that `tokens` leave in the cache.
void CollectRows(Engine& engine, const std::vector<TokenId>& tokens, std::vector<Row>* keys,
                 std::vector<Row>* values) {
  const KvGeometry& kv = engine.kv_geometry();
  ASSERT_EQ(kv.type, KvType::kF32);
  testing::RunAlone(engine, tokens, tokens.size());
  std::vector<float> bytes(kv.BytesPerBlock() / sizeof(float));
  for (BlockId block = 0; block < kv.BlocksFor(tokens.size()); ++block) {
    engine.SaveBlock(block, reinterpret_cast<std::byte*>(bytes.data()));
    const size_t held = std::min<size_t>(kv.block_size, tokens.size() - block * kv.block_size);
    const float* at = bytes.data();
    for (uint32_t half = 0; half < 2 * kv.layers; ++half) {
      for (uint32_t head = 0; head < kv.kv_heads; ++head) {
        for (size_t i = 0; i < kv.block_size; ++i, at += kv.head_dim) {
          if (i < held) (half % 2 == 0 ? keys : values)->emplace_back(at, at + kv.head_dim);
        }
      }
    }
  }
}

Row Q8(const Row& row) {
  std::vector<int8_t> codes(row.size());
  const float scale = gguf::HalfToFloat(fabric::QuantizeKvQ8(row.data(), row.size(), codes.data()));
  Row rounded;
  for (const int8_t code : codes) rounded.push_back(static_cast<float>(code) * scale);
  return rounded;
}

Row T2(const Row& row) {
  std::vector<uint8_t> codes(row.size());
  const float scale = gguf::HalfToFloat(fabric::QuantizeKvT2(row.data(), row.size(), codes.data()));
  Row rounded;
  for (size_t i = 0; i < row.size(); ++i) {
    const int code = (codes[i / 4] >> (i % 4 * 2)) & 3;
    rounded.push_back(static_cast<float>(code == 3 ? -1 : code) * scale);
  }
  return rounded;
}

Row Ternary(const Row& row, double threshold) {
  Row rounded;
  for (const float x : row) {
    rounded.push_back(std::fabs(x) < threshold ? 0.0F : std::copysign(1.0F, x));
  }
  return rounded;
}

double Mean(const Row& row, double power) {
  double sum = 0;
  for (const float x : row) sum += std::pow(std::fabs(double{x}), power);
  return std::pow(sum / static_cast<double>(row.size()), 1 / power);
}

double Cosine(const Row& a, const Row& b) {
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    ab += double{a[i]} * double{b[i]};
    aa += double{a[i]} * double{a[i]};
    bb += double{b[i]} * double{b[i]};
  }
  return aa * bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

// The rules that were compared; best: every number of elements is tried.
Row BestTernary(const Row& row) {
  Row magnitudes;
  for (const float x : row) magnitudes.push_back(std::fabs(x));
  std::sort(magnitudes.rbegin(), magnitudes.rend());
  double best = 0;
  double threshold = 0;
  double sum = 0;
  for (size_t k = 0; k < magnitudes.size(); ++k) {
    sum += double{magnitudes[k]};
    const double cosine = sum / std::sqrt(static_cast<double>(k + 1));
    if (cosine > best) {
      best = cosine;
      threshold = double{magnitudes[k]};
    }
  }
  return Ternary(row, threshold);
}

template <class Rule>
double MeanCosine(const std::vector<Row>& rows, const Rule& rule) {
  double sum = 0;
  for (const Row& row : rows) sum += Cosine(row, rule(row));
  return sum / static_cast<double>(rows.size());
}

TEST(KvQuality, CosinesOfRealKeysAndValues) {
  Rig rig(testing::BundledModel(), SmallOptions(KvType::kF32));
  std::vector<Row> keys;
  std::vector<Row> values;
  for (const auto& tokens : GoldenTexts()) CollectRows(*rig.engine, tokens, &keys, &values);
  ASSERT_GT(keys.size(), 1000U);
  ASSERT_EQ(keys.size(), values.size());
  const auto report = [&](const char* name, const auto& rule) {
    const std::pair cosines = {MeanCosine(keys, rule), MeanCosine(values, rule)};
    std::printf("%-22s keys %.4f, values %.4f\n", name, cosines.first, cosines.second);
    return cosines;
  };
  std::printf("%zu rows of %u\n", keys.size(), rig.engine->kv_geometry().head_dim);
  const auto q8 = report("q8", Q8);
  const auto t2 = report("t2", T2);
  const auto best = report("best support", BestTernary);
  for (const double factor : {0.5, 0.6, 0.7}) {
    report(("RMS times " + std::to_string(factor).substr(0, 3)).c_str(),
           [=](const Row& row) { return Ternary(row, factor * Mean(row, 2)); });
  }
  const auto twn = report("0.75 mean magnitude",
                          [](const Row& row) { return Ternary(row, 0.75 * Mean(row, 1)); });
  EXPECT_GT(std::min(q8.first, q8.second), 0.9999);
  EXPECT_GT(std::min(t2.first, t2.second), 0.89);
  EXPECT_GT(t2.first, best.first - 0.001);
  EXPECT_GT(t2.second, best.second - 0.001);
  EXPECT_GT(t2.first, twn.first);
  EXPECT_GT(t2.second, twn.second);
}

// What rounding does to the predictions along the same texts.
TEST(KvQuality, DivergenceOfPredictions) {
  struct Divergence {
    double kl = 0;
    double log_loss = 0;
    double same_top = 0;
  };
  std::vector<testing::LogitRows> exact;
  Divergence measured[4];
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8, KvType::kT2}) {
    Rig rig(testing::BundledModel(), SmallOptions(type));
    Divergence& sum = measured[static_cast<size_t>(type)];
    size_t text = 0;
    double count = 0;
    for (const auto& tokens : GoldenTexts()) {
      testing::LogitRows rows = testing::RunAlone(*rig.engine, tokens, 0);
      if (type == KvType::kF32) exact.push_back(rows);
      for (size_t i = 0; i + 1 < tokens.size(); ++i, ++count) {
        const std::vector<double> p = testing::LogSoftmax(exact[text][i]);
        const std::vector<double> q = testing::LogSoftmax(rows[i]);
        for (size_t t = 0; t < p.size(); ++t) sum.kl += std::exp(p[t]) * (p[t] - q[t]);
        sum.log_loss -= q[static_cast<size_t>(tokens[i + 1])];
        const auto top = [](const std::vector<double>& x) {
          return std::max_element(x.begin(), x.end()) - x.begin();
        };
        sum.same_top += top(p) == top(q) ? 1 : 0;
      }
      ++text;
    }
    sum = {sum.kl / count, sum.log_loss / count, sum.same_top / count};
    std::printf("%s: KL %.5f, perplexity %.4f, same first token %.2f %% of %.0f\n",
                std::array{"f32", "f16", "q8", "t2"}[static_cast<size_t>(type)], sum.kl,
                std::exp(sum.log_loss), 100 * sum.same_top, count);
  }
  EXPECT_LT(measured[1].kl, 0.0004);
  EXPECT_LT(measured[2].kl, 0.0005);
  EXPECT_GT(measured[3].kl, measured[2].kl);
  EXPECT_LT(measured[3].kl, 0.15);
  EXPECT_GT(measured[3].same_top, 0.75);
}

}  // namespace
}  // namespace engine
