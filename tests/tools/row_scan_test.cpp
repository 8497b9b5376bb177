// Property: of a scripted trace whose truth is known, the detector finds the matrices that are read
// again row by row, and nothing else but what its header says it cannot tell.

#include "tools/intercept/row_scan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <set>
#include <string>
#include <vector>

namespace intercept {
namespace {

struct Read {
  uintptr_t address;
  size_t bytes;
};
using Reads = std::vector<Read>;

Reads Rows(uintptr_t base, size_t stride, size_t bytes, uint32_t rows) {
  Reads reads;
  for (uint32_t row = 0; row < rows; ++row) reads.push_back({base + row * stride, bytes});
  return reads;
}

Reads Times(const Reads& reads, int times) {
  Reads all;
  for (int i = 0; i < times; ++i) all.insert(all.end(), reads.begin(), reads.end());
  return all;
}

// One of each in turn.
Reads Mixed(const std::vector<Reads>& parts) {
  Reads all;
  size_t longest = 0;
  for (const Reads& part : parts) longest = std::max(longest, part.size());
  for (size_t i = 0; i < longest; ++i) {
    for (const Reads& part : parts) {
      if (i < part.size()) all.push_back(part[i]);
    }
  }
  return all;
}

Reads Shuffled(Reads reads, uint32_t seed) {
  std::minstd_rand random(seed);
  for (size_t i = reads.size(); i > 1; --i) std::swap(reads[i - 1], reads[random() % i]);
  return reads;
}

Reads Scattered(uintptr_t base, size_t span, size_t count, uint32_t seed) {
  std::minstd_rand random(seed);
  Reads reads;
  for (size_t i = 0; i < count; ++i) {
    reads.push_back({base + random() % span, 1024 + random() % 4096});
  }
  return reads;
}

// A program's matrices and buffers, each in a gigabyte of its own.
constexpr uintptr_t At(unsigned number) { return uintptr_t{number} << 30; }

struct Scene {
  const char* what;
  Reads reads;
  std::set<uintptr_t> repeated;  // the truth: bases of matrices that are read again row by row
};

std::vector<Scene> Script() {
  const auto weights = [](unsigned n, size_t stride, uint32_t rows) {
    return Rows(At(n), stride, 4096, rows);
  };
  std::vector<Scene> script;
  script.push_back({"a layer, three tokens", Times(weights(1, 4096, 100), 3), {At(1)}});
  script.push_back({"padded rows", Times(weights(2, 5000, 64), 2), {At(2)}});
  script.push_back({"two layers in turn, row by row",
                    Times(Mixed({weights(3, 4096, 50), weights(4, 8192, 50)}), 3),
                    {At(3), At(4)}});
  script.push_back({"a layer among scattered reads",
                    Mixed({Times(weights(5, 4096, 80), 2), Scattered(At(6), 1 << 26, 160, 1)}),
                    {At(5)}});
  script.push_back({"read once", weights(7, 4096, 300), {}});
  script.push_back({"scattered reads", Scattered(At(8), 1 << 28, 500, 2), {}});
  script.push_back({"a few rows, again", Times(weights(9, 4096, 5), 10), {}});
  script.push_back({"a log that grows", Rows(At(10), 1500, 1500, 400), {}});
  script.push_back({"two parts of one buffer, once each",
                    Mixed({Rows(At(11), 4096, 2048, 40), Rows(At(11) + 2048, 4096, 2048, 40)}),
                    {}});
  // Weights too, but rows are not read in order: what the detector does not look for.
  Reads shuffled;
  for (uint32_t i = 0; i < 3; ++i) {
    const Reads reads = Shuffled(weights(12, 4096, 64), 7 + i);
    shuffled.insert(shuffled.end(), reads.begin(), reads.end());
  }
  script.push_back({"rows in random order, three times", shuffled, {At(12)}});
  // Not weights: a ring of buffers that is read in order again and again looks the same.
  script.push_back({"a ring buffer, read three times", Times(Rows(At(13), 4096, 4096, 16), 3), {}});
  script.push_back(
      {"ten layers, two tokens",
       Times(Mixed({weights(20, 4096, 30), weights(21, 4096, 30), weights(22, 4096, 30),
                    weights(23, 4096, 30), weights(24, 4096, 30), weights(25, 4096, 30),
                    weights(26, 4096, 30), weights(27, 4096, 30), weights(28, 4096, 30),
                    weights(29, 4096, 30)}),
             2),
       {At(20), At(21), At(22), At(23), At(24), At(25), At(26), At(27), At(28), At(29)}});
  return script;
}

TEST(RowScanDetector, PrecisionAndRecallOnAScriptedTrace) {
  RowScanDetector detector;
  size_t right = 0;
  size_t wrong = 0;
  size_t missed = 0;
  std::string misses;
  for (const Scene& scene : Script()) {
    std::set<uintptr_t> found;
    for (const Read& read : scene.reads) {
      RowScan scan;
      if (detector.Observe(read.address, read.bytes, &scan)) found.insert(scan.base);
    }
    for (const uintptr_t base : found) ++(scene.repeated.contains(base) ? right : wrong);
    for (const uintptr_t base : scene.repeated) {
      if (!found.contains(base)) {
        ++missed;
        misses += std::string(scene.what) + "; ";
      }
    }
  }
  const double precision = static_cast<double>(right) / static_cast<double>(right + wrong);
  const double recall = static_cast<double>(right) / static_cast<double>(right + missed);
  std::printf("precision %.3f, recall %.3f of %zu matrices; missed: %s\n", precision, recall,
              right + missed, misses.c_str());
  // The ring buffer is the one false find, rows in random order the one that is missed.
  EXPECT_EQ(right, 15U);
  EXPECT_EQ(wrong, 1U);
  EXPECT_EQ(missed, 1U);
}

TEST(RowScanDetector, SaysWhichMatrixAndHowOften) {
  RowScanDetector detector;
  std::vector<RowScan> scans;
  for (const Read& read : Times(Rows(0x10000, 5000, 4096, 20), 4)) {
    RowScan scan;
    if (detector.Observe(read.address, read.bytes, &scan)) scans.push_back(scan);
  }
  ASSERT_EQ(scans.size(), 3U);
  EXPECT_EQ(scans[0].base, 0x10000U);
  EXPECT_EQ(scans[0].stride, 5000U);
  EXPECT_EQ(scans[0].row_bytes, 4096U);
  EXPECT_EQ(scans[0].rows, 20U);
  EXPECT_EQ(scans[0].times, 2U);
  EXPECT_EQ(scans[2].times, 4U);
}

TEST(RowScanDetector, AnyReadsAreTaken) {
  RowScanDetector detector;
  std::minstd_rand random(3);
  RowScan scan;
  for (int i = 0; i < 50000; ++i) {
    const uintptr_t address = random() % 3 == 0 ? ~uintptr_t{0} - random() % 100 : random() % 9000;
    detector.Observe(address, random() % 5 == 0 ? ~size_t{0} : random() % 100, &scan);
  }
}

}  // namespace
}  // namespace intercept
