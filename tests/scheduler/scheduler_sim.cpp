// scheduler_sim --seeds A..B [--trace]: runs the scheduler's simulator over a range of seeds and
// prints one JSON line of what happened. Exit code 1 and a replay line when a rule is broken.

#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "tests/scheduler/simulator.h"

int main(int argc, char** argv) {
  uint64_t first = 0;
  uint64_t last = 0;
  bool trace = false;
  bool good = false;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--trace") == 0) {
      trace = true;
    } else if (std::strcmp(argv[i], "--seeds") == 0 && i + 1 < argc) {
      good = std::sscanf(argv[++i], "%" SCNu64 "..%" SCNu64, &first, &last) == 2 && first <= last;
    } else {
      good = false;
      break;
    }
  }
  if (!good) {
    std::fprintf(stderr, "usage: scheduler_sim --seeds A..B [--trace]\n");
    return 2;
  }
  scheduler::PrintReplayOnAbort();
  scheduler::SimulationReport total;
  for (uint64_t seed = first; seed <= last; ++seed) {
    try {
      total += scheduler::Simulate(seed, trace);
    } catch (const scheduler::SimulationFailure& e) {
      std::fprintf(stderr, "%s\n", e.what());
      return 1;
    }
  }
  std::printf("%s\n", total.ToString().c_str());
  return 0;
}
