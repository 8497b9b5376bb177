// Attention over scattered blocks equals the textbook formula, and its bits do not depend on how
// tokens are grouped into rows or on threads.

#include "engine/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "fabric/vector_ops.h"

namespace engine {
namespace {

struct Shape {
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t head_dim;
  uint32_t block_size;
  KvType type;
  uint32_t own_window = 0;
  AttentionWindow window = {};
};

// One sequence with random queries, keys and values in randomly placed blocks.
class Scene {
 public:
  Scene(const Shape& shape, uint32_t positions, uint64_t seed)
      : shape_(shape),
        positions_(positions),
        cache_({.layers = 2,
                .kv_heads = shape.kv_heads,
                .head_dim = shape.head_dim,
                .block_size = shape.block_size,
                .type = shape.type,
                .window = shape.window},
               positions / shape.block_size + 5),
        blocks_(cache_.blocks()) {
    std::mt19937_64 random(seed);
    std::normal_distribution<float> normal(0.0F, 1.0F);
    std::iota(blocks_.begin(), blocks_.end(), BlockId{0});
    std::shuffle(blocks_.begin(), blocks_.end(), random);
    const size_t kv_width = size_t{shape.kv_heads} * shape.head_dim;
    queries_.resize(size_t{positions} * shape.heads * shape.head_dim);
    keys_.resize(positions * kv_width);
    values_.resize(positions * kv_width);
    for (std::vector<float>* buffer : {&queries_, &keys_, &values_}) {
      for (float& x : *buffer) x = normal(random);
    }
    tokens_.assign(positions, 0);
    for (uint32_t p = 0; p < positions; ++p) {
      cache_.Write(1, blocks_[p / shape.block_size], p % shape.block_size,
                   keys_.data() + p * kv_width, values_.data() + p * kv_width);
    }
  }

  // Attention of positions [first, positions), cut into rows of `chunk` tokens in one step.
  std::vector<float> Attend(uint32_t first, uint32_t chunk, int threads) {
    fabric::WorkerTeam team(threads);
    ModelConfig config;
    config.heads = shape_.heads;
    config.kv_heads = shape_.kv_heads;
    config.head_dim = shape_.head_dim;
    Attention attention(config, cache_, team, positions_, shape_.own_window);
    std::vector<BatchRow> rows;
    for (uint32_t p = first; p < positions_; p += chunk) {
      rows.push_back({.tokens = std::span(tokens_).subspan(p, std::min(chunk, positions_ - p)),
                      .first_position = p,
                      .block_table = blocks_,
                      .outputs = {},
                      .output_kind = OutputKind::kNone,
                      .query = {}});
    }
    const Batch batch = {.rows = rows};
    StepRows step;
    step.Assign(batch, 0, rows.size());
    attention.Plan(step);
    const size_t width = size_t{shape_.heads} * shape_.head_dim;
    std::vector<float> out((positions_ - first) * width);
    attention.Attend(1, queries_.data() + first * width, out.data());
    return out;
  }

  // The formula in double, over the rounded keys and values.
  std::vector<double> Expected(uint32_t position) const {
    const size_t dim = shape_.head_dim;
    const size_t kv_width = shape_.kv_heads * dim;
    const uint32_t group = shape_.heads / shape_.kv_heads;
    const std::vector<float> stored_keys = Stored(keys_);
    const std::vector<float> stored_values = Stored(values_);
    std::vector<double> out(shape_.heads * dim);
    for (uint32_t head = 0; head < shape_.heads; ++head) {
      const float* query = queries_.data() + (size_t{position} * shape_.heads + head) * dim;
      const size_t kv = head / group * dim;
      std::vector<double> weights(position + 1);
      double sum = 0;
      for (uint32_t p = 0; p <= position; ++p) {
        if (!Sees(position, p)) continue;
        double dot = 0;
        for (size_t d = 0; d < dim; ++d)
          dot += double{query[d]} * stored_keys[p * kv_width + kv + d];
        weights[p] = std::exp(dot / std::sqrt(static_cast<double>(dim)));
        sum += weights[p];
      }
      for (uint32_t p = 0; p <= position; ++p) {
        for (size_t d = 0; d < dim; ++d) {
          out[head * dim + d] += weights[p] / sum * stored_values[p * kv_width + kv + d];
        }
      }
    }
    return out;
  }

