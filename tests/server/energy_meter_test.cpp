// Property: joules are those of the packages, each once, over every wrap of a counter; what cannot
// be read is explained.
#include "server/energy_meter.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

namespace server {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// A powercap tree of files.
class Tree {
 public:
  Tree() : root_(testing::TempDir() + "tern_powercap_" + std::to_string(getpid())) {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  ~Tree() { fs::remove_all(root_); }
  void Zone(const std::string& folder, const std::string& name, uint64_t energy,
            uint64_t range = 262143328850) {
    fs::create_directories(root_ + "/" + folder);
    Write(folder + "/name", name);
    Write(folder + "/max_energy_range_uj", std::to_string(range));
    Set(folder, energy);
  }
  void Set(const std::string& folder, uint64_t energy) {
    Write(folder + "/energy_uj", std::to_string(energy));
  }
  void Write(const std::string& file, const std::string& text) {
    std::ofstream(root_ + "/" + file) << text << "\n";
  }
  const std::string& root() const { return root_; }

 private:
  std::string root_;
};

TEST(EnergyMeter, CountsPackagesAndNothingElse) {
  Tree tree;
  tree.Zone("intel-rapl:0", "package-0", 1'000'000);
  tree.Zone("intel-rapl:0:0", "core", 5);
  tree.Zone("intel-rapl:0:1", "dram", 5);
  tree.Zone("intel-rapl:1", "package-1", 7'000'000);
  tree.Zone("intel-rapl:2", "psys", 9'000'000);
  tree.Zone("intel-rapl-mmio:0", "package-0", 1'000'000);
  EnergyMeter meter({.root = tree.root(), .look_seconds = 3600});
  ASSERT_TRUE(meter.readable());
  tree.Set("intel-rapl:0", 3'500'000);
  tree.Set("intel-rapl:0:0", 400'000'000);
  tree.Set("intel-rapl:2", 400'000'000);
  tree.Set("intel-rapl-mmio:0", 400'000'000);
  tree.Set("intel-rapl:1", 7'250'000);
  const auto packages = meter.Read();
  ASSERT_EQ(packages.size(), 2U);
  EXPECT_EQ(packages[0].name, "package-0");
  EXPECT_DOUBLE_EQ(packages[0].joules, 2.5);
  EXPECT_EQ(packages[1].name, "package-1");
  EXPECT_DOUBLE_EQ(packages[1].joules, 0.25);
  EXPECT_EQ(meter.problem(), "");
}

TEST(EnergyMeter, WrapsAreAdded) {
  Tree tree;
  tree.Zone("intel-rapl:0", "package-0", 9'000'000, 10'000'000);
  EnergyMeter meter({.root = tree.root(), .look_seconds = 3600});
  for (int wrap = 1; wrap <= 3; ++wrap) {
    tree.Set("intel-rapl:0", 4'000'000);
    EXPECT_DOUBLE_EQ(meter.Read()[0].joules, wrap * 10.0 - 5);
    tree.Set("intel-rapl:0", 9'000'000);
    EXPECT_DOUBLE_EQ(meter.Read()[0].joules, wrap * 10.0);
  }
}

TEST(EnergyMeter, WrapsAreSeenWhenNobodyAsks) {
  Tree tree;
  tree.Zone("intel-rapl:0", "package-0", 0, 10'000'000);
  EnergyMeter meter({.root = tree.root(), .look_seconds = 0.005});
  double expected = 0;
  for (int i = 0; i < 5; ++i) {
    // Up, then around: whoever looks at the end alone misses it.
    for (const uint64_t energy : {8'000'000, 1'000'000}) {
      tree.Set("intel-rapl:0", energy);
      // The second look from here began after the file had changed.
      const uint64_t seen = meter.looks() + 2;
      while (meter.looks() < seen) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    expected += i == 0 ? 11 : 10;
  }
  EXPECT_DOUBLE_EQ(meter.Read()[0].joules, expected);
}

TEST(EnergyMeter, ACounterThatGoesAwayKeepsItsSum) {
  Tree tree;
  tree.Zone("intel-rapl:0", "package-0", 0);
  EnergyMeter meter({.root = tree.root(), .look_seconds = 3600});
  tree.Set("intel-rapl:0", 2'000'000);
  EXPECT_DOUBLE_EQ(meter.Read()[0].joules, 2);
  fs::remove(tree.root() + "/intel-rapl:0/energy_uj");
  EXPECT_DOUBLE_EQ(meter.Read()[0].joules, 2);
}

TEST(EnergyMeter, AbsenceIsExplained) {
  EnergyMeter none({.root = "/nonexistent"});
  EXPECT_FALSE(none.readable());
  EXPECT_THAT(none.problem(), HasSubstr("/nonexistent"));
  EXPECT_TRUE(none.Read().empty());
  // A folder where the number should be: unreadable for root too.
  Tree tree;
  tree.Zone("intel-rapl:0", "package-0", 0);
  fs::remove(tree.root() + "/intel-rapl:0/energy_uj");
  fs::create_directory(tree.root() + "/intel-rapl:0/energy_uj");
  EnergyMeter refused({.root = tree.root()});
  EXPECT_FALSE(refused.readable());
  EXPECT_THAT(refused.problem(), HasSubstr("cannot be read"));
  EXPECT_THAT(refused.problem(), HasSubstr("root alone"));
}

TEST(EnergyMeter, PermissionIsExplained) {
  Tree tree;
  tree.Zone("intel-rapl:0", "package-0", 0);
  fs::permissions(tree.root() + "/intel-rapl:0/energy_uj", fs::perms::none);
  constexpr uid_t kNobody = 65534;
  const bool root = geteuid() == 0;  // who may read every file
  if (root) {
    ASSERT_EQ(seteuid(kNobody), 0);
  }
  EnergyMeter refused({.root = tree.root()});
  if (root) {
    ASSERT_EQ(seteuid(0), 0);
  }
  EXPECT_THAT(refused.problem(), HasSubstr("Permission denied"));
}

}  // namespace
}  // namespace server
