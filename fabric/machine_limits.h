#pragma once

#include "fabric/cpu/isa.h"
#include "fabric/worker_team.h"

namespace fabric {

// What this machine can do at best with the threads of a team, measured, so that a throughput can
// be set beside what limits it.
struct MachineLimits {
  double read_bytes_per_second = 0;  // DRAM, all threads together
  double int8_macs_per_second = 0;   // multiply-adds on registers, all threads together
  Isa isa = Isa::kScalar;            // of the kernels that measured
};

// Best of several short runs, about a second together. Allocates 512 MiB for a while, so that no
// cache holds what is read.
// Errors: std::bad_alloc.
MachineLimits MeasureMachineLimits(WorkerTeam& team, Isa isa);

}  // namespace fabric
