// Property: a model whose ternary weights do not fit the Fabric's pool gives the bits of one whose
// do, at any size of the pool, from memory and from a file; its memory is counted as it is, and a
// pool too small for one matrix is told at load with the size that is enough.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <regex>

#include "engine/errors.h"
#include "tests/engine/rig.h"

namespace engine {
namespace {

using testing::BundledModel;
using ::testing::HasSubstr;
using testing::LogitRows;
using testing::RandomTokens;
using testing::Rig;
using testing::RunAlone;
using testing::SmallOptions;

Rig RigWith(const fabric::FabricOptions& fabric_options) {
  auto team = std::make_unique<fabric::WorkerTeam>(2);
  auto device = fabric::CreateDevice(fabric_options, *team);
  auto model = Model::Load(BundledModel(), SmallOptions(), *device, *team);
  return Rig(std::move(model), SmallOptions(), std::move(device), std::move(team));
}

fabric::FabricOptions PoolOf(uint64_t bytes, const std::string& store = "") {
  fabric::FabricOptions options;
  options.layout = fabric::TernaryLayout::kPanel2Bit;  // nothing is measured
  options.pool_bytes = bytes;
  options.store = store;
  return options;
}

// Of the bundled model: what all its ternary matrices take in a pool.
uint64_t TernaryBytes() {
  Rig rig = RigWith(PoolOf(uint64_t{1} << 30));
  RunAlone(*rig.engine, RandomTokens(2, rig.model->config().vocabulary, 1), 0);
  return rig.device->Counters().fetched_bytes;
}

TEST(Residency, LogitsAreTheSameAtFullHalfAndQuarterPool) {
  const uint64_t all = TernaryBytes();
  ASSERT_GT(all, 1U << 20);
  Rig plain = RigWith(PoolOf(0));
  const std::vector<TokenId> tokens = RandomTokens(40, plain.model->config().vocabulary, 3);
  // A prompt in chunks, then token by token.
  const LogitRows expected = RunAlone(*plain.engine, tokens, 0, 16);
  const std::string folder = std::filesystem::temp_directory_path().string();
  for (const uint64_t pool : {all, all / 2, all / 4}) {
    for (const std::string& store : {std::string(), folder}) {
      Rig rig = RigWith(PoolOf(pool, store));
      for (const size_t chunk : {16U, 1U}) {
        EXPECT_TRUE(RunAlone(*rig.engine, tokens, 0, chunk) == expected) << pool << " " << store;
      }
      const fabric::DeviceCounters counters = rig.device->Counters();
      if (pool == all) {
        EXPECT_EQ(counters.evictions, 0U);
        EXPECT_EQ(counters.residency_misses, 0U);
        EXPECT_EQ(counters.fetched_bytes, all) << "after warm-up a token moves no weights";
        continue;
      }
      // 40 steps of one token: what does not fit is moved each time, and most of it ahead.
      EXPECT_GT(counters.evictions, 0U);
      EXPECT_GT(counters.fetched_bytes, 40 * (all - pool));
      EXPECT_LT(counters.fetched_bytes, 45 * all);
      EXPECT_GT(counters.prefetches_used, counters.residency_misses);
      EXPECT_GT(counters.residency_hits, 4 * counters.residency_misses);
    }
  }
}

TEST(Residency, TheMemoryPlanCountsThePoolAndWhatWaits) {
  const uint64_t all = TernaryBytes();
  const uint64_t plain = RigWith(PoolOf(0)).model->weights().resident_bytes;
  const uint64_t pool = all / 4 / 64 * 64;
  EXPECT_EQ(RigWith(PoolOf(pool)).model->weights().resident_bytes, plain + pool);
  const std::string folder = std::filesystem::temp_directory_path().string();
  const uint64_t in_file = RigWith(PoolOf(pool, folder)).model->weights().resident_bytes;
  EXPECT_LT(in_file, plain - all / 2);
  // More room than there are matrices costs nothing more.
  const uint64_t roomy = RigWith(PoolOf(uint64_t{1} << 30)).model->weights().resident_bytes;
  EXPECT_LE(roomy, plain + all);
}

// The size that the error gives is enough, and it is told before anything has been run.
TEST(Residency, APoolThatIsTooSmallForOneMatrixIsRefusedWithTheSizeThatIsEnough) {
  for (const char* device : {"sim", "ioctl"}) {
    fabric::FabricOptions options = PoolOf(4096);
    options.device = device;
    std::string message;
    try {
      RigWith(options);
    } catch (const ModelError& error) {
      message = error.what();
    }
    EXPECT_THAT(message, HasSubstr("4096 bytes cannot hold tensor blk.0."));
    std::smatch match;
    ASSERT_TRUE(std::regex_search(message, match, std::regex("at least ([0-9]+) bytes")))
        << message;
    options.pool_bytes = std::stoull(match[1]);
    Rig rig = RigWith(options);
    Rig plain = RigWith(PoolOf(0));
    const std::vector<TokenId> tokens = RandomTokens(3, rig.model->config().vocabulary, 3);
    EXPECT_TRUE(RunAlone(*rig.engine, tokens, 0) == RunAlone(*plain.engine, tokens, 0));
  }
}

// Held as their non-zeros alone, matrices take more than at two bits per weight when they have few
// zeros, and how much more is known only when they are packed.
TEST(Residency, TheSizeThatIsEnoughHoldsForSparseMatricesToo) {
  fabric::FabricOptions options = PoolOf(4096);
  options.sparse = fabric::SparseChoice::kAlways;
  std::string message;
  try {
    RigWith(options);
  } catch (const ModelError& error) {
    message = error.what();
  }
  std::smatch match;
  ASSERT_TRUE(std::regex_search(message, match, std::regex("at least ([0-9]+) bytes"))) << message;
  const uint64_t enough = std::stoull(match[1]);
  options.pool_bytes = enough;
  Rig rig = RigWith(options);
  uint64_t largest = 0;
  for (const TensorPlacement& placement : rig.model->weights().placements) {
    if (placement.layout == "sparse") largest = std::max(largest, placement.resident_bytes);
  }
  EXPECT_LE(enough, largest) << "no more than the largest takes with its scales";
  const fabric::TernaryMatrix dense(rig.model->config().ffn, rig.model->config().hidden,
                                    fabric::ScaleKind::kTensor, 0,
                                    fabric::TernaryLayout::kPanel2Bit);
  EXPECT_GT(enough, dense.image_bytes()) << "or the sizes of dense matrices would have been enough";
  options.pool_bytes = enough - 64;
  EXPECT_THROW(RigWith(options), ModelError);
}

}  // namespace
}  // namespace engine
