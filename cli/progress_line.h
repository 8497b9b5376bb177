#pragma once

#include <chrono>
#include <string_view>

namespace cli {

// How far long work is, on standard error: a line that is overwritten on a terminal; in a log one
// line every few seconds.
class ProgressLine {
 public:
  ProgressLine();
  // fraction: 0..1; at 1 a terminal's line is removed.
  void Show(double fraction, std::string_view what);

 private:
  std::chrono::steady_clock::time_point shown_;
  bool terminal_;
};

}  // namespace cli
