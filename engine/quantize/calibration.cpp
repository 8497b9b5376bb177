#include "engine/quantize/calibration.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cassert>
#include <cmath>
#include <string>
#include <vector>

#include "engine/quantize/error.h"
#include "fabric/parallel.h"

namespace engine::quantize {
namespace {

struct Rule {
  Calibration rule;
  std::string_view name;
  double threshold;
  double lowest, highest;  // of the threshold
};

constexpr std::array<Rule, 6> kRules = {{
    {Calibration::kAbsmean, "absmean", 0.5, 0, 100},
    {Calibration::kTwn, "twn", 0.7, 0, 100},
    {Calibration::kPercentile, "percentile", 46, 0, 100},
    {Calibration::kMeanStd, "mean-std", -0.3, -100, 100},
    {Calibration::kAbsmax, "absmax", 0.5, 0, 1},
    {Calibration::kMinmax, "minmax", 0.5, 0, 1},
}};

const Rule& RuleOf(Calibration calibration) {
  for (const Rule& rule : kRules) {
    if (rule.rule == calibration) return rule;
  }
  assert(false);
  return kRules[0];
}

// Weights that one task sums up: the pieces, not the threads, fix the order of the sum.
constexpr size_t kPiece = size_t{1} << 16;

size_t PiecesOf(size_t count) { return (count + kPiece - 1) / kPiece; }

// Calls body(piece, begin, end) over all pieces.
template <typename Body>
void ForPieces(size_t count, const Body& body) {
  fabric::ParallelFor(PiecesOf(count), 1, [&](size_t first, size_t last) {
    for (size_t piece = first; piece < last; ++piece) {
      body(piece, piece * kPiece, std::min(count, (piece + 1) * kPiece));
    }
  });
}

struct Moments {
  double sum = 0;      // of |w|
  double squares = 0;  // of w
  float lowest = 0;    // of w, at most 0
  float highest = 0;   // of w, at least 0

  void Merge(const Moments& other) {
    sum += other.sum;
    squares += other.squares;
    lowest = std::min(lowest, other.lowest);
    highest = std::max(highest, other.highest);
  }
};

Moments MomentsOf(std::span<const float> values) {
  std::vector<Moments> pieces(PiecesOf(values.size()));
  ForPieces(values.size(), [&](size_t piece, size_t begin, size_t end) {
    Moments moments;
    for (size_t i = begin; i < end; ++i) {
      const double value = values[i];
      moments.sum += std::fabs(value);
      moments.squares += value * value;
      moments.lowest = std::min(moments.lowest, values[i]);
      moments.highest = std::max(moments.highest, values[i]);
    }
    pieces[piece] = moments;
  });
  Moments total;
  for (const Moments& piece : pieces) total.Merge(piece);
  // float64 sums of finite float32 cannot overflow, so this finds every infinity and NaN.
  if (!std::isfinite(total.sum)) throw QuantizeError("a weight is not a finite number");
  return total;
}

// Magnitudes in ascending order are float bits in ascending order: two rounds of counting, upper
// half then lower half of the bits, find the one of a given rank without sorting.
float MagnitudeOfRank(std::span<const float> values, uint64_t rank) {
  const auto bits_of = [&](size_t i) { return std::bit_cast<uint32_t>(values[i]) & 0x7fffffff; };
  const auto count_where = [&](auto bucket_of) {
    constexpr size_t kBuckets = 1 << 16;
    std::vector<std::atomic<uint64_t>> counts(kBuckets);
    ForPieces(values.size(), [&](size_t, size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) {
        const int bucket = bucket_of(bits_of(i));
        if (bucket >= 0) {
          counts[static_cast<size_t>(bucket)].fetch_add(1, std::memory_order_relaxed);
        }
      }
    });
    return counts;
  };
  const auto find = [&](const std::vector<std::atomic<uint64_t>>& counts) {
    uint32_t bucket = 0;
    while (rank >= counts[bucket]) rank -= counts[bucket++];
    return bucket;
  };
  const uint32_t upper =
      find(count_where([](uint32_t bits) { return static_cast<int>(bits >> 16); }));
  const uint32_t lower = find(count_where([upper](uint32_t bits) {
    return bits >> 16 == upper ? static_cast<int>(bits & 0xffff) : -1;
  }));
  return std::bit_cast<float>(upper << 16 | lower);
}

// Short groups: sorting a few hundred magnitudes beats counting into 65,536 buckets.
float MagnitudeOfRankBySorting(std::span<const float> values, uint64_t rank) {
  std::vector<float> magnitudes(values.size());
  std::transform(values.begin(), values.end(), magnitudes.begin(),
                 [](float value) { return std::fabs(value); });
  const auto at = magnitudes.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(magnitudes.begin(), at, magnitudes.end());
  return *at;
}

// The largest D that at most `percent` % of the weights do not exceed (nearest rank). Where equal
// magnitudes straddle that share, as in weights of few levels, D is just below them: otherwise all
// of them would become 0.
double Percentile(std::span<const float> values, double percent) {
  const double wanted = std::ceil(percent / 100.0 * static_cast<double>(values.size()));
  if (wanted < 1) return 0;
  const auto rank = std::min<uint64_t>(static_cast<uint64_t>(wanted), values.size()) - 1;
  const float threshold = values.size() < kPiece ? MagnitudeOfRankBySorting(values, rank)
                                                 : MagnitudeOfRank(values, rank);
  const auto covered = static_cast<uint64_t>(std::count_if(
      values.begin(), values.end(), [&](float value) { return std::fabs(value) <= threshold; }));
  return covered > rank + 1 ? std::nextafter(threshold, 0.0F) : threshold;
}

struct Levels {
  double threshold = 0;
  double scale = 0;
  bool fit = true;  // the scale is the mean over kept weights instead
};

Levels LevelsOf(std::span<const float> values, const CalibrationOptions& options) {
  const Moments moments = MomentsOf(values);
  const double t = options.threshold.value_or(DefaultThreshold(options.rule));
  const auto count = static_cast<double>(values.size());
  const double mean = moments.sum / count;
  const double largest = std::max(-double{moments.lowest}, double{moments.highest});
  switch (options.rule) {
    case Calibration::kAbsmean:
      return {t * mean, mean, false};
    case Calibration::kTwn:
      return {t * mean};
    case Calibration::kPercentile:
      return {Percentile(values, t)};
    case Calibration::kMeanStd: {
      const double variance = std::max(0.0, moments.squares / count - mean * mean);
      return {mean + t * std::sqrt(variance)};
    }
    case Calibration::kAbsmax:
      return {t * largest, largest, false};
    case Calibration::kMinmax: {
      const double half = (double{moments.highest} - double{moments.lowest}) / 2;
      return {t * half, half, false};
    }
  }
  return {};
}

struct Kept {
  double sum = 0;  // of |w|
  uint64_t count = 0;
};

}  // namespace

