#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>

#include "fabric/worker_team.h"

namespace engine {

// Fewer tokens than this are not worth a wake-up of the team for a norm or a rotation.
inline constexpr uint32_t kInlineTokens = 4;

// Calls task(token) for every token, by the team when there are enough of them.
template <typename Task>
void ForTokens(fabric::WorkerTeam& team, uint32_t tokens, const Task& task) {
  if (tokens < kInlineTokens || team.size() == 1) {
    for (uint32_t token = 0; token < tokens; ++token) task(token);
    return;
  }
  const auto range = [&task](int, size_t begin, size_t end) {
    for (size_t token = begin; token < end; ++token) task(static_cast<uint32_t>(token));
  };
  const size_t grain = std::max<size_t>(1, tokens / (4 * static_cast<size_t>(team.size())));
  team.ParallelFor(tokens, grain, std::ref(range));
}

}  // namespace engine
