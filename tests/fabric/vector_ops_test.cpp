// Property: vector operations have the same bits with every instruction set, any length, and are
// close to the same formula in double.

#include "fabric/vector_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "fabric/half.h"
#include "fabric/kernels/kernel_table.h"

namespace fabric {
namespace {

using kernels::FloatOps;
using kernels::KernelTable;

using Random = std::independent_bits_engine<std::mt19937, 32, uint32_t>;

const double kRootOfTwoByPi = std::sqrt(2 / std::acos(-1.0));
constexpr float kInfinity = std::numeric_limits<float>::infinity();
const size_t kLengths[] = {1, 2, 15, 16, 17, 31, 32, 33, 63, 100, 255, 256, 2560};

std::vector<float> Normal(size_t n, uint32_t seed, float spread = 1.0F) {
  Random random(seed);
  std::normal_distribution<float> normal(0.0F, spread);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits;
  for (const float v : values)
    bits.push_back(std::isnan(v) ? 0x7FC00000 : std::bit_cast<uint32_t>(v));
  return bits;
}

const FloatOps& Scalar() { return kernels::SupportedKernels().back().floats; }

// Runs make(ops) for the scalar table and expects every other one to give the same floats.
template <typename Make>
std::vector<float> SameOnEveryIsa(const Make& make) {
  const std::vector<float> expected = make(Scalar());
  for (const KernelTable& table : kernels::SupportedKernels()) {
    EXPECT_EQ(Bits(make(table.floats)), Bits(expected)) << table.name;
  }
  return expected;
}

TEST(VectorOps, DotIsTheLaneSumOnEveryIsa) {
  for (const size_t n : kLengths) {
    const auto a = Normal(n, 1);
    const auto b = Normal(n, 2);
    float lanes[16] = {};
    for (size_t i = 0; i < n; ++i) lanes[i % 16] = std::fma(a[i], b[i], lanes[i % 16]);
    for (size_t width = 8; width > 0; width /= 2) {
      for (size_t i = 0; i < width; ++i) lanes[i] += lanes[i + width];
    }
    const auto got = SameOnEveryIsa(
        [&](const FloatOps& ops) { return std::vector<float>{ops.dot(a.data(), b.data(), n)}; });
    EXPECT_EQ(got[0], lanes[0]) << n;
  }
}

TEST(VectorOps, RmsNormEqualsTheFormula) {
  for (const size_t n : kLengths) {
    const auto x = Normal(n, 3, 5.0F);
    const auto weight = Normal(n, 4);
    for (const bool weighted : {true, false}) {
      const auto y = SameOnEveryIsa([&](const FloatOps& ops) {
        std::vector<float> out = x;
        ops.rms_norm(out.data(), weighted ? weight.data() : nullptr, 1e-5F, n, out.data());
        return out;
      });
      double mean = 0;
      for (const float v : x) mean += double{v} * v / static_cast<double>(n);
      for (size_t i = 0; i < n; ++i) {
        const double expected = x[i] / std::sqrt(mean + 1e-5) * (weighted ? weight[i] : 1.0F);
        ASSERT_NEAR(y[i], expected, 2e-6 * std::fabs(expected) + 1e-12);
      }
    }
  }
}

TEST(VectorOps, ExpIsAccurateAndHandlesExtremes) {
  std::vector<float> x = {0.0F,    -0.0F,  1.0F,      -1.0F,      88.7F,        89.5F,
                          1e30F,   -87.0F, -88.0F,    -95.0F,     -103.0F,      -104.0F,
                          -120.0F, -1e30F, kInfinity, -kInfinity, std::nanf("")};
  for (int i = -1030; i <= 887; ++i) x.push_back(static_cast<float>(i) * 0.1F + 0.0123F);
  const auto y = SameOnEveryIsa([&](const FloatOps& ops) {
    std::vector<float> out(x.size());
    ops.exp_shifted(x.data(), 0.0F, x.size(), out.data());
    return out;
  });
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = std::exp(double{x[i]});
    if (std::isnan(x[i])) {
      EXPECT_TRUE(std::isnan(y[i]));
    } else if (expected > 3.4028235e38) {
      EXPECT_EQ(y[i], kInfinity) << x[i];
    } else {
      ASSERT_NEAR(y[i], expected, 1.2e-7 * expected + 1.5e-45) << x[i];
    }
  }
  EXPECT_EQ(y[0], 1.0F);
  EXPECT_EQ(y[15], 0.0F);
}

TEST(VectorOps, ExpShiftedSumsInLaneOrder) {
  for (const size_t n : kLengths) {
    const auto x = Normal(n, 5, 3.0F);
    const auto out = SameOnEveryIsa([&](const FloatOps& ops) {
      std::vector<float> y(n);
      const float sum = ops.exp_shifted(x.data(), 2.0F, n, y.data());
      EXPECT_EQ(ops.exp_shifted(x.data(), 2.0F, n, nullptr), sum);
      y.push_back(sum);
      return y;
    });
    double sum = 0;
    for (const float v : x) sum += std::exp(double{v} - 2.0);
    EXPECT_NEAR(out.back(), sum, 1e-6 * sum);
  }
}

TEST(VectorOps, LogSumExpIsAccurate) {
  for (const size_t n : {size_t{1}, size_t{7}, size_t{1000}, size_t{128256}}) {
    const auto x = Normal(n, 6, 4.0F);
    double sum = 0;
    for (const float v : x) sum += std::exp(double{v});
    EXPECT_NEAR(LogSumExp(x.data(), n), std::log(sum), 3e-6 * std::fabs(std::log(sum)) + 1e-6);
  }
  const std::vector<float> masked = {-kInfinity, 3.0F, -kInfinity};
  EXPECT_EQ(LogSumExp(masked.data(), 3), 3.0F);
}

TEST(VectorOps, QuantizeTokenFollowsTheFormula) {
  for (const size_t n : kLengths) {
    auto x = Normal(n, 7, 2.0F);
    if (n > 20) x[20] = 0.5F * x[0];
    const size_t padded = (n + 63) / 64 * 64;
    float largest = 1e-5F;
    for (const float v : x) largest = std::max(largest, std::fabs(v));
    const float s = 127.0F / largest;
    for (const KernelTable& table : kernels::SupportedKernels()) {
      std::vector<int8_t> codes(padded, 99);
      float scale = 0;
      int32_t sum = 0;
      ASSERT_TRUE(table.floats.quantize_token(x.data(), n, padded, codes.data(), &scale, &sum));
      EXPECT_EQ(scale, s);
      int32_t expected_sum = 0;
      for (size_t i = 0; i < padded; ++i) {
        const float q = i < n ? std::nearbyintf(x[i] * s) : 0.0F;
        const float clamped = std::min(127.0F, std::max(-128.0F, q));
        ASSERT_EQ(codes[i], static_cast<int8_t>(clamped)) << table.name << ' ' << i;
        expected_sum += codes[i];
      }
      EXPECT_EQ(sum, expected_sum);
    }
  }
}

TEST(VectorOps, QuantizeBlocksScalesEachBlockAlone) {
  for (const size_t n : kLengths) {
    auto x = Normal(n, 8, 2.0F);
    for (size_t i = 32; i < std::min<size_t>(n, 64); ++i) x[i] = 0.0F;
    const size_t padded = (n + 63) / 64 * 64;
    const size_t blocks = (n + 31) / 32;
    for (const KernelTable& table : kernels::SupportedKernels()) {
      std::vector<int8_t> codes(padded, 99);
      std::vector<float> scales(blocks);
      std::vector<int32_t> sums(blocks);
      ASSERT_TRUE(table.floats.quantize_blocks(x.data(), n, padded, codes.data(), scales.data(),
                                               sums.data()));
      for (size_t b = 0; b < blocks; ++b) {
        float largest = 1e-5F;
        const size_t end = std::min(n, (b + 1) * 32);
        for (size_t i = b * 32; i < end; ++i) largest = std::max(largest, std::fabs(x[i]));
        const float s = 127.0F / largest;
        EXPECT_EQ(scales[b], 1.0F / s);
        int32_t sum = 0;
        for (size_t i = b * 32; i < end; ++i) {
          ASSERT_EQ(codes[i], static_cast<int8_t>(std::nearbyintf(x[i] * s))) << table.name;
          sum += codes[i];
        }
        EXPECT_EQ(sums[b], sum);
      }
      for (size_t i = n; i < padded; ++i) ASSERT_EQ(codes[i], 0);
    }
  }
}

TEST(VectorOps, QuantizersRefuseNonFiniteValues) {
  for (const KernelTable& table : kernels::SupportedKernels()) {
    for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
      auto x = Normal(100, 9);
      x[77] = bad;
      std::vector<int8_t> codes(128, 5);
      std::vector<float> scales(4, -1.0F);
      std::vector<int32_t> sums(4, 7);
      EXPECT_FALSE(table.floats.quantize_token(x.data(), 100, 128, codes.data(), scales.data(),
                                               sums.data()));
      EXPECT_EQ(codes, std::vector<int8_t>(128, 0));
      EXPECT_EQ(sums[0], 0);
      codes.assign(128, 5);
      EXPECT_FALSE(table.floats.quantize_blocks(x.data(), 100, 128, codes.data(), scales.data(),
                                                sums.data()));
      EXPECT_EQ(codes, std::vector<int8_t>(128, 0));
      EXPECT_EQ(sums, std::vector<int32_t>(4, 0));
    }
  }
}

