// Property: a load through a packed cache gives the bits of one without, whatever the model is made
// of; a cache of another file, of other settings, cut off or with any byte changed is made anew and
// never believed; and where no cache can be written the model loads all the same.

#include "engine/packed_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "engine/errors.h"
#include "fabric/sparse/mix.h"
#include "gguf/codec.h"
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
using ::testing::StartsWith;

// A new folder for every test.
class PackedCacheFile : public ::testing::Test {
 protected:
  PackedCacheFile() { std::filesystem::create_directories(folder_); }
  ~PackedCacheFile() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  static std::string ReadFile(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  static void WriteFile(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary) << bytes;
  }

  std::filesystem::path folder_ = std::filesystem::temp_directory_path() /
                                  ("tern-packed-" + std::to_string(getpid()) + "-" +
                                   ::testing::UnitTest::GetInstance()->current_test_info()->name());
};

std::vector<std::byte> RandomBytes(size_t size, uint64_t seed) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i)
    bytes[i] = static_cast<std::byte>(fabric::sparse::Mix(seed + i));
  return bytes;
}

// Three pieces: small, none, and more than one chunk.
struct Contents {
  std::vector<std::byte> small = RandomBytes(100, 1);
  std::vector<std::byte> none;
  std::vector<std::byte> large = RandomBytes(700'001, 2);

  std::array<std::span<std::byte>, 3> Pieces() { return {small, none, large}; }
};

void MakeCache(const std::string& path, const std::string& identity) {
  PackedCache cache(path, identity);
  Contents contents;
  cache.Keep("one", "facts of one", contents.Pieces());
  cache.Keep("two", "", {});
  cache.Finish();
  EXPECT_THAT(cache.outcome(), StartsWith("written to " + path));
}

// Whether "one" is found and read; what is read is what was kept.
bool ReadsOne(const PackedCache& cache) {
  const auto facts = cache.FindFacts("one");
  if (!facts) return false;
  EXPECT_EQ(*facts, "facts of one");
  Contents empty{
      .small = std::vector<std::byte>(100), .none = {}, .large = std::vector<std::byte>(700'001)};
  try {
    cache.Read("one", empty.Pieces());
  } catch (const PackedCacheError&) {
    return false;
  }
  const Contents expected;
  EXPECT_EQ(empty.small, expected.small);
  EXPECT_EQ(empty.large, expected.large);
  return true;
}

TEST_F(PackedCacheFile, GivesBackWhatWasKept) {
  MakeCache(Path("c"), "me");
  const PackedCache cache(Path("c"), "me");
  EXPECT_EQ(cache.outcome(), "read from " + Path("c"));
  EXPECT_TRUE(ReadsOne(cache));
  EXPECT_EQ(cache.FindFacts("two"), "");
  EXPECT_FALSE(cache.FindFacts("three"));
  // Only the file is left.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(PackedCacheFile, WithoutAFileNothingIsFoundOrKept) {
  PackedCache cache;
  Contents contents;
  cache.Keep("one", "facts of one", contents.Pieces());
  cache.Finish();
  EXPECT_FALSE(cache.FindFacts("one"));
  EXPECT_EQ(cache.outcome(), "");
}

TEST_F(PackedCacheFile, IsMadeAnewForAnotherIdentity) {
  MakeCache(Path("c"), "me");
  {
    PackedCache cache(Path("c"), "you");
    EXPECT_FALSE(cache.FindFacts("one"));
    cache.Finish();
    EXPECT_THAT(cache.outcome(), HasSubstr("has changed"));
  }
  EXPECT_FALSE(PackedCache(Path("c"), "you").FindFacts("one"));
  EXPECT_THAT(PackedCache(Path("c"), "you").outcome(), StartsWith("read from"));
}

// Until it is whole the old one stays.
TEST_F(PackedCacheFile, WhatIsNotFinishedLeavesTheOldFile) {
  MakeCache(Path("c"), "me");
  {
    PackedCache cache(Path("c"), "you");
    Contents contents;
    cache.Keep("one", "facts of one", contents.Pieces());
  }
  EXPECT_TRUE(ReadsOne(PackedCache(Path("c"), "me")));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

TEST_F(PackedCacheFile, OneAtATimeMakesIt) {
  PackedCache first(Path("c"), "me");
  PackedCache second(Path("c"), "me");
  EXPECT_THAT(second.outcome(), HasSubstr("another process"));
  Contents contents;
  second.Keep("one", "", contents.Pieces());
  second.Finish();
  first.Keep("one", "facts of one", contents.Pieces());
  first.Finish();
  EXPECT_TRUE(ReadsOne(PackedCache(Path("c"), "me")));
}

TEST_F(PackedCacheFile, NoChangedByteAndNoMissingOneIsBelieved) {
  MakeCache(Path("c"), "me");
  const std::string whole = ReadFile(Path("c"));
  ASSERT_GT(whole.size(), 700'101U);
  size_t noticed = 0;
  for (uint64_t round = 0; round < 300; ++round) {
    // Every byte of the header, then anywhere.
    const uint64_t random = fabric::sparse::Mix(round + 1);
    const size_t at = round < 32 ? round : random % whole.size();
    std::string changed = whole;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (random >> 60) % 8));
    WriteFile(Path("d"), changed);
    if (!ReadsOne(PackedCache(Path("d"), "me"))) ++noticed;
  }
  // The rest hit the padding between pieces, and were read right.
  EXPECT_GT(noticed, 280U);
  for (const size_t size :
       {size_t{0}, size_t{7}, size_t{31}, size_t{5000}, whole.size() / 2, whole.size() - 1}) {
    WriteFile(Path("d"), whole.substr(0, size));
    EXPECT_FALSE(ReadsOne(PackedCache(Path("d"), "me"))) << size;
  }
}

TEST_F(PackedCacheFile, PiecesOfOtherSizesAreDamage) {
  MakeCache(Path("c"), "me");
  const PackedCache cache(Path("c"), "me");
  Contents contents;
  contents.small.pop_back();
  EXPECT_THROW(cache.Read("one", contents.Pieces()), PackedCacheError);
  EXPECT_THROW(cache.Read("one", {}), PackedCacheError);
}

TEST_F(PackedCacheFile, SaysWhyItCannotBeWritten) {
  WriteFile(Path("file"), "");
  PackedCache cache(Path("file/c"), "me");
  EXPECT_THAT(cache.outcome(), HasSubstr("cannot be written: Not a directory"));
  cache.Keep("one", "", {});
  cache.Finish();
}

TEST(PackedCachePath, IsBesideTheModelOrInAFolderWhereModelsOfOneNameDiffer) {
  EXPECT_EQ(PackedCachePath("off", "/models/a.gguf"), "");
  EXPECT_EQ(PackedCachePath("", "/models/a.gguf"), "");
  EXPECT_EQ(PackedCachePath("beside", "/models/a.gguf"), "/models/a.gguf.packed");
  const std::string one = PackedCachePath("/cache", "/models/one/a.gguf");
  EXPECT_THAT(one, StartsWith("/cache/a.gguf-"));
  EXPECT_NE(one, PackedCachePath("/cache", "/models/two/a.gguf"));
  EXPECT_EQ(one, PackedCachePath("/cache", "/models/two/../one/a.gguf"));
  EXPECT_THAT(PackedCachePath("./new", "/models/a.gguf"), StartsWith("./new/a.gguf-"));
  for (const char* slip : {"on", "true", "Beside"}) {
    EXPECT_THROW(PackedCachePath(slip, "/models/a.gguf"), ModelError) << slip;
  }
  EXPECT_THROW(PackedCachePath(BundledModel(), "/models/a.gguf"), ModelError);  // a file
}

// A whole model, which has a tokenizer too.
class PackedModel : public PackedCacheFile {
 protected:
  PackedModel() { std::filesystem::copy_file(BundledModel(), model_); }

  // Of a layout that is not measured, so that two loads that pack do the same.
  Rig Load(const EngineOptions& options) const {
    fabric::FabricOptions fabric_options;
    fabric_options.layout = fabric::TernaryLayout::kPanelPt5;
    auto team = std::make_unique<fabric::WorkerTeam>(2);
    auto device = fabric::CreateDevice(fabric_options, *team);
    auto model = Model::Load(model_, options, *device, *team);
    return Rig(std::move(model), options, std::move(device), std::move(team));
  }
  static EngineOptions Beside(HeadMode head = HeadMode::kStrict) {
    EngineOptions options = SmallOptions();
    options.packed_cache = "beside";
    options.head = head;
    options.screened_head_bytes = 0;
    return options;
  }
  LogitRows Logits(const Rig& rig) const {
    return RunAlone(*rig.engine, RandomTokens(20, rig.model->config().vocabulary, 3), 0);
  }
  static std::string Outcome(const Rig& rig) { return rig.model->load_report().packed_cache; }

  std::string model_ = Path("m.gguf");
  LogitRows expected_ = Logits(Rig(BundledModel(), SmallOptions()));
};

TEST_F(PackedModel, TheSecondLoadReadsItAndGivesTheSameBits) {
  Rig first = Load(Beside());
  EXPECT_EQ(Outcome(first), "written to " + model_ + ".packed (there was none)");
  EXPECT_TRUE(Logits(first) == expected_);
  Rig second = Load(Beside());
  EXPECT_EQ(Outcome(second), "read from " + model_ + ".packed");
  EXPECT_TRUE(Logits(second) == expected_);
  // What is told of the weights is the same, too.
  const Weights& a = first.model->weights();
  const Weights& b = second.model->weights();
  EXPECT_EQ(a.resident_bytes, b.resident_bytes);
  EXPECT_EQ(a.layout_reason, b.layout_reason);
  ASSERT_EQ(a.placements.size(), b.placements.size());
  for (size_t i = 0; i < a.placements.size(); ++i) {
    EXPECT_EQ(a.placements[i].layout, b.placements[i].layout);
    EXPECT_EQ(a.placements[i].zero_rate, b.placements[i].zero_rate);
  }
  // And what the Fabric counts.
  EXPECT_GT(second.device->Counters().total_ops, 0U);
  EXPECT_EQ(first.device->Counters().active_ops, second.device->Counters().active_ops);
  EXPECT_TRUE(Outcome(Load(SmallOptions())).empty());
}

TEST_F(PackedModel, AChangedFileOrSettingMakesItAnew) {
  Load(Beside());
  EXPECT_THAT(Outcome(Load(Beside(HeadMode::kScreened))), HasSubstr("has changed"));
  Rig screened = Load(Beside(HeadMode::kScreened));
  EXPECT_THAT(Outcome(screened), StartsWith("read from"));
  EXPECT_TRUE(Logits(screened) == expected_);
  std::filesystem::last_write_time(model_, std::filesystem::file_time_type::clock::now());
  EXPECT_THAT(Outcome(Load(Beside(HeadMode::kScreened))), HasSubstr("has changed"));
  EngineOptions options = Beside(HeadMode::kScreened);
  options.activation = ActivationMode::kBlock;
  EXPECT_THAT(Outcome(Load(options)), HasSubstr("has changed"));
}

// In the middle of a load it turns out that a piece is damaged: what was read by then is dropped.
TEST_F(PackedModel, ADamagedPieceIsMadeAnewInTheSameLoad) {
  Load(Beside());
  const std::string cache = model_ + ".packed";
  std::string bytes = ReadFile(cache);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  WriteFile(cache, bytes);
  Rig mended = Load(Beside());
  EXPECT_EQ(Outcome(mended), "written to " + cache + " (the old file is damaged)");
  EXPECT_TRUE(Logits(mended) == expected_);
  EXPECT_EQ(mended.device->resident_bytes(), Load(SmallOptions()).device->resident_bytes());
  Rig again = Load(Beside());
  EXPECT_THAT(Outcome(again), StartsWith("read from"));
  EXPECT_TRUE(Logits(again) == expected_);
}

TEST_F(PackedModel, AModelLoadsWhereNoCacheCanBeWritten) {
  WriteFile(Path("file"), "");
  EngineOptions options = Beside();
  options.packed_cache = Path("file/folder");
  Rig rig = Load(options);
  EXPECT_THAT(Outcome(rig), HasSubstr("cannot be written"));
  EXPECT_TRUE(Logits(rig) == expected_);
}

TEST_F(PackedModel, AFolderThatIsNotThereIsMade) {
  EngineOptions options = Beside();
  options.packed_cache = Path("deep/er");
  EXPECT_THAT(Outcome(Load(options)), StartsWith("written to " + Path("deep/er/m.gguf-")));
  EXPECT_THAT(Outcome(Load(options)), StartsWith("read from " + Path("deep/er/m.gguf-")));
}

// Quantised matrices, scales per group, and non-zeros alone, which are packed every time.
TEST_F(PackedCacheFile, EveryKindOfMatrixGivesTheSameBits) {
  struct Case {
    gguf::TensorType type;
    fabric::SparseChoice sparse;
  };
  for (const Case& c : {Case{gguf::TensorType::kQ6_K, fabric::SparseChoice::kAuto},
                        Case{gguf::TensorType::kQ4_K, fabric::SparseChoice::kAuto},
                        Case{gguf::TensorType::kQ8_0, fabric::SparseChoice::kAuto},
                        Case{gguf::TensorType::kF16, fabric::SparseChoice::kAuto},
                        Case{gguf::TensorType::kTQ2_0, fabric::SparseChoice::kAuto},
                        Case{gguf::TensorType::kTQ1_0, fabric::SparseChoice::kAuto},
                        Case{gguf::TensorType::kTQ2_0, fabric::SparseChoice::kAlways}}) {
    const testing::TinyShape shape{.hidden = 256, .heads = 16, .ffn = 256, .projections = c.type};
    const std::vector<std::byte> bytes = testing::TinyWriter(shape).Serialize();
    fabric::FabricOptions options;
    options.sparse = c.sparse;
    const auto logits = [&](PackedCache& cache) {
      auto team = std::make_unique<fabric::WorkerTeam>(2);
      auto device = fabric::CreateDevice(options, *team);
      auto model = testing::LoadBytes(bytes, SmallOptions(), *device, cache);
      Rig rig(std::move(model), SmallOptions(), std::move(device), std::move(team));
      return RunAlone(*rig.engine, RandomTokens(10, shape.vocabulary, 1), 0);
    };
    PackedCache none;
    const LogitRows expected = logits(none);
    const std::string name = std::string(gguf::TypeName(c.type));
    PackedCache written(Path("c"), name);
    EXPECT_TRUE(logits(written) == expected) << name;
    written.Finish();
    EXPECT_THAT(written.outcome(), StartsWith("written to"));
    PackedCache read(Path("c"), name);
    EXPECT_THAT(read.outcome(), StartsWith("read from"));
    EXPECT_TRUE(logits(read) == expected) << name;
    std::filesystem::remove(Path("c"));
  }
}

}  // namespace
}  // namespace engine
