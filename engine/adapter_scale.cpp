#include "engine/adapter_scale.h"

#include <bit>

namespace engine {

std::string AdapterSetKey(std::span<const AdapterScale> adapters) {
  std::string key;
  for (const AdapterScale& entry : adapters) {
    // The scale's bits: two scales that print alike may still differ.
    key += std::to_string(entry.adapter) + ":" +
           std::to_string(std::bit_cast<uint32_t>(entry.scale)) + ";";
  }
  return key;
}

}  // namespace engine
