#pragma once

#include <signal.h>

namespace cli {

// While alive, Ctrl-C (and with kAndTerminate SIGTERM and SIGHUP too) makes Interrupted() true
// instead of ending the program. A SIGHUP that is ignored (nohup) stays so. One at a time.
class InterruptGuard {
 public:
  enum class Signals { kInterruptOnly, kAndTerminate };
  explicit InterruptGuard(Signals signals = Signals::kInterruptOnly);
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;
  ~InterruptGuard();

 private:
  struct Before {
    int signal;
    struct sigaction action;
  };
  Before before_[3];
  int count_ = 0;
};

// Since the latest guard was made.
bool Interrupted();

}  // namespace cli
