#include "cli/interrupt.h"

#include <csignal>
#include <initializer_list>

namespace cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;

}  // namespace

InterruptGuard::InterruptGuard(Signals signals) {
  interrupted = 0;
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = 1; };
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    if (signal != SIGINT && signals == Signals::kInterruptOnly) continue;
    before_[count_].signal = signal;
    sigaction(signal, &action, &before_[count_].action);
    if (signal == SIGHUP && before_[count_].action.sa_handler == SIG_IGN) {
      sigaction(signal, &before_[count_].action, nullptr);
      continue;
    }
    ++count_;
  }
}

InterruptGuard::~InterruptGuard() {
  for (int i = 0; i < count_; ++i) sigaction(before_[i].signal, &before_[i].action, nullptr);
}

bool Interrupted() { return interrupted != 0; }

}  // namespace cli
