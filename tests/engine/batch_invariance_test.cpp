// A sequence's logits are the same bits alone or beside others, however its tokens are cut into
// rows, wherever its blocks lie, whether a prefix came from another sequence, and on any number of
// threads.

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "tests/engine/rig.h"
#include "tests/engine/walkers.h"

namespace engine {
namespace {

using testing::CheckInvariance;
using testing::LogitRows;
using testing::RandomTokens;
using testing::Rig;
using testing::RunAlone;
using testing::SmallOptions;
using testing::TinyRig;
using testing::TinyShape;
using testing::Walker;
using testing::WalkToTheEnd;

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

TEST_P(BatchInvariance, SlidingWindowsAndSinksGiveTheSoloBits) {
  for (const auto& [window, sinks] : {std::pair{64U, 4U}, std::pair{300U, 20U}}) {
    EngineOptions options = SmallOptions(GetParam());
    options.max_batch_tokens = 200;
    options.sliding_window = window;
    options.attention_sinks = sinks;
    const TinyShape shape;
    Rig solo = TinyRig(shape, options);
    Rig rig = TinyRig(shape, options, 2);
    CheckInvariance(*rig.engine, *solo.engine, {600, 1, 17, 255, 300}, window);
    // The window makes a difference, and none before it begins.
    Rig whole = TinyRig(shape, SmallOptions(GetParam()));
    const std::vector<TokenId> tokens = RandomTokens(400, shape.vocabulary, 9);
    const LogitRows seen = RunAlone(*solo.engine, tokens, window - 1);
    const LogitRows all = RunAlone(*whole.engine, tokens, window - 1);
    EXPECT_TRUE(seen[0] == all[0]);
    EXPECT_FALSE(seen.back() == all.back());
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

// What early-exit drafting relies on.
TEST_P(BatchInvariance, FirstLayersWriteTheKeysAndValuesOfAWholeStepAndDisturbNothing) {
  TinyShape shape;
  shape.layers = 3;
  Rig whole = TinyRig(shape, SmallOptions(GetParam()), 2);
  Rig rig = TinyRig(shape, SmallOptions(GetParam()), 2);
  constexpr uint32_t kLayers = 2;
  constexpr uint32_t kPrompt = 20;
  const std::vector<TokenId> tokens = RandomTokens(32, shape.vocabulary, 3);
  const LogitRows expected = RunAlone(*whole.engine, tokens, kPrompt);
  RunAlone(*rig.engine, std::span(tokens).first(kPrompt), kPrompt);

  const std::vector<BlockId> blocks = {0, 1};
  const auto guess = [&](std::span<const TokenId> drafted, uint32_t layers) {
    const uint32_t last = static_cast<uint32_t>(drafted.size()) - 1;
    const BatchRow row{.tokens = drafted,
                       .first_position = kPrompt,
                       .block_table = blocks,
                       .outputs = {&last, 1},
                       .output_kind = OutputKind::kCandidates,
                       .query = {.k = 1, .mask = {}, .bias = {}}};
    const StepOutput output = rig.engine->Step({.rows = {&row, 1}, .layers = layers});
    EXPECT_EQ(output.rows[0].status, RowStatus::kOk);
    return output.rows[0].candidates[0];
  };
  // Wrong tokens, then the right ones: their layers' bytes are those of the whole model.
  guess(RandomTokens(12, shape.vocabulary, 8), kLayers);
  const Candidate few = guess(std::span(tokens).subspan(kPrompt), kLayers);
  std::vector<std::byte> some(rig.engine->kv_geometry().BytesPerBlock());
  std::vector<std::byte> all(some.size());
  rig.engine->SaveBlock(1, some.data());
  whole.engine->SaveBlock(1, all.data());
  const auto layer = static_cast<std::ptrdiff_t>(some.size() / shape.layers);
  EXPECT_TRUE(std::equal(all.begin(), all.begin() + kLayers * layer, some.begin()));
  EXPECT_FALSE(std::equal(all.begin(), all.end(), some.begin()));
  // Two layers do not say what three do; as many as there are do, whatever was guessed before.
  const Candidate best = guess(std::span(tokens).subspan(kPrompt), shape.layers);
  EXPECT_NE(few.logit, best.logit);
  EXPECT_EQ(best.logit, expected.back()[static_cast<size_t>(best.token)]);
  guess(RandomTokens(12, shape.vocabulary, 9), kLayers);
  std::vector<Walker> walkers = {{.tokens = tokens, .blocks = blocks, .computed = kPrompt}};
  WalkToTheEnd(*rig.engine, walkers, 4);
  EXPECT_TRUE(walkers[0].logits == expected);
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
  WalkToTheEnd(engine, walkers, 3);
  EXPECT_TRUE(walkers[0].logits == expected);
}

TEST_P(BatchInvariance, CopiedBlockServesLikeTheOriginal) {
  const TinyShape shape;
  Rig rig = TinyRig(shape, SmallOptions(GetParam()));
  Engine& engine = *rig.engine;
  const std::vector<TokenId> tokens = RandomTokens(40, shape.vocabulary, 4);
  const LogitRows expected = RunAlone(engine, tokens, 39);
  // The last block through other memory, as swapping and saving do.
  for (BlockId block = 0; block < 2; ++block) engine.CopyBlock(block, block + 10);
  std::vector<std::byte> bytes(engine.kv_geometry().BytesPerBlock());
  engine.SaveBlock(2, bytes.data());
  engine.LoadBlock(bytes.data(), 12);
  std::vector<Walker> walkers = {{.tokens = tokens, .blocks = {10, 11, 12}, .computed = 39}};
  WalkToTheEnd(engine, walkers, 3);
  EXPECT_TRUE(walkers[0].logits == expected);
}

INSTANTIATE_TEST_SUITE_P(KvTypes, BatchInvariance,
                         ::testing::Values(KvType::kF32, KvType::kF16, KvType::kQ8, KvType::kT2));

}  // namespace
}  // namespace engine
