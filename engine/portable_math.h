#pragma once

namespace engine {

// Elementary functions in double with the same bits on every machine: libm's differ between
// versions, and a cosine that differs in one bit moves every logit (docs/decisions.md). Only
// additions, multiplications and divisions, which IEEE 754 defines, in one fixed order.
//
// Accuracy: a few units in the last place, far below the float results that they feed.

// REQUIRES: x > 0 and finite, not subnormal.
double PortableLog(double x);
// REQUIRES: |x| <= 700.
double PortableExp(double x);
// REQUIRES: |x| <= 2^20.
void PortableSinCos(double x, double* sine, double* cosine);

}  // namespace engine
