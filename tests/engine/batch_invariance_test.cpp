// A sequence's logits are the same bits alone or beside others, however its tokens are cut into
// rows, wherever its blocks lie, whether a prefix came from another sequence, and on any number of
// threads.

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "tests/engine/rig.h"

namespace engine {
namespace {

using testing::LogitRows;
using testing::RandomTokens;
using testing::Rig;
using testing::RunAlone;
using testing::SmallOptions;
using testing::TinyRig;
using testing::TinyShape;

// A sequence on its way through random steps.
struct Walker {
  std::vector<TokenId> tokens;
  std::vector<BlockId> blocks;
  size_t computed = 0;
  LogitRows logits = {};  // of every position since
};

class WalkerSink : public LogitsSink {
 public:
  WalkerSink(std::vector<Walker>* walkers, const std::vector<size_t>& row_walkers)
      : walkers_(walkers), row_walkers_(row_walkers) {}
  void OnLogits(size_t row, size_t, std::span<float> logits) override {
    (*walkers_)[row_walkers_[row]].logits.emplace_back(logits.begin(), logits.end());
  }

 private:
  std::vector<Walker>* walkers_;
  const std::vector<size_t>& row_walkers_;
};

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
                    .query = {}});
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

// Walks `lengths.size()` random sequences through `engine` and compares each with its run alone.
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
  }
  while (!Done(walkers)) RandomStep(engine, walkers, random);
  for (const Walker& walker : walkers) {
    EXPECT_TRUE(walker.logits == RunAlone(solo, walker.tokens, 0))
        << walker.tokens.size() << " tokens";
  }
}

class BatchInvariance : public ::testing::TestWithParam<KvType> {};

TEST_P(BatchInvariance, RandomBatchesOfATinyModelGiveTheSoloBits) {
  EngineOptions options = SmallOptions(GetParam());
  options.max_batch_tokens = 200;
  const TinyShape shape;
  Rig solo = TinyRig(shape, options);
  for (const int threads : {1, 2}) {
    Rig rig = TinyRig(shape, options, threads);
    // 600 tokens cross two partition borders of attention.
    for (uint64_t seed = 0; seed < 2; ++seed) {
      CheckInvariance(*rig.engine, *solo.engine, {600, 1, 17, 255, 257, 40, 300}, seed);
    }
  }
}

TEST_P(BatchInvariance, EveryShapeGivesTheSoloBits) {
  const std::vector<TinyShape> shapes = {
      {.architecture = "llama", .projections = gguf::TensorType::kF32, .sub_norms = false},
      {.architecture = "llama", .projections = gguf::TensorType::kQ8_0, .sub_norms = false},
      {.architecture = "llama",
       .hidden = 256,
       .heads = 16,
       .ffn = 256,
       .projections = gguf::TensorType::kQ6_K,
       .sub_norms = false},
      {.heads = 6,
       .kv_heads = 1,
       .head_dim = 20,
       .projections = gguf::TensorType::kBF16,
       .tied_head = false},
      {.architecture = "llama",
       .hidden = 256,
       .heads = 16,
       .ffn = 256,
       .projections = gguf::TensorType::kTQ2_0,
       .sub_norms = false}};
  for (const TinyShape& shape : shapes) {
    Rig solo = TinyRig(shape, SmallOptions(GetParam()));
    Rig rig = TinyRig(shape, SmallOptions(GetParam()), 2);
    CheckInvariance(*rig.engine, *solo.engine, {290, 5, 64, 100}, 11);
  }
}

TEST_P(BatchInvariance, DemoModelInBatchesGivesTheSoloBits) {
  EngineOptions options = SmallOptions(GetParam());
  options.kv_bytes = 0;
  options.context_length = 512;
  Rig solo(testing::BundledModel(), options);
  for (const int threads : {1, 2}) {
    Rig rig(testing::BundledModel(), options, threads);
    CheckInvariance(*rig.engine, *solo.engine, {300, 20, 33, 64}, 5);
  }
}

TEST_P(BatchInvariance, SharedPrefixBlocksGiveTheSoloBits) {
  const TinyShape shape;
  Rig rig = TinyRig(shape, SmallOptions(GetParam()), 2);
  Engine& engine = *rig.engine;
  const std::vector<TokenId> first = RandomTokens(320, shape.vocabulary, 1);
  std::vector<TokenId> second = first;
  const std::vector<TokenId> tail = RandomTokens(50, shape.vocabulary, 2);
  second.resize(272);
  second.insert(second.end(), tail.begin(), tail.end());
  const LogitRows expected = RunAlone(engine, second, 272);

  RunAlone(engine, first, first.size());  // leaves its keys and values in blocks 0, 1, ...
  std::vector<BlockId> blocks(engine.kv_geometry().BlocksFor(second.size()));
  std::iota(blocks.begin(), blocks.end(), BlockId{0});
  for (size_t i = 272 / 16; i < blocks.size(); ++i) blocks[i] = static_cast<BlockId>(60 - i);
  std::vector<Walker> walkers = {{.tokens = second, .blocks = blocks, .computed = 272}};
  std::mt19937_64 random(3);
  while (!Done(walkers)) RandomStep(engine, walkers, random);
  EXPECT_TRUE(walkers[0].logits == expected);
}

TEST_P(BatchInvariance, CopiedBlockServesLikeTheOriginal) {
  const TinyShape shape;
  Rig rig = TinyRig(shape, SmallOptions(GetParam()));
  Engine& engine = *rig.engine;
  const std::vector<TokenId> tokens = RandomTokens(40, shape.vocabulary, 4);
  const LogitRows expected = RunAlone(engine, tokens, 39);
  for (BlockId block = 0; block < 3; ++block) engine.CopyBlock(block, block + 10);
  std::vector<Walker> walkers = {{.tokens = tokens, .blocks = {10, 11, 12}, .computed = 39}};
  std::mt19937_64 random(3);
  while (!Done(walkers)) RandomStep(engine, walkers, random);
  EXPECT_TRUE(walkers[0].logits == expected);
}

INSTANTIATE_TEST_SUITE_P(KvTypes, BatchInvariance, ::testing::Values(KvType::kF32, KvType::kF16));

}  // namespace
}  // namespace engine