TEST(VectorOps, GatesEqualTheirFormulas) {
  for (const size_t n : kLengths) {
    const auto gate = Normal(n, 10, 4.0F);
    const auto up = Normal(n, 11);
    const auto relu = SameOnEveryIsa([&](const FloatOps& ops) {
      auto y = gate;
      ops.relu_squared_mul(up.data(), n, y.data());
      return y;
    });
    const auto silu = SameOnEveryIsa([&](const FloatOps& ops) {
      auto y = gate;
      ops.silu_mul(up.data(), n, y.data());
      return y;
    });
    const auto gelu = SameOnEveryIsa([&](const FloatOps& ops) {
      auto y = gate;
      ops.gelu_mul(up.data(), n, y.data());
      return y;
    });
    for (size_t i = 0; i < n; ++i) {
      const float positive = std::max(0.0F, gate[i]);
      EXPECT_EQ(relu[i], positive * positive * up[i]);
      const double expected = gate[i] / (1.0 + std::exp(-double{gate[i]})) * up[i];
      EXPECT_NEAR(silu[i], expected, 1e-6 * std::fabs(expected) + 1e-30);
      const double x = gate[i];
      const double gelu_of_x =
          0.5 * x * (1 + std::tanh(kRootOfTwoByPi * (x + 0.044715 * x * x * x)));
      EXPECT_NEAR(gelu[i], gelu_of_x * up[i], 1e-6 * std::fabs(x * up[i]));
    }
  }
}

