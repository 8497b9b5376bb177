#include "fabric/sparse/hypervector.h"

#include <bit>
#include <cassert>
#include <cmath>
#include <utility>

#include "fabric/sparse/mix.h"
#include "fabric/sparse/trit_planes.h"

namespace fabric::sparse {
namespace {

// SplitMix64: one 64-bit number per call.
class Generator {
 public:
  explicit Generator(uint64_t seed) : state_(seed) {}
  uint64_t Next() { return Mix(state_ += 0x9e3779b97f4a7c15u); }

 private:
  uint64_t state_;
};

constexpr double kLeastLossThreshold = 0.61;

}  // namespace

Hypervector::Hypervector(uint32_t dimensions)
    : dimensions_(dimensions),
      plus_((size_t{dimensions} + kWordTrits - 1) / kWordTrits),
      minus_(plus_.size()) {}

Hypervector Hypervector::Random(uint32_t dimensions, uint64_t seed, double zero_rate) {
  Hypervector vector(dimensions);
  Generator random(seed);
  for (uint32_t i = 0; i < dimensions; ++i) {
    const uint64_t bits = random.Next();
    const double uniform = static_cast<double>(bits >> 11) * 0x1p-53;
    if (uniform >= zero_rate) vector.Set(i, (bits & 1) != 0 ? int8_t{1} : int8_t{-1});
  }
  return vector;
}

uint64_t Hypervector::nonzeros() const {
  uint64_t count = 0;
  for (size_t i = 0; i < plus_.size(); ++i) {
    count += static_cast<uint64_t>(std::popcount(plus_[i] | minus_[i]));
  }
  return count;
}

int8_t Hypervector::Get(uint32_t i) const {
  assert(i < dimensions_);
  const size_t word = i / kWordTrits;
  const uint32_t shift = i % kWordTrits;
  return static_cast<int8_t>(static_cast<int>(plus_[word] >> shift & 1) -
                             static_cast<int>(minus_[word] >> shift & 1));
}

void Hypervector::Set(uint32_t i, int8_t trit) {
  assert(i < dimensions_ && trit >= -1 && trit <= 1);
  const size_t word = i / kWordTrits;
  const uint64_t bit = uint64_t{1} << (i % kWordTrits);
  plus_[word] = trit > 0 ? plus_[word] | bit : plus_[word] & ~bit;
  minus_[word] = trit < 0 ? minus_[word] | bit : minus_[word] & ~bit;
}

Hypervector Bind(const Hypervector& a, const Hypervector& b) {
  assert(a.dimensions_ == b.dimensions_);
  Hypervector bound(a.dimensions_);
  for (size_t i = 0; i < a.plus_.size(); ++i) {
    bound.plus_[i] = (a.plus_[i] & b.plus_[i]) | (a.minus_[i] & b.minus_[i]);
    bound.minus_[i] = (a.plus_[i] & b.minus_[i]) | (a.minus_[i] & b.plus_[i]);
  }
  return bound;
}

Hypervector Bundle(const Hypervector& a, const Hypervector& b) {
  assert(a.dimensions_ == b.dimensions_);
  Hypervector sum(a.dimensions_);
  for (size_t i = 0; i < a.plus_.size(); ++i) {
    sum.plus_[i] = (a.plus_[i] & ~b.minus_[i]) | (b.plus_[i] & ~a.minus_[i]);
    sum.minus_[i] = (a.minus_[i] & ~b.plus_[i]) | (b.minus_[i] & ~a.plus_[i]);
  }
  return sum;
}

Hypervector BundleAll(std::span<const Hypervector> items, std::optional<double> threshold) {
  assert(!items.empty());
  const uint32_t dimensions = items.front().dimensions();
  std::vector<int32_t> sums(dimensions);
  uint64_t nonzeros = 0;
  for (const Hypervector& item : items) {
    assert(item.dimensions() == dimensions);
    nonzeros += item.nonzeros();
    for (uint32_t i = 0; i < dimensions; ++i) sums[i] += item.Get(i);
  }
  // Each non-zero adds one to the variance of its dimension's sum.
  const double deviation = std::sqrt(static_cast<double>(nonzeros) / dimensions);
  const double cut = threshold.value_or(kLeastLossThreshold * deviation);
  Hypervector bundle(dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    if (std::abs(sums[i]) > cut) bundle.Set(i, sums[i] > 0 ? int8_t{1} : int8_t{-1});
  }
  return bundle;
}

double Similarity(const Hypervector& a, const Hypervector& b) {
  assert(a.dimensions() == b.dimensions());
  const double scale =
      std::sqrt(static_cast<double>(a.nonzeros()) * static_cast<double>(b.nonzeros()));
  if (scale == 0) return 0;
  return static_cast<double>(Dot(a.plus(), a.minus(), b.plus(), b.minus())) / scale;
}

size_t ItemMemory::Add(Hypervector item) {
  items_.push_back(std::move(item));
  return items_.size() - 1;
}

size_t ItemMemory::Cleanup(const Hypervector& noisy) const {
  assert(!items_.empty());
  size_t best = 0;
  double best_similarity = Similarity(noisy, items_[0]);
  for (size_t i = 1; i < items_.size(); ++i) {
    const double similarity = Similarity(noisy, items_[i]);
    if (similarity > best_similarity) {
      best = i;
      best_similarity = similarity;
    }
  }
  return best;
}

}  // namespace fabric::sparse
