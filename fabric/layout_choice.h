#pragma once

#include "fabric/activations.h"
#include "fabric/fabric_options.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/worker_team.h"

namespace fabric {

// Measures which layout one token streams faster from memory, with all threads of `team` (null: the
// caller alone), in some 50 ms and 96 MiB. PT-5 has four fifths of the bytes and takes more
// arithmetic: memory and instruction set decide. Results never depend on the choice, because both
// layouts give the same bits.
//
// Errors: std::bad_alloc.
LayoutChoice MeasureLayouts(const kernels::KernelTable& kernels, WorkerTeam* team,
                            ActivationKind activation);

}  // namespace fabric