TEST(VectorOps, GeluOfWhatIsFarOutIsItsLimit) {
  const std::vector<float> gate = {-1e30F, -40.0F, -0.0F, 0.0F, 40.0F, 1e30F};
  const std::vector<float> up(gate.size(), 1.0F);
  const auto gelu = SameOnEveryIsa([&](const FloatOps& ops) {
    auto y = gate;
    ops.gelu_mul(up.data(), y.size(), y.data());
    return y;
  });
  EXPECT_EQ(gelu, (std::vector<float>{0.0F, 0.0F, 0.0F, 0.0F, 40.0F, 1e30F}));
}

TEST(VectorOps, ArgMaxTakesTheLowestIndexOfTies) {
  for (const KernelTable& table : kernels::SupportedKernels()) {
    for (const size_t n : kLengths) {
      auto x = Normal(n, 12);
      bool finite = false;
      x[n / 2] = 50.0F;
      x[n - 1] = 50.0F;
      EXPECT_EQ(table.floats.arg_max(x.data(), n, &finite), n / 2) << table.name;
      EXPECT_TRUE(finite);
      x[n - 1] = std::nanf("");
      table.floats.arg_max(x.data(), n, &finite);
      EXPECT_FALSE(finite);
    }
    const std::vector<float> zeros = {-1.0F, -0.0F, 0.0F};
    bool finite = false;
    EXPECT_EQ(table.floats.arg_max(zeros.data(), 3, &finite), 1U);
  }
}

TEST(VectorOps, RopeRotatesPairsAndLeavesTheRest) {
  for (const bool neox : {false, true}) {
    for (const uint32_t rope_dim : {2U, 6U, 32U, 64U, 80U}) {
      const uint32_t head_dim = 80;
      std::vector<float> cosines;
      std::vector<float> sines;
      for (uint32_t i = 0; i < rope_dim / 2; ++i) {
        cosines.push_back(std::cos(0.3F * static_cast<float>(i + 1)));
        sines.push_back(std::sin(0.3F * static_cast<float>(i + 1)));
      }
      const auto x = Normal(size_t{3} * head_dim, 13);
      const auto y = SameOnEveryIsa([&](const FloatOps& ops) {
        auto out = x;
        ops.rope(out.data(), 3, head_dim, rope_dim, neox, cosines.data(), sines.data());
        return out;
      });
      for (uint32_t h = 0; h < 3; ++h) {
        const float* from = x.data() + size_t{h} * head_dim;
        const float* to = y.data() + size_t{h} * head_dim;
        for (uint32_t i = 0; i < rope_dim / 2; ++i) {
          const uint32_t a = neox ? i : 2 * i;
          const uint32_t b = neox ? i + rope_dim / 2 : 2 * i + 1;
          EXPECT_NEAR(to[a], from[a] * cosines[i] - from[b] * sines[i], 1e-6);
          EXPECT_NEAR(to[b], from[b] * cosines[i] + from[a] * sines[i], 1e-6);
        }
        for (uint32_t i = rope_dim; i < head_dim; ++i) EXPECT_EQ(to[i], from[i]);
      }
    }
  }
}

TEST(VectorOps, HadamardIsTheSignedSumOfItsDefinition) {
  for (const size_t block : {2U, 8U, 16U, 32U, 128U, 1024U}) {
    const size_t n = block * 3;
    const auto x = Normal(n, 31);
    const auto y = SameOnEveryIsa([&](const FloatOps& ops) {
      std::vector<float> out = x;
      ops.hadamard(out.data(), n, block);
      return out;
    });
    for (size_t i = 0; i < n; ++i) {
      const size_t begin = i / block * block;
      double sum = 0;
      for (size_t c = 0; c < block; ++c) {
        const bool negative = std::popcount((i - begin) & c) % 2 == 1;
        sum += negative ? -double{x[begin + c]} : double{x[begin + c]};
      }
      ASSERT_NEAR(y[i], sum / std::sqrt(static_cast<double>(block)), 2e-6) << block << " " << i;
    }
    std::vector<float> twice = y;
    Scalar().hadamard(twice.data(), n, block);
    for (size_t i = 0; i < n; ++i) ASSERT_NEAR(twice[i], x[i], 2e-6);
  }
}

