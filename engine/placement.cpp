#include "engine/placement.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <limits>
#include <stdexcept>

namespace engine {
namespace {

// Beyond any model.
constexpr uint32_t kMostLayers = 100'000;
// What the codes of a block type err by themselves is 0.02 (six bits) to 0.09 (four).
constexpr double kFastError = 0.2;
constexpr double kBalancedError = 0.06;

template <typename Number>
bool ParseAll(std::string_view text, Number* number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *number);
  return error == std::errc() && end == text.data() + text.size();
}

[[noreturn]] void Refuse(const std::string& expected, const std::string& text) {
  throw std::invalid_argument("must be " + expected + ", not \"" + text + "\"");
}

std::string ErrorText(double error) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.4f", error);
  return text.data();
}

std::string Counted(uint32_t planes) {
  return std::to_string(planes) + (planes == 1 ? " plane" : " planes");
}

// The reason that keeps a layer from the Fabric, or nothing.
std::optional<std::string> NotThere(const PlacementOptions& options,
                                    std::optional<uint32_t> layer) {
  if (layer && !options.layers.Contains(*layer)) {
    return "layer " + std::to_string(*layer) + " is not in --fabric-layers " +
           options.layers.Text();
  }
  return std::nullopt;
}

// The fewest planes within the limit, or as many as were asked for, at most those that are exact.
fabric::PlaneChoice Choose(const PlaneCount& planes, double max_error,
                           const std::vector<fabric::PlaneChoice>& choices) {
  if (planes.kind == PlaneCount::Kind::kFixed) {
    return choices[std::min<size_t>(planes.count, choices.size()) - 1];
  }
  const auto fitting =
      std::find_if(choices.begin(), choices.end(),
                   [&](const fabric::PlaneChoice& choice) { return choice.error <= max_error; });
  return fitting == choices.end() ? choices.back() : *fitting;
}

}  // namespace

LayerSet LayerSet::Parse(const std::string& text) {
  constexpr char kExpected[] = "all, none, or layers such as 0-23 or 0,4-7";
  LayerSet set;
  if (text == "all") return set;
  set.all_ = false;
  if (text == "none") return set;
  for (std::string_view rest = text;;) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view part = rest.substr(0, comma);
    const size_t dash = std::min(part.find('-'), part.size());
    Range range;
    if (!ParseAll(part.substr(0, dash), &range.first)) Refuse(kExpected, text);
    range.last = range.first;
    if (dash < part.size() && !ParseAll(part.substr(dash + 1), &range.last)) {
      Refuse(kExpected, text);
    }
    if (range.last < range.first || range.last >= kMostLayers) Refuse(kExpected, text);
    set.ranges_.push_back(range);
    if (comma == rest.size()) return set;
    rest.remove_prefix(comma + 1);
  }
}

std::string LayerSet::Text() const {
  if (all_) return "all";
  if (ranges_.empty()) return "none";
  std::string text;
  for (const Range& range : ranges_) {
    if (!text.empty()) text += ',';
    text += std::to_string(range.first);
    if (range.last != range.first) text += '-' + std::to_string(range.last);
  }
  return text;
}

bool LayerSet::Contains(uint32_t layer) const {
  return all_ || std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& range) {
           return layer >= range.first && layer <= range.last;
         });
}

uint32_t LayerSet::Last() const {
  uint32_t last = 0;
  for (const Range& range : ranges_) last = std::max(last, range.last);
  return last;
}

std::optional<PlaneCount> ParsePlanes(const std::string& text) {
  if (text == "profile") return std::nullopt;
  if (text == "off") return PlaneCount{};
  if (text == "auto") return PlaneCount{.kind = PlaneCount::Kind::kAuto};
  PlaneCount planes{.kind = PlaneCount::Kind::kFixed};
  if (!ParseAll(text, &planes.count) || planes.count == 0 ||
      planes.count > fabric::kernels::kMaxTernaryPlanes) {
    Refuse("profile, off, auto or a number from 1 to 6", text);
  }
  return planes;
}

std::string PlanesText(const std::optional<PlaneCount>& planes) {
  if (!planes) return "profile";
  if (planes->kind == PlaneCount::Kind::kFixed) return std::to_string(planes->count);
  return planes->kind == PlaneCount::Kind::kAuto ? "auto" : "off";
}

std::optional<double> ParseMaxError(const std::string& text) {
  if (text == "profile") return std::nullopt;
  double error = 0;
  if (!ParseAll(text, &error) || !(error >= 0 && error <= 1)) {
    Refuse("profile or a number from 0 to 1", text);
  }
  return error;
}

PlaneCount PlacementOptions::EffectivePlanes() const {
  if (planes) return *planes;
  if (profile == FabricProfile::kNative) return {};
  return {.kind = PlaneCount::Kind::kAuto, .count = 0};
}

double PlacementOptions::EffectiveMaxError() const {
  if (max_error) return *max_error;
  switch (profile) {
    case FabricProfile::kFast:
      return kFastError;
    case FabricProfile::kBalanced:
      return kBalancedError;
    case FabricProfile::kAccurate:
      return 0;
    case FabricProfile::kNative:
      break;
  }
  return EffectivePlanes().kind == PlaneCount::Kind::kFixed
             ? std::numeric_limits<double>::infinity()
             : kBalancedError;
}

std::optional<uint32_t> LayerOf(std::string_view tensor) {
  constexpr std::string_view kPrefix = "blk.";
  if (!tensor.starts_with(kPrefix)) return std::nullopt;
  const std::string_view number = tensor.substr(kPrefix.size());
  uint32_t layer = 0;
  return ParseAll(number.substr(0, std::min(number.find('.'), number.size())), &layer)
             ? std::optional(layer)
             : std::nullopt;
}

Placement PlaceTernary(const PlacementOptions& options, std::optional<uint32_t> layer) {
  if (auto reason = NotThere(options, layer)) return {.reason = *std::move(reason)};
  if (!layer && !options.layers.all()) {
    return {.reason = "the head goes to the Fabric with --fabric-layers all only"};
  }
  return {.on_fabric = true, .reason = "its weights are trits"};
}

Placement PlaceQuantized(const PlacementOptions& options, std::optional<uint32_t> layer,
                         const fabric::QuantizedMatrix& matrix,
                         std::span<const float> mean_squares) {
  if (!layer) return {.reason = "the host looks rows up in it, or screens them"};
  if (auto reason = NotThere(options, layer)) return {.reason = *std::move(reason)};
  const PlaneCount planes = options.EffectivePlanes();
  const std::string type(QuantizedTypeName(matrix.type()));
  if (planes.kind == PlaneCount::Kind::kOff) {
    return {.reason = type + " runs at its bits, without --fabric-profile or --fabric-planes"};
  }
  if (matrix.cols() >= 1U << 17) return {.reason = "it has too many columns for planes"};
  const double limit = options.EffectiveMaxError();
  const fabric::PlaneChoice choice =
      Choose(planes, limit, fabric::MeasurePlanes(matrix, mean_squares));
  const std::string count = Counted(choice.planes);
  const std::string basis = mean_squares.empty() ? " (estimated)" : " (by its calibration)";
  if (choice.error > limit) {
    return {.reason = count + " would err by " + ErrorText(choice.error) + basis + ", more than " +
                      ErrorText(limit)};
  }
  return {.on_fabric = true,
          .planes = choice,
          .reason = choice.error == 0 ? count + " hold its codes exactly"
                                      : count + " err by " + ErrorText(choice.error) + basis};
}

Placement PlaceDense(std::string_view type) {
  return {.reason = std::string(type) + " weights are neither trits nor codes of some bits"};
}

}  // namespace engine