std::string_view CalibrationName(Calibration rule) { return RuleOf(rule).name; }

std::optional<Calibration> FindCalibration(std::string_view name) {
  for (const Rule& rule : kRules) {
    if (rule.name == name) return rule.rule;
  }
  return std::nullopt;
}

std::string_view CalibrationNames() { return "absmean, twn, percentile, mean-std, absmax, minmax"; }

double DefaultThreshold(Calibration rule) { return RuleOf(rule).threshold; }

void CheckCalibration(const CalibrationOptions& options) {
  const Rule& rule = RuleOf(options.rule);
  const double t = options.threshold.value_or(rule.threshold);
  if (t >= rule.lowest && t <= rule.highest) return;  // false for NaN
  const auto number = [](double value) {
    std::string text = std::to_string(value);
    text.erase(text.find_last_not_of('0') + 1);
    if (text.ends_with('.')) text.pop_back();
    return text;
  };
  throw QuantizeError("The threshold of " + std::string(rule.name) + " must be from " +
                      number(rule.lowest) + " to " + number(rule.highest) + ", not " + number(t) +
                      ".");
}

float Ternarize(std::span<const float> values, const CalibrationOptions& options,
                std::span<int8_t> trits) {
  assert(values.size() == trits.size() && !values.empty());
  const Levels levels = LevelsOf(values, options);
  // A weight that is 0 stays 0, also where a negative parameter put the threshold below it.
  const double threshold = std::max(levels.threshold, 0.0);
  std::vector<Kept> pieces(PiecesOf(values.size()));
  ForPieces(values.size(), [&](size_t piece, size_t begin, size_t end) {
    Kept kept;
    for (size_t i = begin; i < end; ++i) {
      const double magnitude = std::fabs(double{values[i]});
      const bool keep = magnitude > threshold;
      const int sign = values[i] < 0 ? -1 : 1;
      trits[i] = static_cast<int8_t>(keep ? sign : 0);
      kept.sum += keep ? magnitude : 0.0;
      kept.count += keep ? 1 : 0;
    }
    pieces[piece] = kept;
  });
  Kept total;
  for (const Kept& piece : pieces) {
    total.sum += piece.sum;
    total.count += piece.count;
  }
  if (total.count == 0) return 0.0F;
  const bool fit = levels.fit || options.fit_scale;
  return static_cast<float>(fit ? total.sum / static_cast<double>(total.count) : levels.scale);
}

std::optional<float> FindExactScale(std::span<const float> values) {
  float scale = 0;
  for (const float value : values) scale = std::max(scale, std::fabs(value));
  if (!std::isfinite(scale)) return std::nullopt;
  // Without branches: the trits of a ternary tensor are as good as random. A NaN is no level.
  uint32_t others = 0;
  for (const float value : values) {
    const float magnitude = std::fabs(value);
    others |= static_cast<uint32_t>(magnitude != 0) & static_cast<uint32_t>(magnitude != scale);
  }
  if (others != 0) return std::nullopt;
  return scale;
}

}  // namespace engine::quantize
