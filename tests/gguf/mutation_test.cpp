// Any damage to a file leads to a FormatError or to a file whose every tensor can be read and that
// can be written again: 20,000 seeded mutations of small valid files. tests/fuzz/gguf_fuzz.cpp
// looks for the same with feedback.
#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>

#include "gguf/error.h"
#include "tests/support/gguf_seeds.h"

namespace gguf {
namespace {

// Values that break arithmetic, for whole fields.
constexpr std::array<uint64_t, 10> kNastyValues = {0,
                                                   1,
                                                   0x7fffffff,
                                                   0x80000000,
                                                   0xffffffff,
                                                   uint64_t{1} << 62,
                                                   uint64_t{1} << 63,
                                                   ~uint64_t{0},
                                                   ~uint64_t{0} - 31,
                                                   42};

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  // Damage is mostly in the header, where it matters.
  void Damage(std::vector<std::byte>& bytes) {
    const uint64_t edits = 1 + Below(3);
    for (uint64_t i = 0; i < edits && !bytes.empty(); ++i) {
      const uint64_t reach = Below(4) == 0 ? bytes.size() : std::min<uint64_t>(bytes.size(), 2500);
      const uint64_t at = Below(reach);
      switch (Below(5)) {
        case 0:
          bytes[at] ^= static_cast<std::byte>(1u << Below(8));
          break;
        case 1:
          bytes[at] = static_cast<std::byte>(Below(256));
          break;
        case 2:
          Overwrite(bytes, at, kNastyValues[Below(kNastyValues.size())]);
          break;
        case 3:
          bytes.resize(bytes.size() - Below(64) % bytes.size());
          break;
        case 4:
          bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at));
          break;
      }
    }
  }

  uint64_t Below(uint64_t bound) { return random_() % bound; }

 private:
  void Overwrite(std::vector<std::byte>& bytes, uint64_t at, uint64_t value) {
    const size_t width = Below(2) == 0 ? 4 : 8;
    if (at + width <= bytes.size()) std::memcpy(bytes.data() + at, &value, width);
  }

  std::mt19937_64 random_;
};

TEST(Mutation, DamagedFilesAreRefusedOrReadable) {
  const auto seeds = support::SeedFiles();
  Mutator mutator(20260101);
  int accepted = 0;
  int refused = 0;
  for (int i = 0; i < 20000; ++i) {
    std::vector<std::byte> bytes = seeds[mutator.Below(seeds.size())].second;
    mutator.Damage(bytes);
    bytes.shrink_to_fit();  // a read past the end is a read past the allocation
    try {
      const File file = File::Parse(bytes);
      support::ReadWholeFile(file);
      support::CheckRewrite(file);
      ++accepted;
    } catch (const FormatError&) {
      ++refused;
    }
  }
  // Both outcomes must be common, or the mutations no longer test anything.
  EXPECT_GT(accepted, 1000);
  EXPECT_GT(refused, 1000);
}

TEST(Mutation, SeedsThemselvesAreValid) {
  for (const auto& [name, bytes] : support::SeedFiles()) {
    const File file = File::Parse(bytes);
    EXPECT_NO_THROW(support::ReadWholeFile(file)) << name;
  }
  const std::vector<std::byte> bytes = support::EveryTypeFile();
  EXPECT_EQ(File::Parse(bytes).tensors().size(), std::size(support::kAllTypes));
}

}  // namespace
}  // namespace gguf