TEST(VectorOps, DeltaRuleEqualsTheFormula) {
  for (const uint32_t value_dim : {1U, 16U, 20U, 128U}) {
    const uint32_t key_dim = value_dim == 20 ? 7 : 64;
    const size_t size = size_t{key_dim} * value_dim;
    const auto state = Normal(size, 41);
    const auto query = Normal(key_dim, 42, 0.2F);
    const auto key = Normal(key_dim, 43, 0.2F);
    const auto value = Normal(value_dim, 44);
    const float decay = 0.8125F;
    const float beta = 0.4F;
    const auto step = [&](const FloatOps& ops, bool in_place) {
      // The new state, then what is read from it.
      std::vector<float> result = state;
      result.resize(size + value_dim);
      ops.delta_rule({.before = in_place ? result.data() : state.data(),
                      .after = result.data(),
                      .query = query.data(),
                      .key = key.data(),
                      .value = value.data(),
                      .decay = decay,
                      .beta = beta,
                      .key_dim = key_dim,
                      .value_dim = value_dim,
                      .out = result.data() + size});
      return result;
    };
    const auto got = SameOnEveryIsa([&](const FloatOps& ops) { return step(ops, false); });
    EXPECT_EQ(Bits(step(Scalar(), true)), Bits(got));
    for (uint32_t j = 0; j < value_dim; ++j) {
      double recalled = 0;
      for (uint32_t i = 0; i < key_dim; ++i) {
        recalled += double{decay} * double{state[i * value_dim + j]} * double{key[i]};
      }
      const double delta = double{beta} * (double{value[j]} - recalled);
      double read = 0;
      for (uint32_t i = 0; i < key_dim; ++i) {
        const double entry =
            double{decay} * double{state[i * value_dim + j]} + double{key[i]} * delta;
        ASSERT_NEAR(got[i * value_dim + j], entry, 1e-6);
        read += entry * double{query[i]};
      }
      ASSERT_NEAR(got[size + j], read, 2e-6);
    }
  }
}

TEST(VectorOps, EveryHalfSurvivesTheRoundTripOnEveryIsa) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  for (const KernelTable& table : kernels::SupportedKernels()) {
    std::vector<float> floats(halves.size());
    std::vector<uint16_t> back(halves.size());
    table.floats.halves_to_floats(halves.data(), halves.size(), floats.data());
    table.floats.floats_to_halves(floats.data(), floats.size(), back.data());
    for (size_t i = 0; i < halves.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(floats[i]), std::bit_cast<uint32_t>(HalfToFloat(halves[i])))
          << table.name << ' ' << i;
      const bool nan = (i & 0x7C00) == 0x7C00 && (i & 0x3FF) != 0;
      ASSERT_EQ(back[i], nan ? (i | 0x200) : i) << table.name;
    }
  }
}

TEST(VectorOps, FloatsRoundToHalvesAlikeOnEveryIsa) {
  Random random(14);
  std::vector<float> x;
  for (int i = 0; i < 200000; ++i)
    x.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  // Ties, the edges of subnormals and of overflow.
  for (const float v : {65504.0F, 65519.9F, 65520.0F, 6.1e-5F, 5.96e-8F, 2.98e-8F, 2.99e-8F, 1e-9F,
                        2049.0F, 2051.0F, 0x1.ffcp-15F, 0x1.ffep-15F}) {
    x.push_back(v);
    x.push_back(-v);
  }
  std::vector<uint16_t> expected(x.size());
  Scalar().floats_to_halves(x.data(), x.size(), expected.data());
  for (const KernelTable& table : kernels::SupportedKernels()) {
    std::vector<uint16_t> halves(x.size());
    table.floats.floats_to_halves(x.data(), x.size(), halves.data());
    ASSERT_EQ(halves, expected) << table.name;
  }
}

constexpr KvElement kKvElements[] = {KvElement::kF32, KvElement::kF16, KvElement::kQ8,
                                     KvElement::kT2};

// Rows as the cache stores them.
struct StoredRows {
  std::vector<uint8_t> codes;
  std::vector<uint16_t> scales;
};

