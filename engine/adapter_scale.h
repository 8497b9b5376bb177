#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace engine {

// How strongly one adapter of a model takes part in a sequence.
struct AdapterScale {
  uint32_t adapter = 0;  // index into Weights::adapters
  float scale = 0;
  bool operator==(const AdapterScale&) const = default;
};

// Names what the adapters of a sequence make of the model: keys and values computed under one key
// must not be read under another. Equal sets have equal keys; the key of no adapters is empty.
// REQUIRES: ascending adapters, no scale of zero.
std::string AdapterSetKey(std::span<const AdapterScale> adapters);

}  // namespace engine
