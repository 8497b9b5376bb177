// The demo model's logits are the same bits on every instruction set that this machine has, with
// dense and with sparse matrices. The
// kernels are chosen once per process, so each instruction set gets a process of its own: this
// program, told to run the one test that prints a digest.

#include <gtest/gtest.h>
#include <unistd.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>

#include "fabric/cpu/isa.h"
#include "tests/engine/rig.h"

namespace engine {
namespace {

constexpr const char* kMark = "logit digest ";

uint64_t Digest(const testing::LogitRows& rows) {
  uint64_t hash = 14695981039346656037ULL;  // FNV-1a over whole floats
  for (const std::vector<float>& row : rows) {
    for (const float logit : row) hash = (hash ^ std::bit_cast<uint32_t>(logit)) * 1099511628211ULL;
  }
  return hash;
}

// The demo model with every ternary matrix as its non-zeros alone.
testing::Rig SparseRig() {
  auto team = std::make_unique<fabric::WorkerTeam>(2);
  fabric::FabricOptions fabric_options;
  fabric_options.sparse = fabric::SparseChoice::kAlways;
  auto device = fabric::CreateDevice(fabric_options, *team);
  const EngineOptions options = testing::SmallOptions(KvType::kF32);
  auto model = Model::Load(testing::BundledModel(), options, *device, *team);
  return testing::Rig(std::move(model), options, std::move(device), std::move(team));
}

// What a process forced to `isa` prints: the active instruction set and the digest.
std::string DigestUnder(const std::string& isa) {
  const std::string command = "TERN_FORCE_ISA=" + isa + " /proc/" + std::to_string(getpid()) +
                              "/exe --gtest_filter=IsaInvariance.PrintsItsDigest";
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return "";
  std::string found;
  char line[512];
  while (std::fgets(line, sizeof(line), pipe) != nullptr) {
    if (std::string(line).starts_with(kMark)) found = line;
  }
  pclose(pipe);
  return found;
}

TEST(IsaInvariance, PrintsItsDigest) {
  // Floats and halves past the first border of attention's partitions.
  const std::vector<TokenId> tokens = testing::RandomTokens(270, 4096, 21);
  uint64_t digest = 0;
  for (const KvType type : {KvType::kF32, KvType::kF16, KvType::kQ8, KvType::kT2}) {
    const bool codes = type == KvType::kQ8 || type == KvType::kT2;
    const auto text = std::span(tokens).first(codes ? 48 : 270);
    testing::Rig rig(testing::BundledModel(), testing::SmallOptions(type));
    const testing::LogitRows logits = testing::RunAlone(*rig.engine, text, text.size() - 10);
    digest = digest * 31 + Digest(logits);
    if (type != KvType::kF32) continue;
    testing::Rig sparse = SparseRig();
    const testing::LogitRows same = testing::RunAlone(*sparse.engine, text, text.size() - 10);
    EXPECT_TRUE(same == logits);
    digest = digest * 31 + Digest(same);
  }
  std::printf("%s%016llx on %s\n", kMark, static_cast<unsigned long long>(digest),
              std::string(fabric::IsaName(fabric::ActiveIsa())).c_str());
}

TEST(IsaInvariance, EveryInstructionSetGivesTheSameLogits) {
  const std::string scalar = DigestUnder("scalar");
  ASSERT_NE(scalar.find("on scalar"), std::string::npos) << scalar;
  const size_t digest_size = scalar.find(" on ");
  for (const fabric::Isa isa : fabric::SupportedIsas()) {
    if (isa == fabric::Isa::kScalar) continue;
    const std::string name(fabric::IsaName(isa));
    const std::string found = DigestUnder(name);
    EXPECT_NE(found.find("on " + name), std::string::npos) << found;
    EXPECT_EQ(found.substr(0, digest_size), scalar.substr(0, digest_size)) << name;
    std::printf("%s", found.c_str());
  }
}

}  // namespace
}  // namespace engine