StoredRows Store(const FloatOps& ops, KvElement element, const float* x, uint32_t rows,
                 uint32_t dim) {
  const size_t row_bytes = KvCodeBytes(element, dim);
  StoredRows stored;
  stored.codes.assign(row_bytes * rows, 0xAA);
  if (KvScaleBytes(element) > 0) stored.scales.resize(rows);
  for (uint32_t r = 0; r < rows; ++r, x += dim) {
    uint8_t* codes = stored.codes.data() + r * row_bytes;
    switch (element) {
      case KvElement::kF32:
        std::memcpy(codes, x, row_bytes);
        break;
      case KvElement::kF16:
        ops.floats_to_halves(x, dim, reinterpret_cast<uint16_t*>(codes));
        break;
      case KvElement::kQ8:
        stored.scales[r] = ops.quantize_kv_q8(x, dim, reinterpret_cast<int8_t*>(codes));
        break;
      case KvElement::kT2:
        stored.scales[r] = ops.quantize_kv_t2(x, dim, codes);
        break;
    }
  }
  return stored;
}

// What stored rows stand for, by the definition of their type.
std::vector<float> Meaning(KvElement element, const StoredRows& stored, uint32_t rows,
                           uint32_t dim) {
  std::vector<float> values;
  for (uint32_t r = 0; r < rows; ++r) {
    const uint8_t* codes = stored.codes.data() + r * KvCodeBytes(element, dim);
    const float scale = stored.scales.empty() ? 1.0F : HalfToFloat(stored.scales[r]);
    for (uint32_t i = 0; i < dim; ++i) {
      if (element == KvElement::kF32) {
        values.push_back(reinterpret_cast<const float*>(codes)[i]);
      } else if (element == KvElement::kF16) {
        values.push_back(HalfToFloat(reinterpret_cast<const uint16_t*>(codes)[i]));
      } else if (element == KvElement::kQ8) {
        values.push_back(static_cast<float>(static_cast<int8_t>(codes[i])) * scale);
      } else {
        const int code = (codes[i / 4] >> (i % 4 * 2)) & 3;
        EXPECT_NE(code, 2);
        values.push_back(static_cast<float>(code == 3 ? -1 : code) * scale);
      }
    }
  }
  return values;
}

double Cosine(const float* a, const float* b, size_t n) {
  double ab = 0;
  double aa = 0;
  double bb = 0;
  for (size_t i = 0; i < n; ++i) {
    ab += double{a[i]} * b[i];
    aa += double{a[i]} * a[i];
    bb += double{b[i]} * b[i];
  }
  return ab / std::sqrt(aa * bb);
}

TEST(KvQuantisers, GiveTheSameBytesOnEveryIsa) {
  for (const KvElement element : {KvElement::kQ8, KvElement::kT2}) {
    for (const uint32_t dim : {1U, 2U, 15U, 16U, 20U, 64U, 100U, 128U, 256U}) {
      for (const float spread : {1.0F, 1e-6F, 1e-7F, 3e7F, 1e30F}) {
        const auto x = Normal(size_t{7} * dim, dim, spread);
        const StoredRows expected = Store(Scalar(), element, x.data(), 7, dim);
        for (const KernelTable& table : kernels::SupportedKernels()) {
          const StoredRows got = Store(table.floats, element, x.data(), 7, dim);
          ASSERT_EQ(got.codes, expected.codes) << table.name << ' ' << dim << ' ' << spread;
          ASSERT_EQ(got.scales, expected.scales) << table.name << ' ' << dim << ' ' << spread;
        }
      }
    }
  }
}

TEST(KvQuantisers, Q8IsWithinHalfAStepOfEveryElement) {
  for (const float spread : {1e-5F, 1e-3F, 1.0F, 1000.0F}) {
    const auto x = Normal(size_t{50} * 128, 61, spread);
    const StoredRows stored = Store(Scalar(), KvElement::kQ8, x.data(), 50, 128);
    const auto y = Meaning(KvElement::kQ8, stored, 50, 128);
    for (size_t i = 0; i < x.size(); ++i) {
      const float scale = HalfToFloat(stored.scales[i / 128]);
      ASSERT_LE(std::fabs(x[i] - y[i]), 0.5001F * scale) << spread;
    }
    for (uint32_t row = 0; row < 50; ++row) {
      float largest = 0;
      for (uint32_t i = 0; i < 128; ++i) largest = std::max(largest, std::fabs(x[row * 128 + i]));
      // Normal halves have a relative step of 2^-10, the others an absolute one of 2^-24.
      const float scale = HalfToFloat(stored.scales[row]);
      ASSERT_GE(scale, largest / 127.0F);
      ASSERT_LE(scale, largest / 127.0F * 1.001F + 0x1p-24F);
    }
  }
}

// The best cosine that any ternary row has, by trying every number of elements.
double BestTernaryCosine(const float* x, size_t n) {
  std::vector<double> magnitudes;
  double squares = 0;
  for (size_t i = 0; i < n; ++i) {
    magnitudes.push_back(std::fabs(x[i]));
    squares += double{x[i]} * x[i];
  }
  std::sort(magnitudes.rbegin(), magnitudes.rend());
  double best = 0;
  double sum = 0;
  for (size_t k = 1; k <= n; ++k) {
    sum += magnitudes[k - 1];
    best = std::max(best, sum / std::sqrt(static_cast<double>(k) * squares));
  }
  return best;
}

