#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "gguf/header.h"
#include "gguf/reader.h"
#include "gguf/tensor_info.h"

namespace gguf {

// Gives every declared tensor its meaning: type, byte range inside the file, no two overlapping.
//
// A tensor's span runs from its offset to the next tensor's, or to the end of the file. Spans are
// the evidence for ids that forks use differently (docs/ternary_format.md).
//
// Returns tensors in the order of the table.
// Errors: FormatError naming the tensor.
std::vector<TensorInfo> ResolveTensors(const Header& header, std::string_view architecture,
                                       uint64_t file_bytes, uint32_t part,
                                       const ReadOptions& options);

}  // namespace gguf
