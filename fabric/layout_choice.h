#pragma once

#include "fabric/activations.h"
#include "fabric/fabric_options.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/worker_team.h"

namespace fabric {

// Measures which layout one token streams faster from memory, with all threads of `team` (null: the
// caller alone), in some 80 ms and 96 MiB. PT-5 has four fifths of the bytes and takes more
// arithmetic: memory and instruction set decide. Results never depend on the choice, because both
// layouts give the same bits.
//
// Errors: std::bad_alloc.
LayoutChoice MeasureLayouts(const kernels::KernelTable& kernels, WorkerTeam* team,
                            ActivationKind activation);

// The densities (shares of non-zeros) up to which TernaryLayout::kSparse is faster than another.
struct SparseBreakEven {
  double one_token = 0;  // a token at a time
  double prompt = 0;     // 32 tokens at a time
  double both() const { return one_token < prompt ? one_token : prompt; }
};

// Times a matrix in kSparse with two shares of non-zeros, fits a line, and finds where it meets the
// time of `layout`. Activations have one scale per token. Some 200 ms and 80 MiB.
//
// Errors: std::bad_alloc.
SparseBreakEven MeasureSparse(const kernels::KernelTable& kernels, WorkerTeam* team,
                              TernaryLayout layout);

}  // namespace fabric
