#include "engine/portable_math.h"

#include <bit>
#include <cstdint>

namespace engine {
namespace {

// ln 2 and pi/2 as sums of parts with at least 20 trailing zero bits each, so that a product of a
// part with an integer below 2^20 is exact.
constexpr double kLn2High = 0x1.62e42feep-1;
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;
constexpr double kHalfPi1 = 0x1.921fb544p+0;
constexpr double kHalfPi2 = 0x1.0b4611a6p-34;
constexpr double kHalfPi3 = 0x1.3198a2e037073p-69;
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
constexpr double kSqrtHalf = 0x1.6a09e667f3bcdp-1;

// Nearest integer to x, by adding and taking away 1.5 * 2^52. REQUIRES: |x| < 2^51.
double NearestInteger(double x) {
  constexpr double kShift = 0x1.8p52;
  return (x + kShift) - kShift;
}

double ScaleByPowerOfTwo(double x, int exponent) {
  const auto bits = static_cast<uint64_t>(static_cast<int64_t>(exponent) + 1023) << 52;
  return x * std::bit_cast<double>(bits);
}

// sin(r) and cos(r) for |r| <= pi/4 by their Taylor series; the first term left out is below 2^-56.
double SineSeries(double r) {
  const double z = r * r;
  double sum = -1.0 / 1307674368000.0;
  sum = sum * z + 1.0 / 6227020800.0;
  sum = sum * z - 1.0 / 39916800.0;
  sum = sum * z + 1.0 / 362880.0;
  sum = sum * z - 1.0 / 5040.0;
  sum = sum * z + 1.0 / 120.0;
  sum = sum * z - 1.0 / 6.0;
  return r + r * (z * sum);
}

double CosineSeries(double r) {
  const double z = r * r;
  double sum = 1.0 / 20922789888000.0;
  sum = sum * z - 1.0 / 87178291200.0;
  sum = sum * z + 1.0 / 479001600.0;
  sum = sum * z - 1.0 / 3628800.0;
  sum = sum * z + 1.0 / 40320.0;
  sum = sum * z - 1.0 / 720.0;
  sum = sum * z + 1.0 / 24.0;
  return 1.0 - (0.5 * z - z * (z * sum));
}

}  // namespace

double PortableLog(double x) {
  const auto bits = std::bit_cast<uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1022;
  double mantissa = std::bit_cast<double>((bits & 0x000fffffffffffffULL) | 0x3fe0000000000000ULL);
  if (mantissa < kSqrtHalf) {
    mantissa *= 2.0;
    --exponent;
  }
  // log m = 2 atanh(s) with s = (m - 1) / (m + 1), |s| < 0.172.
  const double s = (mantissa - 1.0) / (mantissa + 1.0);
  const double z = s * s;
  double sum = 0.0;
  for (int k = 23; k >= 3; k -= 2) {
    sum = (sum + 1.0 / k) * z;
  }
  const double log_mantissa = 2.0 * (s + s * sum);
  return exponent * kLn2High + (log_mantissa + exponent * kLn2Low);
}

double PortableExp(double x) {
  const double k = NearestInteger(x / (kLn2High + kLn2Low));
  const double r = (x - k * kLn2High) - k * kLn2Low;
  double sum = 1.0;
  for (int n = 16; n >= 1; --n) {
    sum = 1.0 + sum * r / n;
  }
  const int exponent = static_cast<int>(k);
  const int half = exponent / 2;  // two steps, so that neither factor overflows
  return ScaleByPowerOfTwo(ScaleByPowerOfTwo(sum, half), exponent - half);
}

void PortableSinCos(double x, double* sine, double* cosine) {
  const double k = NearestInteger(x * kTwoOverPi);
  const double r = ((x - k * kHalfPi1) - k * kHalfPi2) - k * kHalfPi3;
  const double s = SineSeries(r);
  const double c = CosineSeries(r);
  switch (static_cast<int64_t>(k) & 3) {
    case 0:
      *sine = s;
      *cosine = c;
      return;
    case 1:
      *sine = c;
      *cosine = -s;
      return;
    case 2:
      *sine = -s;
      *cosine = -c;
      return;
    default:
      *sine = -c;
      *cosine = s;
      return;
  }
}

}  // namespace engine
