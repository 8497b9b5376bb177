#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/api_error.h"

namespace server {

// A name in chat completions, and what a client of another protocol calls it.
using RenamedParam = std::pair<std::string_view, std::string_view>;

// The error in the words of a protocol that becomes a chat completion: names of parameters in its
// message and its `param`. An earlier pair goes before a later one.
ApiError RenamedError(const ApiError& error, std::span<const RenamedParam> names);

// The same for names by themselves.
void RenameParams(std::span<const RenamedParam> names, std::span<std::string> params);

// work(), with its ApiErrors renamed.
template <typename Work>
auto InWordsOf(std::span<const RenamedParam> names, const Work& work) {
  try {
    return work();
  } catch (const ApiError& error) {
    throw RenamedError(error, names);
  }
}

}  // namespace server
