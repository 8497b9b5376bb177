#pragma once

#include <string>

#include "gguf/types.h"

namespace cli {

// Errors: UsageError listing the known names. Upper and lower case are the same.
gguf::TensorType ParseTensorType(const std::string& name);

}  // namespace cli
