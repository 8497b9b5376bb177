#include "engine/repetition.h"

#include <algorithm>
#include <unordered_map>

namespace engine {
namespace {

// z[k]: how many tokens the text's end shares with the text that ends k tokens earlier. The Z
// algorithm (Gusfield 1997, 1.4), walking from the end.
std::vector<uint32_t> MatchesFromTheEnd(std::span<const TokenId> tokens, size_t limit) {
  const size_t count = tokens.size();
  const auto at = [&](size_t i) { return tokens[count - 1 - i]; };
  std::vector<uint32_t> matches(count, 0);
  size_t left = 0;
  size_t right = 0;  // [left, right): the match that reaches furthest
  for (size_t k = 1; k < count; ++k) {
    size_t length = k < right ? std::min<size_t>(right - k, matches[k - left]) : 0;
    while (length < limit && k + length < count && at(length) == at(k + length)) ++length;
    matches[k] = static_cast<uint32_t>(length);
    if (k + length > right) {
      left = k;
      right = k + length;
    }
  }
  return matches;
}

}  // namespace

std::vector<Repetition> FindRepetitions(std::span<const TokenId> tokens,
                                        std::span<const TokenId> breakers, uint32_t least) {
  std::vector<Repetition> found;
  const auto breaks = [&](TokenId token) {
    return std::binary_search(breakers.begin(), breakers.end(), token);
  };
  const auto last_breaker = std::find_if(tokens.rbegin(), tokens.rend(), breaks);
  const auto limit = static_cast<size_t>(last_breaker - tokens.rbegin());
  if (limit < std::max(least, 1U)) return found;
  const std::vector<uint32_t> matches = MatchesFromTheEnd(tokens, limit);
  std::unordered_map<TokenId, size_t> places;
  for (size_t k = 1; k < tokens.size(); ++k) {
    if (matches[k] < std::max(least, 1U)) continue;
    const TokenId next = tokens[tokens.size() - k];
    if (breaks(next)) continue;
    const auto [place, added] = places.try_emplace(next, found.size());
    if (added) found.push_back({next, 0});
    Repetition& repetition = found[place->second];
    repetition.length = std::max(repetition.length, matches[k]);
  }
  return found;
}

}  // namespace engine