TEST(KvQuantisers, T2ComesCloseToTheBestTernaryRow) {
  for (const uint32_t dim : {16U, 64U, 80U, 128U}) {
    auto x = Normal(size_t{200} * dim, 62, 3.0F);
    // Half of the rows with one element far beyond the others.
    for (size_t row = 0; row < 100; ++row) x[row * dim + row % dim] *= 8.0F;
    const StoredRows stored = Store(Scalar(), KvElement::kT2, x.data(), 200, dim);
    const auto y = Meaning(KvElement::kT2, stored, 200, dim);
    double worst = 0;
    for (size_t row = 0; row < 200; ++row) {
      const float* from = x.data() + row * dim;
      const float* to = y.data() + row * dim;
      worst = std::max(worst, BestTernaryCosine(from, dim) - Cosine(from, to, dim));
      // The scale is the mean magnitude of what it stands for.
      double sum = 0;
      int count = 0;
      for (uint32_t i = 0; i < dim; ++i) {
        if (to[i] == 0) continue;
        ASSERT_EQ(std::signbit(from[i]), std::signbit(to[i]));
        sum += std::fabs(from[i]);
        ++count;
      }
      ASSERT_NEAR(HalfToFloat(stored.scales[row]), sum / count, 1e-3 * sum / count);
    }
    EXPECT_LT(worst, 0.01) << dim;
  }
}

TEST(KvQuantisers, KeepNonFiniteRowsVisibleAndTakeEveryMagnitude) {
  for (const KernelTable& table : kernels::SupportedKernels()) {
    for (const KvElement element : {KvElement::kQ8, KvElement::kT2}) {
      for (const float bad : {kInfinity, -kInfinity, std::nanf("")}) {
        auto x = Normal(40, 63);
        x[39] = bad;
        const StoredRows stored = Store(table.floats, element, x.data(), 1, 40);
        EXPECT_TRUE(std::isnan(HalfToFloat(stored.scales[0])));
        EXPECT_EQ(stored.codes, std::vector<uint8_t>(stored.codes.size(), 0));
      }
      for (const float tiny : {0.0F, -0.0F, 1e-45F, 1e-9F}) {
        const std::vector<float> x(40, tiny);
        const StoredRows stored = Store(table.floats, element, x.data(), 1, 40);
        for (const float y : Meaning(element, stored, 1, 40)) EXPECT_EQ(y, 0.0F);
      }
      const std::vector<float> huge(40, -3e38F);
      const StoredRows stored = Store(table.floats, element, huge.data(), 1, 40);
      EXPECT_EQ(HalfToFloat(stored.scales[0]), 65504.0F);
      for (const float y : Meaning(element, stored, 1, 40)) {
        EXPECT_EQ(y, element == KvElement::kQ8 ? -127.0F * 65504.0F : -65504.0F);
      }
    }
  }
}

TEST(KvQuantisers, BytesOfARow) {
  const auto row_bytes = [](KvElement element, size_t n) {
    return KvCodeBytes(element, n) + KvScaleBytes(element);
  };
  EXPECT_EQ(row_bytes(KvElement::kF32, 128), 512U);
  EXPECT_EQ(row_bytes(KvElement::kF16, 128), 256U);
  EXPECT_EQ(row_bytes(KvElement::kQ8, 128), 130U);
  EXPECT_EQ(row_bytes(KvElement::kT2, 128), 34U);  // 15.06 times less than f32
  EXPECT_EQ(row_bytes(KvElement::kT2, 64), 18U);   // 14.2 times
  EXPECT_EQ(row_bytes(KvElement::kT2, 20), 10U);
}

struct AttentionCase {
  uint32_t positions;
  uint32_t group;
  uint32_t head_dim;
  KvElement element;
};

struct AttentionState {
  std::vector<float> max;
  std::vector<float> sum;
  std::vector<float> accumulator;
  explicit AttentionState(const AttentionCase& c)
      : max(c.group, -kInfinity), sum(c.group), accumulator(size_t{c.group} * c.head_dim) {}
};

// Positions [begin, end), chunk by chunk, from exactly sized heap copies: a read past the visible
// positions is one that AddressSanitizer sees.
void Attend(const FloatOps& ops, const AttentionCase& c, const std::vector<float>& k,
            const std::vector<float>& v, const std::vector<float>& q, uint32_t begin, uint32_t end,
            AttentionState* state) {
  for (uint32_t at = begin; at < end; at += kAttentionChunk) {
    const uint32_t count = std::min(kAttentionChunk, end - at);
    const size_t first = size_t{at} * c.head_dim;
    const StoredRows keys = Store(Scalar(), c.element, k.data() + first, count, c.head_dim);
    const StoredRows values = Store(Scalar(), c.element, v.data() + first, count, c.head_dim);
    ops.attend_chunk({.element = c.element,
                      .keys = keys.codes.data(),
                      .values = values.codes.data(),
                      .key_scales = keys.scales.data(),
                      .value_scales = values.scales.data(),
                      .count = count,
                      .queries = q.data(),
                      .group = c.group,
                      .head_dim = c.head_dim,
                      .scale = 0.25F,
                      .max = state->max.data(),
                      .sum = state->sum.data(),
                      .accumulator = state->accumulator.data()});
  }
}