 private:
  bool Sees(uint32_t position, uint32_t p) const {
    const AttentionWindow& window = shape_.window;
    const bool own = shape_.own_window == 0 || p + shape_.own_window > position;
    // The window: at most `tokens` positions, from a multiple of 16 on.
    bool recent = window.tokens == 0 || position < window.tokens;
    if (!recent) {
      uint32_t begin = 0;
      while (position - begin >= window.tokens) begin += 16;
      recent = p >= begin;
    }
    const bool sink = shape_.own_window == 0 && p < window.sinks;
    return own && (recent || sink);
  }
  // Rounded to the storage type, row by row.
  std::vector<float> Stored(const std::vector<float>& x) const {
    std::vector<float> stored = x;
    const size_t dim = shape_.head_dim;
    std::vector<uint16_t> halves(dim);
    std::vector<int8_t> q8(dim);
    std::vector<uint8_t> t2(dim + 15);
    for (float* row = stored.data(); row < stored.data() + stored.size(); row += dim) {
      uint16_t half = 0;
      float scale = 1;
      if (shape_.type == KvType::kF16) {
        fabric::FloatsToHalves(row, dim, halves.data());
        fabric::HalvesToFloats(halves.data(), dim, row);
      } else if (shape_.type == KvType::kQ8) {
        half = fabric::QuantizeKvQ8(row, dim, q8.data());
        fabric::HalvesToFloats(&half, 1, &scale);
        for (size_t d = 0; d < dim; ++d) row[d] = static_cast<float>(q8[d]) * scale;
      } else if (shape_.type == KvType::kT2) {
        half = fabric::QuantizeKvT2(row, dim, t2.data());
        fabric::HalvesToFloats(&half, 1, &scale);
        for (size_t d = 0; d < dim; ++d) {
          const int code = (t2[d / 4] >> (d % 4 * 2)) & 3;
          row[d] = static_cast<float>(code == 3 ? -1 : code) * scale;
        }
      }
    }
    return stored;
  }

  Shape shape_;
  uint32_t positions_;
  KvCache cache_;
  std::vector<BlockId> blocks_;
  std::vector<TokenId> tokens_;
  std::vector<float> queries_;
  std::vector<float> keys_;
  std::vector<float> values_;
};

const Shape kShapes[] = {{4, 2, 64, 16, KvType::kF32},
                         {4, 2, 64, 32, KvType::kF16},
                         {20, 5, 128, 16, KvType::kF16},
                         {3, 3, 20, 16, KvType::kF32},
                         {8, 1, 100, 48, KvType::kF16},
                         {40, 1, 32, 16, KvType::kF32},
                         {4, 2, 64, 16, KvType::kF16, 1},
                         {4, 2, 64, 16, KvType::kF32, 12},
                         {8, 1, 20, 48, KvType::kF32, 16},
                         {4, 2, 64, 16, KvType::kF16, 100},
                         {4, 4, 32, 32, KvType::kF32, 256},
                         {20, 5, 32, 16, KvType::kF16, 300},
                         {20, 5, 128, 16, KvType::kQ8},
                         {8, 1, 100, 48, KvType::kQ8, 100},
                         {20, 5, 128, 16, KvType::kT2},
                         {8, 1, 100, 48, KvType::kT2, 100},
                         {3, 3, 20, 32, KvType::kT2},
                         {4, 2, 64, 16, KvType::kF16, 0, {64, 4}},
                         {20, 5, 32, 32, KvType::kQ8, 0, {100, 20}},
                         {8, 1, 20, 48, KvType::kT2, 0, {16, 0}},
                         {4, 4, 32, 16, KvType::kF32, 0, {300, 300}},
                         {4, 2, 64, 16, KvType::kF32, 12, {64, 4}},
                         {4, 2, 64, 16, KvType::kF32, 100, {48, 4}}};

TEST(Attention, EqualsTheFormula) {
  for (const Shape& shape : kShapes) {
    for (const uint32_t positions : {1U, 15U, 16U, 17U, 256U, 257U, 600U}) {
      Scene scene(shape, positions, positions);
      const size_t width = size_t{shape.heads} * shape.head_dim;
      const std::vector<float> out = scene.Attend(0, 50, 1);
      for (uint32_t p = 0; p < positions; p = p * 2 + 1) {
        const std::vector<double> expected = scene.Expected(p);
        for (size_t i = 0; i < width; ++i) {
          ASSERT_NEAR(out[p * width + i], expected[i], 1e-5)
              << "position " << p << " of " << positions << ", head size " << shape.head_dim;
        }
      }
    }
  }
}

TEST(Attention, BitsDoNotDependOnRowsOrThreads) {
  for (const Shape& shape : kShapes) {
    Scene scene(shape, 560, 5);
    const std::vector<float> expected = scene.Attend(0, 1, 1);
    for (const int threads : {1, 2}) {
      for (const uint32_t chunk : {7U, 64U, 560U}) {
        EXPECT_TRUE(scene.Attend(0, chunk, threads) == expected) << chunk << " x " << threads;
      }
      // One decode over a long context: its partitions are shared among threads.
      const size_t width = size_t{shape.heads} * shape.head_dim;
      for (const uint32_t first : {559U, 555U}) {
        EXPECT_TRUE(scene.Attend(first, 3, threads) ==
                    std::vector<float>(expected.begin() + static_cast<ptrdiff_t>(first * width),
                                       expected.end()));
      }
    }
  }
}

}  // namespace
}  // namespace engine
