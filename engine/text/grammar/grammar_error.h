#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace engine::text::grammar {

// A schema, grammar or pattern that cannot be used. what() is a sentence that names the place.
class GrammarError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Bounds on one compilation: every source is a stranger's.
struct GrammarLimits {
  size_t source_bytes = 256 << 10;  // of a grammar, a pattern, or all choices together
  uint32_t nesting = 128;           // of groups and schemas
  uint32_t nodes = 200'000;         // of the expression tree
  uint32_t states = 200'000;        // of the automaton
  uint32_t edges = 1'000'000;
  uint32_t dfa_states = 20'000;  // of one determinised pattern
  uint32_t repetition = 1'000'000;
  uint32_t milliseconds = 2000;  // wall time
};

// Counts what one compilation builds. Throws GrammarError beyond a limit.
class CompileBudget {
 public:
  explicit CompileBudget(const GrammarLimits& limits)
      : limits_(limits),
        deadline_(std::chrono::steady_clock::now() +
                  std::chrono::milliseconds(limits.milliseconds)) {}

  const GrammarLimits& limits() const { return limits_; }

  // One piece of work of any kind; looks at the clock now and then.
  void Step() {
    if (++steps_ % 1024 == 0 && std::chrono::steady_clock::now() > deadline_) {
      throw GrammarError("The grammar takes longer than " + std::to_string(limits_.milliseconds) +
                         " ms to compile.");
    }
  }
  static void CheckAtMost(size_t found, size_t limit, const char* what) {
    if (found <= limit) return;
    throw GrammarError("The grammar has more than " + std::to_string(limit) + " " + what + ".");
  }
  void CheckSource(size_t bytes) const {
    CheckAtMost(bytes, limits_.source_bytes, "bytes of source");
  }
  void CheckNesting(size_t depth) const {
    if (depth <= limits_.nesting) return;
    throw GrammarError("The grammar is nested deeper than " + std::to_string(limits_.nesting) +
                       " levels.");
  }

 private:
  GrammarLimits limits_;
  std::chrono::steady_clock::time_point deadline_;
  uint64_t steps_ = 0;
};

}  // namespace engine::text::grammar