// Attention over all positions, the same on every instruction set.
std::vector<float> AttendAll(const AttentionCase& c, const std::vector<float>& k,
                             const std::vector<float>& v, const std::vector<float>& q) {
  return SameOnEveryIsa([&](const FloatOps& ops) {
    AttentionState state(c);
    Attend(ops, c, k, v, q, 0, c.positions, &state);
    std::vector<float> result(state.accumulator.size());
    ops.finish_attention(c.group, c.head_dim, state.sum.data(), state.accumulator.data(),
                         result.data());
    return result;
  });
}

// The formula in double over what the cache holds.
std::vector<double> NaiveAttention(const AttentionCase& c, const std::vector<float>& k,
                                   const std::vector<float>& v, const std::vector<float>& q) {
  const auto held = [&](const std::vector<float>& x) {
    const StoredRows stored = Store(Scalar(), c.element, x.data(), c.positions, c.head_dim);
    return Meaning(c.element, stored, c.positions, c.head_dim);
  };
  const auto keys = held(k);
  const auto values = held(v);
  std::vector<double> out(size_t{c.group} * c.head_dim);
  for (uint32_t h = 0; h < c.group; ++h) {
    std::vector<double> scores(c.positions);
    for (uint32_t p = 0; p < c.positions; ++p) {
      for (uint32_t d = 0; d < c.head_dim; ++d) {
        scores[p] +=
            0.25 * double{q[size_t{h} * c.head_dim + d]} * double{keys[size_t{p} * c.head_dim + d]};
      }
    }
    const double largest = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (double& score : scores) sum += score = std::exp(score - largest);
    for (uint32_t p = 0; p < c.positions; ++p) {
      for (uint32_t d = 0; d < c.head_dim; ++d) {
        out[size_t{h} * c.head_dim + d] +=
            scores[p] / sum * double{values[size_t{p} * c.head_dim + d]};
      }
    }
  }
  return out;
}

TEST(Attention, EqualsSoftmaxAndIsTheSameOnEveryIsa) {
  const AttentionCase cases[] = {
      {1, 1, 2, KvElement::kF32},    {5, 4, 64, KvElement::kF16},    {16, 7, 80, KvElement::kF32},
      {33, 5, 100, KvElement::kF16}, {64, 32, 128, KvElement::kF16}, {47, 3, 30, KvElement::kF32},
      {1, 1, 2, KvElement::kQ8},     {33, 5, 100, KvElement::kQ8},   {64, 32, 128, KvElement::kQ8},
      {47, 3, 30, KvElement::kQ8},   {1, 1, 2, KvElement::kT2},      {33, 5, 100, KvElement::kT2},
      {64, 32, 128, KvElement::kT2}, {47, 3, 30, KvElement::kT2}};
  for (const AttentionCase& c : cases) {
    const size_t size = size_t{c.positions} * c.head_dim;
    const auto k = Normal(size, 15);
    const auto v = Normal(size, 16);
    const auto q = Normal(size_t{c.group} * c.head_dim, 17);
    const auto out = AttendAll(c, k, v, q);
    const auto expected = NaiveAttention(c, k, v, q);
    for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 1e-5);
  }
}

TEST(Attention, RandomShapesOfEveryTypeEqualSoftmax) {
  Random random(64);
  double worst[4] = {};
  for (int i = 0; i < 1000; ++i) {
    const AttentionCase c{.positions = 1 + random() % 60,
                          .group = 1 + random() % 9,
                          .head_dim = 2 * (1 + random() % 70),
                          .element = kKvElements[random() % 4]};
    const size_t size = size_t{c.positions} * c.head_dim;
    // Flat softmax, usual ones, and ones where few positions count.
    const float spread = std::ldexp(1.0F, static_cast<int>(random() % 6) - 3);
    const auto k = Normal(size, random(), spread);
    const auto v = Normal(size, random());
    const auto q = Normal(size_t{c.group} * c.head_dim, random());
    const auto out = AttendAll(c, k, v, q);
    const auto expected = NaiveAttention(c, k, v, q);
    for (size_t j = 0; j < out.size(); ++j) {
      ASSERT_NEAR(out[j], expected[j], 1e-3)
          << c.positions << ' ' << c.group << ' ' << c.head_dim << ' ' << int(c.element);
      double& most = worst[static_cast<size_t>(c.element)];
      most = std::max(most, std::fabs(out[j] - expected[j]));
    }
  }
  std::printf("largest error: f32 %.1e, f16 %.1e, q8 %.1e, t2 %.1e\n", worst[0], worst[1], worst[2],
              worst[3]);
}

