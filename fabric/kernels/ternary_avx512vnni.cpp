#include "fabric/kernels/ternary_avx512.h"

namespace fabric::kernels {

TernaryKernels TernaryAvx512Vnni() noexcept {
  using Target = Avx512<Pt5ByDivision>;
  return {TernaryDriver<Target, k2BitDigits>::Run, TernaryDriver<Target, kPt5Digits>::Run,
          CountActivity, PlaneDriver<Target>::Run};
}

}  // namespace fabric::kernels
