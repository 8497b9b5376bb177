#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace engine {

// Layers by number, from 0.
class LayerSet {
 public:
  LayerSet() = default;  // all
  // "all", "none", or numbers and ranges, both ends included: "0-23", "0,4-7".
  // Errors: std::invalid_argument, "must be ...".
  static LayerSet Parse(const std::string& text);
  std::string Text() const;

  bool all() const { return all_; }
  bool Contains(uint32_t layer) const;
  // The highest number that it names; 0 for "all" and "none".
  uint32_t Last() const;

 private:
  struct Range {
    uint32_t first = 0;
    uint32_t last = 0;
  };
  bool all_ = true;
  std::vector<Range> ranges_;
};

// Ternary planes per quantised matrix (fabric/plane_matrix.h).
struct PlaneCount {
  enum class Kind : uint8_t { kOff, kAuto, kFixed };
  Kind kind = Kind::kOff;
  uint32_t count = 0;  // of kFixed
};

// "profile" (nullopt), "off", "auto", "1" ... "6". Errors: std::invalid_argument, "must be ...".
std::optional<PlaneCount> ParsePlanes(const std::string& text);
std::string PlanesText(const std::optional<PlaneCount>& planes);

// A limit of the error, and planes to stay within it; native: quantised matrices stay with the
// host.
enum class FabricProfile : uint8_t { kNative, kFast, kBalanced, kAccurate };

// Where matrices go: to the Fabric or to the host.
struct PlacementOptions {
  FabricProfile profile = FabricProfile::kNative;
  LayerSet layers;                   // whose matrices the Fabric gets
  std::optional<PlaneCount> planes;  // nullopt: off if native, else auto
  std::optional<double> max_error;   // estimated, of a matrix on the Fabric; nullopt: the profile's
  std::string importance;            // file that weighs the error (engine/importance.h), or empty

  PlaneCount EffectivePlanes() const;
  // The profile's: fast 0.2, balanced 0.06, accurate 0; native 0.06, and no limit when the number
  // of planes is fixed.
  double EffectiveMaxError() const;
};

// "profile" (nullopt) or a number from 0 to 1. Errors: std::invalid_argument, "must be ...".
std::optional<double> ParseMaxError(const std::string& text);

}  // namespace engine
