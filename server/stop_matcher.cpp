#include "server/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace server {

StopMatcher::Automaton::Automaton(std::string text) : pattern(std::move(text)) {
  fallback.resize(pattern.size(), 0);
  uint32_t border = 0;
  for (size_t i = 1; i < pattern.size(); ++i) {
    while (border > 0 && pattern[i] != pattern[border]) border = fallback[border - 1];
    if (pattern[i] == pattern[border]) ++border;
    fallback[i] = border;
  }
}

void StopMatcher::Automaton::Feed(char byte) {
  while (state > 0 && pattern[state] != byte) state = fallback[state - 1];
  if (pattern[state] == byte) ++state;
}

StopMatcher::StopMatcher(std::vector<std::string> stops) {
  automata_.reserve(stops.size());
  for (std::string& stop : stops) automata_.emplace_back(std::move(stop));
}

std::string StopMatcher::Push(std::string_view text) {
  if (matched_) return {};
  if (automata_.empty()) return std::string(text);
  for (const char byte : text) {
    held_ += byte;
    size_t match = 0;
    for (Automaton& automaton : automata_) {
      automaton.Feed(byte);
      if (automaton.complete()) match = std::max(match, automaton.state);
    }
    if (match == 0) continue;
    matched_ = true;
    found_ = held_.substr(held_.size() - match);
    held_.resize(held_.size() - match);
    return std::exchange(held_, {});
  }
  size_t partial = 0;
  for (const Automaton& automaton : automata_) partial = std::max(partial, automaton.state);
  std::string shown = held_.substr(0, held_.size() - partial);
  held_.erase(0, shown.size());
  return shown;
}

std::string StopMatcher::Flush() { return std::exchange(held_, {}); }

}  // namespace server
