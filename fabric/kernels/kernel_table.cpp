#include "fabric/kernels/kernel_table.h"

#include <vector>

namespace fabric::kernels {
namespace {

KernelTable MakeTable(Isa isa) {
#if defined(__x86_64__)
  // VBMI and AVX-VNNI add instructions that only kernels of trits have a use for.
  switch (isa) {
    case Isa::kAvx512Vbmi:
      return {isa,
              IsaName(isa),
              TernaryAvx512Vbmi(),
              DenseAvx512Vnni(),
              QuantizedAvx512Vnni(),
              FloatOpsAvx512Vnni(),
              SparseAvx512Vbmi()};
    case Isa::kAvx512Vnni:
      return {isa,
              IsaName(isa),
              TernaryAvx512Vnni(),
              DenseAvx512Vnni(),
              QuantizedAvx512Vnni(),
              FloatOpsAvx512Vnni(),
              SparseAvx512Vnni()};
    case Isa::kAvxVnni:
      return {isa,           IsaName(isa),    TernaryAvxVnni(),
              DenseAvx2(),   QuantizedAvx2(), FloatOpsAvx2(),
              SparseScalar()};
    case Isa::kAvx2:
      return {isa,           IsaName(isa),    TernaryAvx2(),
              DenseAvx2(),   QuantizedAvx2(), FloatOpsAvx2(),
              SparseScalar()};
    case Isa::kNeon:
    case Isa::kScalar:
      break;
  }
#elif defined(__aarch64__)
  // NEON belongs to every aarch64 CPU, so the compiler vectorises the lanes of the scalar table.
  if (isa == Isa::kNeon) {
    return {isa,           IsaName(isa),      TernaryNeon(),
            DenseScalar(), QuantizedScalar(), FloatOpsScalar(),
            SparseScalar()};
  }
#endif
  return {isa,           IsaName(isa),      TernaryScalar(),
          DenseScalar(), QuantizedScalar(), FloatOpsScalar(),
          SparseScalar()};
}

}  // namespace

std::span<const KernelTable> SupportedKernels() {
  static const std::vector<KernelTable> tables = [] {
    std::vector<KernelTable> supported;
    for (const Isa isa : SupportedIsas()) supported.push_back(MakeTable(isa));
    return supported;
  }();
  return tables;
}

const KernelTable& ActiveKernels() {
  static const KernelTable table = MakeTable(ActiveIsa());
  return table;
}

}  // namespace fabric::kernels
