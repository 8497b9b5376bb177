#pragma once

#include <string>
#include <string_view>

namespace gguf {

// `text` in double quotes for an error sentence: control and non-ASCII bytes as \xNN, at most 64
// characters kept. Names come from the file, so they may hold anything and be of any length.
std::string Quoted(std::string_view text);

}  // namespace gguf
