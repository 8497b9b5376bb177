#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace fabric::sparse {

// A vector of trits for vector-symbolic computing, stored as two bit planes.
//
// Words:   Bind is the trit product (its own inverse where the key has no zeros); Bundle the sum,
//          cut to -1..1; Similarity the dot product over the geometric mean of the numbers of
//          non-zeros, which is the cosine.
// Threads: immutable once built.
class Hypervector {
 public:
  // dimensions trits, all zero.
  explicit Hypervector(uint32_t dimensions);
  // Trits of a seeded generator: zero with probability zero_rate, otherwise +1 or -1 alike. The
  // same arguments give the same vector everywhere.
  static Hypervector Random(uint32_t dimensions, uint64_t seed, double zero_rate = 0.0);

  uint32_t dimensions() const { return dimensions_; }
  uint64_t nonzeros() const;
  int8_t Get(uint32_t i) const;
  void Set(uint32_t i, int8_t trit);
  std::span<const uint64_t> plus() const { return plus_; }
  std::span<const uint64_t> minus() const { return minus_; }

  friend bool operator==(const Hypervector&, const Hypervector&) = default;
  friend Hypervector Bind(const Hypervector& a, const Hypervector& b);
  friend Hypervector Bundle(const Hypervector& a, const Hypervector& b);

 private:
  uint32_t dimensions_;
  std::vector<uint64_t> plus_;
  std::vector<uint64_t> minus_;
};

// REQUIRES of all below: equal dimensions.
// p = (a+ b+) | (a- b-), n = (a+ b-) | (a- b+).
Hypervector Bind(const Hypervector& a, const Hypervector& b);
// p = (a+ & ~b-) | (b+ & ~a-), n = (a- & ~b+) | (b- & ~a+): the saturating sum of two. Bundling
// many one after the other forgets the first; BundleAll does not.
Hypervector Bundle(const Hypervector& a, const Hypervector& b);
// The sum of all, cut to trits: 0 where |sum| <= threshold. Without a threshold, the one that loses
// least: 0.61 standard deviations of the sum (the optimum three-level quantiser of a Gaussian, J.
// Max, "Quantizing for minimum distortion", 1960). REQUIRES: !items.empty().
Hypervector BundleAll(std::span<const Hypervector> items,
                      std::optional<double> threshold = std::nullopt);
double Similarity(const Hypervector& a, const Hypervector& b);

// The known vectors, to which a noisy one is cleaned up.
class ItemMemory {
 public:
  // Returns the item's index.
  size_t Add(Hypervector item);
  const Hypervector& operator[](size_t index) const { return items_[index]; }
  size_t size() const { return items_.size(); }
  // The most similar item; ties go to the lowest index. REQUIRES: size() > 0.
  size_t Cleanup(const Hypervector& noisy) const;

 private:
  std::vector<Hypervector> items_;
};

}  // namespace fabric::sparse
