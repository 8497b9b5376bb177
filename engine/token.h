#pragma once

#include <cstdint>

namespace engine {

// Index into a model's vocabulary; never negative in a valid token.
using TokenId = int32_t;

}  // namespace engine
