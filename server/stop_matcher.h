#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace server {

// Finds the first stop string in text that arrives in pieces, and holds back what may be its
// beginning.
//
// First means: whose end comes first; of several that end at the same byte, the longest. So the
// result does not depend on where the text was cut. One Knuth-Morris-Pratt automaton per stop
// string: the cost per byte does not depend on the lengths.
class StopMatcher {
 public:
  // No stop string is empty.
  explicit StopMatcher(std::vector<std::string> stops = {});

  // Returns what can be shown now: never part of a stop string. After a match, always empty.
  std::string Push(std::string_view text);
  // The text is over: returns what was held back.
  std::string Flush();

  bool matched() const { return matched_; }
  // The stop string that was found; empty before.
  const std::string& found() const { return found_; }
  // Bytes that are held back.
  size_t held() const { return held_.size(); }

 private:
  struct Automaton {
    std::string pattern;
    std::vector<uint32_t> fallback;  // [pattern.size()]: longest border of each prefix
    size_t state = 0;                // length of the prefix that matches now

    explicit Automaton(std::string text);
    void Feed(char byte);
    bool complete() const { return state == pattern.size(); }
  };

  std::vector<Automaton> automata_;
  std::string held_;
  bool matched_ = false;
  std::string found_;
};

}  // namespace server
