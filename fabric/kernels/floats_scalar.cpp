#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "fabric/half.h"
#include "fabric/kernels/attention_lanes.h"

namespace fabric::kernels {
namespace {

struct ScalarLanes {
  static constexpr size_t kRowBlock = 1;
  static constexpr size_t kTokenBlock = 1;
  static constexpr size_t kHeadBlock = 1;
  static constexpr size_t kKeyBlock = 1;
  static constexpr size_t kValueBlock = 1;
  static constexpr size_t kLanes = 16;

  float lane[kLanes];

  template <class F>
  static ScalarLanes Make(F f) {
    ScalarLanes v;
    for (size_t i = 0; i < kLanes; ++i) v.lane[i] = f(i);
    return v;
  }
  static uint16_t LoadU16(const uint8_t* p, size_t i) {
    uint16_t value = 0;
    std::memcpy(&value, p + 2 * i, sizeof value);
    return value;
  }

  static ScalarLanes Zero() { return Set(0.0F); }
  static ScalarLanes Set(float x) {
    return Make([x](size_t) { return x; });
  }
  static ScalarLanes Load(const float* x) {
    return Make([x](size_t i) { return x[i]; });
  }
  static void Store(float* y, const ScalarLanes& v) { std::memcpy(y, v.lane, sizeof v.lane); }
  static ScalarLanes LoadHalf(const uint8_t* p) {
    return Make([p](size_t i) { return fabric::HalfToFloat(LoadU16(p, i)); });
  }
  static ScalarLanes LoadBFloat16(const uint8_t* p) {
    return Make([p](size_t i) { return BFloat16ToFloat(LoadU16(p, i)); });
  }
  static ScalarLanes LoadInt8(const int8_t* p) {
    return Make([p](size_t i) { return static_cast<float>(p[i]); });
  }
  static ScalarLanes LoadTrits(const uint8_t* p) {
    static constexpr float kTrit[4] = {0.0F, 1.0F, 0.0F, -1.0F};
    return Make([p](size_t i) { return kTrit[(p[i / 4] >> (i % 4 * 2)) & 3]; });
  }
  static void StoreHalf(uint16_t* y, const ScalarLanes& v) {
    for (size_t i = 0; i < kLanes; ++i) y[i] = FloatToHalf(v.lane[i]);
  }
  static ScalarLanes Add(const ScalarLanes& a, const ScalarLanes& b) {
    return Make([&](size_t i) { return a.lane[i] + b.lane[i]; });
  }
  static ScalarLanes Sub(const ScalarLanes& a, const ScalarLanes& b) {
    return Make([&](size_t i) { return a.lane[i] - b.lane[i]; });
  }
  static ScalarLanes Mul(const ScalarLanes& a, const ScalarLanes& b) {
    return Make([&](size_t i) { return a.lane[i] * b.lane[i]; });
  }
  static ScalarLanes Div(const ScalarLanes& a, const ScalarLanes& b) {
    return Make([&](size_t i) { return a.lane[i] / b.lane[i]; });
  }
  static ScalarLanes Fma(const ScalarLanes& a, const ScalarLanes& b, const ScalarLanes& c) {
    return Make([&](size_t i) { return std::fma(a.lane[i], b.lane[i], c.lane[i]); });
  }
  static ScalarLanes Max(const ScalarLanes& a, const ScalarLanes& b) {
    return Make([&](size_t i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static ScalarLanes Min(const ScalarLanes& a, const ScalarLanes& b) {
    return Make([&](size_t i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static ScalarLanes Scale(const ScalarLanes& x, const ScalarLanes& n) {
    return Make([&](size_t i) {
      if (n.lane[i] != n.lane[i]) return x.lane[i];
      return std::ldexp(x.lane[i], static_cast<int>(n.lane[i]));
    });
  }
  static float Sum(ScalarLanes v) {
    for (size_t width = kLanes / 2; width > 0; width /= 2) {
      for (size_t i = 0; i < width; ++i) v.lane[i] += v.lane[i + width];
    }
    return v.lane[0];
  }
  static float Largest(ScalarLanes v) {
    for (size_t width = kLanes / 2; width > 0; width /= 2) {
      for (size_t i = 0; i < width; ++i) {
        v.lane[i] = v.lane[i] > v.lane[i + width] ? v.lane[i] : v.lane[i + width];
      }
    }
    return v.lane[0];
  }
  static float SquareRoot(float x) { return std::sqrt(x); }
  static float Fma1(float a, float b, float c) { return std::fma(a, b, c); }
};

}  // namespace

FloatOps FloatOpsScalar() noexcept { return MakeFloatOps<ScalarLanes>(); }
DenseKernels DenseScalar() noexcept { return FloatLanes<ScalarLanes>::DenseTable(); }

}  // namespace fabric::kernels
