#pragma once

#include <span>
#include <string_view>

#include "fabric/cpu/isa.h"
#include "fabric/kernels/dense_tile.h"
#include "fabric/kernels/float_ops.h"
#include "fabric/kernels/quantized_tile.h"
#include "fabric/kernels/sparse_tile.h"
#include "fabric/kernels/ternary_tile.h"

namespace fabric::kernels {

// Every kernel of one instruction set. All tables compute the same bits (docs/kernels.md).
struct KernelTable {
  Isa isa;
  std::string_view name;
  TernaryKernels ternary;
  DenseKernels dense;
  QuantizedTileFn quantized;
  FloatOps floats;
  SparseKernels sparse;
};

// Best first, scalar last, never empty.
std::span<const KernelTable> SupportedKernels();

// The table of ActiveIsa().
const KernelTable& ActiveKernels();

}  // namespace fabric::kernels
