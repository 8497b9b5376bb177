#include "cli/progress_line.h"

#include <unistd.h>

#include <cstdio>

namespace cli {

ProgressLine::ProgressLine()
    : shown_(std::chrono::steady_clock::now()), terminal_(isatty(STDERR_FILENO) != 0) {}

void ProgressLine::Show(double fraction, std::string_view what) {
  constexpr std::chrono::milliseconds kOnTerminal{100};
  constexpr std::chrono::milliseconds kInLog{5000};
  const auto now = std::chrono::steady_clock::now();
  const bool last = terminal_ && fraction >= 1.0;
  if (!last && now - shown_ < (terminal_ ? kOnTerminal : kInLog)) return;
  shown_ = now;
  std::fprintf(stderr, terminal_ ? "\r\033[K%3.0f %%  %.*s" : "%3.0f %%  %.*s\n", fraction * 100.0,
               static_cast<int>(what.size()), what.data());
  if (last) std::fprintf(stderr, "\r\033[K");
}

}  // namespace cli
