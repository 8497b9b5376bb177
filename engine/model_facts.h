#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/engine_options.h"
#include "engine/text/tokenizer.h"

namespace engine {

// What a model file says of itself.
struct ModelFacts {
  std::string architecture;
  uint32_t context_length = 0;  // under the options
  uint32_t vocabulary = 0;
  uint64_t parameters = 0;
  uint64_t weight_bytes = 0;  // in the file; about what the weights take in memory
  uint64_t kv_bytes = 0;      // of the KV pool and recurrent states, if it were loaded now
  uint64_t kv_block_bytes = 0;
};

// Reads the header only. Errors: as Model::Load and the Engine constructor.
ModelFacts InspectModel(const std::string& path, const EngineOptions& options);

// The tokenizer alone. Errors: as Model::Load.
std::unique_ptr<const text::Tokenizer> ReadTokenizer(const std::string& path,
                                                     const EngineOptions& options);

}  // namespace engine
