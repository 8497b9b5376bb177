#include "tests/engine/walkers.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

namespace engine::testing {
namespace {

// One step with a random part of the walkers and random chunks, every position with logits.
void RandomStep(Engine& engine, std::vector<Walker>& walkers, std::mt19937_64& random) {
  std::vector<size_t> order(walkers.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::shuffle(order.begin(), order.end(), random);
  std::vector<size_t> row_walkers;
  std::vector<std::vector<uint32_t>> outputs;
  std::vector<BatchRow> rows;
  outputs.reserve(walkers.size());
  size_t room = engine.max_batch_tokens();
  for (const size_t index : order) {
    Walker& walker = walkers[index];
    const size_t left = walker.tokens.size() - walker.computed;
    if (left == 0 || room == 0 || random() % 4 == 0) continue;
    const size_t most = std::min(room, left);
    const size_t count = random() % 2 == 0 ? 1 : 1 + random() % std::min<size_t>(most, 90);
    outputs.emplace_back(count);
    std::iota(outputs.back().begin(), outputs.back().end(), 0U);
    row_walkers.push_back(index);
    rows.push_back({.tokens = std::span(walker.tokens).subspan(walker.computed, count),
                    .first_position = static_cast<uint32_t>(walker.computed),
                    .block_table = walker.blocks,
                    .outputs = outputs.back(),
                    .output_kind = OutputKind::kLogits,
                    .query = {},
                    .state_slot = walker.slot});
    walker.computed += count;
    room -= count;
  }
  WalkerSink sink(&walkers, row_walkers);
  for (const RowOutput& row : engine.Step({.rows = rows, .sink = &sink}).rows) {
    ASSERT_EQ(row.status, RowStatus::kOk);
  }
}

bool Done(const std::vector<Walker>& walkers) {
  return std::all_of(walkers.begin(), walkers.end(),
                     [](const Walker& walker) { return walker.computed == walker.tokens.size(); });
}

}  // namespace

void WalkToTheEnd(Engine& engine, std::vector<Walker>& walkers, uint64_t seed) {
  std::mt19937_64 random(seed);
  while (!Done(walkers)) RandomStep(engine, walkers, random);
}

void CheckInvariance(Engine& engine, Engine& solo, const std::vector<size_t>& lengths,
                     uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<BlockId> pool(engine.kv_blocks());
  std::iota(pool.begin(), pool.end(), BlockId{0});
  std::shuffle(pool.begin(), pool.end(), random);
  std::vector<Walker> walkers(lengths.size());
  for (Walker& walker : walkers) {
    const size_t index = static_cast<size_t>(&walker - walkers.data());
    walker.tokens = RandomTokens(lengths[index], engine.model().config().vocabulary, random());
    const uint32_t blocks = engine.kv_geometry().BlocksFor(lengths[index]);
    ASSERT_GE(pool.size(), blocks);
    walker.blocks.assign(pool.end() - blocks, pool.end());
    pool.resize(pool.size() - blocks);
    walker.slot = static_cast<uint32_t>(lengths.size() - 1 - index);
  }
  WalkToTheEnd(engine, walkers, random());
  for (const Walker& walker : walkers) {
    EXPECT_TRUE(walker.logits == RunAlone(solo, walker.tokens, 0))
        << walker.tokens.size() << " tokens";
  }
}

}  // namespace engine::testing
