#pragma once

#include <string>

#include "engine/weights.h"
#include "fabric/device.h"
#include "server/json.h"

namespace cli {

// What `tern inspect --fabric` says of a loaded model: each tensor's place and why, and the Fabric
// as a whole. docs/cli.md has the fields.

// Of one tensor, on the device that it was loaded to.
server::Json PlacementJson(const engine::TensorPlacement& placement, const fabric::Device& device);
// Of all of them.
server::Json FabricJson(const engine::Weights& weights, const fabric::Device& device);
// run: {"placements": [PlacementJson ...], "fabric": FabricJson}.
void PrintFabric(const server::Json& run);

// "12.5 MiB".
std::string Mebibytes(const server::Json& bytes);

}  // namespace cli