// Scores of many sizes, so that many values are left out for some heads and not for others.
TEST(Attention, AHeadsBitsDoNotDependOnItsGroup) {
  for (const KvElement element : kKvElements) {
    for (const float spread : {1.0F, 4.0F}) {
      const AttentionCase c{40, 9, 64, element};
      const auto k = Normal(size_t{40} * 64, 18, spread);
      const auto v = Normal(size_t{40} * 64, 19);
      const auto q = Normal(size_t{9} * 64, 20);
      for (const KernelTable& table : kernels::SupportedKernels()) {
        AttentionState all(c);
        Attend(table.floats, c, k, v, q, 0, 40, &all);
        for (uint32_t h = 0; h < 9; ++h) {
          const AttentionCase one{40, 1, 64, element};
          AttentionState alone(one);
          const std::vector<float> query(q.begin() + h * 64, q.begin() + (h + 1) * 64);
          Attend(table.floats, one, k, v, query, 0, 40, &alone);
          const std::vector<float> row(all.accumulator.begin() + h * 64,
                                       all.accumulator.begin() + (h + 1) * 64);
          ASSERT_EQ(Bits(alone.accumulator), Bits(row)) << table.name;
          ASSERT_EQ(alone.sum[0], all.sum[h]);
        }
      }
    }
  }
}

TEST(Attention, LeavesOutT2ValuesOfNoWeightAndNothingElse) {
  // Scores 0 and -13 (weight 2.3e-6), or 0 and -14 (8.3e-7).
  for (const auto& [score, counts] : {std::pair{-13.0F, true}, std::pair{-14.0F, false}}) {
    for (const KvElement element : {KvElement::kQ8, KvElement::kT2}) {
      const AttentionCase c{2, 1, 16, element};
      std::vector<float> k(32);
      k[0] = 0.0F;
      k[16] = 4 * score;
      std::vector<float> v(32);
      v[1] = 1.0F;
      v[18] = 1.0F;
      std::vector<float> q(16);
      q[0] = 1.0F;
      const auto out = AttendAll(c, k, v, q);
      EXPECT_NEAR(out[1], 1.0F, 1e-3);  // the scale is a half
      EXPECT_EQ(out[2] != 0.0F, counts || element == KvElement::kQ8) << score;
    }
  }
}

TEST(Attention, ARowThatIsNotFiniteStaysSo) {
  for (const KvElement element : kKvElements) {
    for (const bool key : {true, false}) {
      const AttentionCase c{20, 5, 48, element};
      auto k = Normal(size_t{20} * 48, 65);
      auto v = Normal(size_t{20} * 48, 66);
      // Far away from the query, so that its weight alone would not show it.
      for (size_t i = 0; i < 48; ++i) k[i] = -30.0F;
      (key ? k : v)[7] = std::nanf("");
      const std::vector<float> q(size_t{5} * 48, 1.0F);
      const auto out = AttendAll(c, k, v, q);
      for (uint32_t h = 0; h < 5; ++h) EXPECT_TRUE(std::isnan(out[h * 48 + 7]));
    }
  }
}

TEST(Attention, MergingPartitionsEqualsAttendingToAll) {
  const AttentionCase c{96, 4, 48, KvElement::kF32};
  const auto k = Normal(size_t{96} * 48, 21);
  const auto v = Normal(size_t{96} * 48, 22);
  const auto q = Normal(size_t{4} * 48, 23);
  const auto whole = SameOnEveryIsa([&](const FloatOps& ops) {
    AttentionState state(c);
    Attend(ops, c, k, v, q, 0, 96, &state);
    std::vector<float> out(state.accumulator.size());
    ops.finish_attention(4, 48, state.sum.data(), state.accumulator.data(), out.data());
    return out;
  });
  const auto merged = SameOnEveryIsa([&](const FloatOps& ops) {
    AttentionState state(c);
    AttentionState later(c);
    const AttentionState empty(c);
    Attend(ops, c, k, v, q, 0, 64, &state);
    Attend(ops, c, k, v, q, 64, 96, &later);
    ops.merge_attention(4, 48, empty.max.data(), empty.sum.data(), empty.accumulator.data(),
                        state.max.data(), state.sum.data(), state.accumulator.data());
    ops.merge_attention(4, 48, later.max.data(), later.sum.data(), later.accumulator.data(),
                        state.max.data(), state.sum.data(), state.accumulator.data());
    std::vector<float> out(state.accumulator.size());
    ops.finish_attention(4, 48, state.sum.data(), state.accumulator.data(), out.data());
    return out;
  });
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_NEAR(merged[i], whole[i], 2e-6);
}

}  // namespace
}  // namespace fabric
