#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/placement_options.h"
#include "fabric/plane_matrix.h"

namespace engine {

// What becomes of a matrix, and why.
struct Placement {
  bool on_fabric = false;
  std::optional<fabric::PlaneChoice> planes = std::nullopt;  // of quantised matrices on the Fabric
  std::string reason = {};                                   // "3 planes hold its codes exactly"
};

// The layer that a tensor of this name belongs to; nullopt for the embedding and the head.
std::optional<uint32_t> LayerOf(std::string_view tensor);

Placement PlaceTernary(const PlacementOptions& options, std::optional<uint32_t> layer);
// Measures the matrix when planes are wanted. mean_squares: [cols], of its input, or empty when
// nothing is known of that.
Placement PlaceQuantized(const PlacementOptions& options, std::optional<uint32_t> layer,
                         const fabric::QuantizedMatrix& matrix,
                         std::span<const float> mean_squares = {});
// type: as it is kept, "f16".
Placement PlaceDense(std::string_view type);

}  // namespace engine
