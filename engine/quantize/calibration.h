#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace engine::quantize {

// How float weights w become trits t and one scale s, w ~ s t.
//
// Every rule is a threshold: t = 0 where |w| <= D, else the sign of w. With T the rule's threshold
// parameter:
//
//   rule        D                          s                 T    source
//   absmean     T mean|w|                  mean|w|           0.5  Ma et al. 2024, "The Era of 1-bit
//                                                                 LLMs" (BitNet b1.58): RoundClip(
//                                                                 w / mean|w|, -1, 1)
//   twn         T mean|w|                  mean|w|, |w| > D  0.7  Li & Liu 2016, "Ternary Weight
//                                                                 Networks", eq. 6 and 7
//   percentile  at most T % are within     mean|w|, |w| > D  46   the share that Lloyd-Max's three
//                                                                 levels put at 0 for a normal w
//   mean-std    mean|w| + T std|w|         mean|w|, |w| > D  -0.3 the same point, 0.61 sigma
//   absmax      T max|w|                   max|w|            0.5  round(w / max|w|), as llama.cpp
//                                                                 encodes TQ1_0 and TQ2_0
//   minmax      T s                        (max w - min w)/2 0.5  round-to-nearest over the range
//                                                                 with 0 inside it, and without the
//                                                                 zero point that trits cannot have
//
// The mean over kept weights (|w| > D) is the scale of least squared error for given trits.
enum class Calibration : uint8_t { kAbsmean, kTwn, kPercentile, kMeanStd, kAbsmax, kMinmax };

struct CalibrationOptions {
  Calibration rule = Calibration::kAbsmean;
  std::optional<double> threshold = {};  // T; the rule's default when absent
  bool fit_scale = false;                // s = mean over kept weights, whatever the rule says
};

std::string_view CalibrationName(Calibration rule);
std::optional<Calibration> FindCalibration(std::string_view name);
// "absmean, twn, ..." for help and errors.
std::string_view CalibrationNames();
double DefaultThreshold(Calibration rule);

// Errors: QuantizeError when the threshold is outside what its rule can mean.
void CheckCalibration(const CalibrationOptions& options);

// Trits of weights that share one scale, and that scale. All-zero weights give scale 0.
//
// Sums run in float64 over fixed pieces in a fixed order: the result does not depend on threads.
// trits: [values.size()].  Errors: QuantizeError when a weight is not finite.
float Ternarize(std::span<const float> values, const CalibrationOptions& options,
                std::span<int8_t> trits);

// d when every weight is exactly -d, 0 or +d (d >= 0): the weights are ternary already.
std::optional<float> FindExactScale(std::span<const float> values);

}  // namespace engine::quantize
