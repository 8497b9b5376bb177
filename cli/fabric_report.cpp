#include "cli/fabric_report.h"

#include <array>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

namespace cli {
namespace {

using engine::TensorPlacement;
using fabric::MatrixPlace;
using server::Json;

// The matrices of a tensor (one, or those of a stack) by where they are.
struct Places {
  uint64_t on_host = 0;
  uint64_t on_device = 0;
  uint64_t in_pool = 0;
  uint64_t outside = 0;
  uint64_t pinned = 0;

  uint64_t on_fabric() const { return on_device + in_pool + outside; }
};

Places PlacesOf(const TensorPlacement& placement, const fabric::Device& device) {
  Places places;
  for (const fabric::MatrixId id : placement.matrices) {
    const fabric::Residency residency = device.residency(id);
    places.pinned += residency.pinned ? 1 : 0;
    switch (residency.place) {
      case MatrixPlace::kHost:
        ++places.on_host;
        break;
      case MatrixPlace::kDevice:
        ++places.on_device;
        break;
      case MatrixPlace::kPool:
        ++places.in_pool;
        break;
      case MatrixPlace::kOutside:
        ++places.outside;
        break;
    }
  }
  return places;
}

// Placed there, and taken by the device.
bool RunsOnFabric(const TensorPlacement& placement, const Places& places) {
  return placement.on_fabric && places.on_fabric() > 0;
}

std::string ReasonOf(const TensorPlacement& placement, const Places& places,
                     const fabric::Device& device) {
  const bool refused = placement.on_fabric && places.on_fabric() == 0;
  return refused ? placement.reason + ", but the device " + std::string(device.name()) +
                       " does not take it"
                 : placement.reason;
}

// Of each of its frames in PT-5, together.
uint64_t FrameBytes(const TensorPlacement& placement) {
  return placement.planes * ((placement.rows * placement.cols + 4) / 5);
}

// "pool", "outside", "device" (no bound holds for it), or how many of a stack are in the pool.
std::string PlaceText(const Json& residency) {
  const uint64_t in_pool = residency["in_pool"];
  const uint64_t outside = residency["outside"];
  std::string text = "device";
  if (in_pool > 0 && outside > 0) {
    text = std::to_string(in_pool) + " of " + std::to_string(in_pool + outside);
  } else if (in_pool + outside > 0) {
    text = in_pool > 0 ? "pool" : "outside";
  }
  return residency["pinned"] == 0 ? text : text + ", pinned";
}

void PrintPool(const Json& fabric) {
  if (fabric["pool_bytes"] == 0) {
    std::cout << "pool: holds every matrix\n";
    return;
  }
  const uint64_t in_pool = fabric["matrices_in_pool"];
  const uint64_t outside = fabric["matrices_outside"];
  std::cout << "pool: " << Mebibytes(fabric["pool_bytes"])
            << " for ternary matrices; before the first token it holds " << in_pool << " of "
            << in_pool + outside << ", the others wait in "
            << (fabric["pool_in_file"].get<bool>() ? "a file" : "memory") << "\n";
}

}  // namespace

std::string Mebibytes(const Json& bytes) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.1f MiB", bytes.get<double>() / 1048576.0);
  return text.data();
}

Json PlacementJson(const TensorPlacement& placement, const fabric::Device& device) {
  const Places places = PlacesOf(placement, device);
  const bool on_fabric = RunsOnFabric(placement, places);
  Json json = {{"name", placement.name},
               {"file_type", placement.file_type},
               {"layout", placement.layout},
               {"activation", placement.activation},
               {"resident_bytes", placement.resident_bytes},
               {"runs_on", on_fabric ? "fabric" : "host"}};
  if (!placement.reason.empty()) json["reason"] = ReasonOf(placement, places, device);
  if (!on_fabric) return json;
  json["frames"] = placement.planes;
  json["frame_bytes"] = FrameBytes(placement);
  json["density"] = 1.0 - placement.zero_rate;
  json["estimated_error"] = placement.plane_error;
  json["residency"] = {{"on_device", places.on_device},
                       {"in_pool", places.in_pool},
                       {"outside", places.outside},
                       {"pinned", places.pinned}};
  return json;
}

Json FabricJson(const engine::Weights& weights, const fabric::Device& device) {
  uint64_t frames = 0;
  uint64_t frame_bytes = 0;
  uint64_t fabric_bytes = 0;
  Places all;
  for (const TensorPlacement& placement : weights.placements) {
    const Places places = PlacesOf(placement, device);
    if (!RunsOnFabric(placement, places)) continue;
    frames += placement.planes;
    frame_bytes += FrameBytes(placement);
    fabric_bytes += placement.resident_bytes;
    all.in_pool += places.in_pool;
    all.outside += places.outside;
    all.pinned += places.pinned;
  }
  const fabric::PoolFacts pool = device.pool();
  return {{"frames", frames},
          {"frame_bytes", frame_bytes},
          {"resident_bytes", fabric_bytes},
          {"host_bytes", weights.resident_bytes - fabric_bytes},
          {"pool_bytes", pool.bytes},
          {"pool_in_file", pool.in_file},
          {"matrices_in_pool", all.in_pool},
          {"matrices_outside", all.outside},
          {"matrices_pinned", all.pinned}};
}

// The matrices, in the order of the file: where each runs, as what, where it is, and why.
void PrintFabric(const Json& run) {
  std::printf("\n%-32s %-8s %-11s %6s %12s %12s %7s %7s %-8s  %s\n", "matrix", "runs on", "layout",
              "frames", "frame bytes", "resident", "density", "error", "is in", "why");
  for (const Json& placement : run["placements"]) {
    if (!placement.contains("reason")) continue;
    const bool on_fabric = placement["runs_on"] == "fabric";
    char density[16] = "";
    char error[16] = "";
    if (on_fabric) {
      std::snprintf(density, sizeof density, "%.1f%%", 100 * placement["density"].get<double>());
      std::snprintf(error, sizeof error, "%.4f", placement["estimated_error"].get<double>());
    }
    std::printf("%-32s %-8s %-11s %6s %12s %12s %7s %7s %-8s  %s\n",
                placement["name"].get<std::string>().c_str(),
                placement["runs_on"].get<std::string>().c_str(),
                placement["layout"].get<std::string>().c_str(),
                on_fabric ? placement["frames"].dump().c_str() : "",
                on_fabric ? placement["frame_bytes"].dump().c_str() : "",
                placement["resident_bytes"].dump().c_str(), density, error,
                on_fabric ? PlaceText(placement["residency"]).c_str() : "",
                placement["reason"].get<std::string>().c_str());
  }
  const Json& fabric = run["fabric"];
  std::cout << "\nFabric: " << fabric["frames"] << " frames, " << Mebibytes(fabric["frame_bytes"])
            << " in PT-5, " << Mebibytes(fabric["resident_bytes"]) << " as kernels run them; "
            << "host: " << Mebibytes(fabric["host_bytes"]) << "\n";
  PrintPool(fabric);
}

}  // namespace cli
