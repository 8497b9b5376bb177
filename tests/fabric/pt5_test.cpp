// Property: PT-5 keeps every tuple of trits in both alphabets and at any length, and no invalid
// byte is ever read as trits; frames keep matrices and refuse numbers that contradict each other.

#include "fabric/pt5.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <vector>

#include "fabric/frame.h"
#include "tests/fabric/cases.h"

namespace fabric {
namespace {

constexpr Pt5Alphabet kAlphabets[] = {Pt5Alphabet::kCanonical, Pt5Alphabet::kHardware};

std::vector<int8_t> TritsOf(unsigned code) {
  std::vector<int8_t> trits;
  for (int i = 0; i < 5; ++i, code /= 3) trits.push_back(static_cast<int8_t>(code % 3) - 1);
  return trits;
}

TEST(Pt5, All243CodesAreTheirBase3Number) {
  for (unsigned code = 0; code < kPt5Codes; ++code) {
    const std::vector<int8_t> trits = TritsOf(code);
    uint8_t byte = 0;
    PackPt5(trits, Pt5Alphabet::kCanonical, {&byte, 1});
    EXPECT_EQ(byte, code);
    std::vector<int8_t> back(5);
    EXPECT_EQ(UnpackPt5({&byte, 1}, Pt5Alphabet::kCanonical, back), Status::kOk);
    EXPECT_EQ(back, trits);
  }
}

TEST(Pt5, HardwareAlphabetIsABijectionThatKeepsTheTrits) {
  std::vector<bool> seen(kPt5Codes);
  for (unsigned code = 0; code < kPt5Codes; ++code) {
    auto byte = static_cast<uint8_t>(code);
    ASSERT_EQ(ConvertPt5(Pt5Alphabet::kCanonical, Pt5Alphabet::kHardware, {&byte, 1}), Status::kOk);
    ASSERT_LT(byte, kPt5Codes);
    EXPECT_FALSE(seen[byte]);
    seen[byte] = true;
    std::vector<int8_t> trits(5);
    ASSERT_EQ(UnpackPt5({&byte, 1}, Pt5Alphabet::kHardware, trits), Status::kOk);
    EXPECT_EQ(trits, TritsOf(code));
    ASSERT_EQ(ConvertPt5(Pt5Alphabet::kHardware, Pt5Alphabet::kCanonical, {&byte, 1}), Status::kOk);
    EXPECT_EQ(byte, code);
  }
  const std::vector<int8_t> digits = {1, -1, 0, 0, 0};
  uint8_t byte = 0;
  PackPt5(digits, Pt5Alphabet::kHardware, {&byte, 1});
  EXPECT_EQ(byte, 1 + 2 * 3);
}

TEST(Pt5, The13InvalidBytesAreFaults) {
  for (unsigned code = kPt5Codes; code < 256; ++code) {
    for (const Pt5Alphabet alphabet : kAlphabets) {
      std::vector<uint8_t> bytes = {121, static_cast<uint8_t>(code)};
      std::vector<int8_t> trits(6);
      EXPECT_EQ(UnpackPt5(bytes, alphabet, trits), Status::kErrPack);
      EXPECT_EQ(ConvertPt5(alphabet, Pt5Alphabet::kCanonical, bytes), Status::kErrPack);
    }
  }
}

TEST(Pt5, TailDigitsAreZeroTritsAndIgnored) {
  for (size_t length = 1; length <= 5; ++length) {
    const std::vector<int8_t> ones(length, 1);
    uint8_t byte = 0;
    PackPt5(ones, Pt5Alphabet::kCanonical, {&byte, 1});
    std::vector<int8_t> all(5);
    ASSERT_EQ(UnpackPt5({&byte, 1}, Pt5Alphabet::kCanonical, all), Status::kOk);
    for (size_t i = 0; i < 5; ++i) EXPECT_EQ(all[i], i < length ? 1 : 0);
  }
}

TEST(Pt5, WrongSizesAreRefused) {
  std::vector<uint8_t> bytes(2, 121);
  std::vector<int8_t> trits(11);
  EXPECT_EQ(UnpackPt5(bytes, Pt5Alphabet::kCanonical, trits), Status::kErrAddr);
  trits.resize(5);
  EXPECT_EQ(UnpackPt5(bytes, Pt5Alphabet::kCanonical, trits), Status::kErrAddr);
}

RC_GTEST_PROP(Pt5, RoundTripsAnyTrits, ()) {
  const auto trits = *rc::gen::container<std::vector<int8_t>>(
      rc::gen::map(rc::gen::inRange(-1, 2), [](int t) { return static_cast<int8_t>(t); }));
  for (const Pt5Alphabet alphabet : kAlphabets) {
    std::vector<uint8_t> bytes(Pt5Bytes(trits.size()));
    PackPt5(trits, alphabet, bytes);
    std::vector<int8_t> back(trits.size());
    RC_ASSERT(UnpackPt5(bytes, alphabet, back) == Status::kOk);
    RC_ASSERT(back == trits);
  }
}

TernaryMatrix SomeMatrix(uint32_t rows, uint32_t cols, ScaleKind kind, TernaryLayout layout) {
  if (layout == TernaryLayout::kSparse) {
    return CopyTernary(SomeMatrix(rows, cols, kind, TernaryLayout::kPanelPt5), layout);
  }
  TernaryMatrix matrix(rows, cols, kind, 32, layout);
  std::vector<int8_t> trits(cols);
  uint32_t state = rows * 7919 + cols;
  for (uint32_t row = 0; row < rows; ++row) {
    for (int8_t& trit : trits) {
      state = state * 1664525 + 1013904223;
      trit = static_cast<int8_t>(static_cast<int>((state >> 16) % 3) - 1);
    }
    std::vector<float> scales(matrix.scales_per_row(),
                              kind == ScaleKind::kTensor ? 0.5F : 0.25F * static_cast<float>(row));
    for (size_t s = 1; s < scales.size(); ++s) scales[s] += static_cast<float>(s);
    matrix.SetRow(row, trits, scales);
  }
  return matrix;
}

TEST(Frame, MatricesSurviveInEveryLayoutScaleAndAlphabet) {
  for (const TernaryLayout layout : testing::kEveryLayout) {
    for (const ScaleKind kind : {ScaleKind::kTensor, ScaleKind::kRow, ScaleKind::kGroup}) {
      for (const uint16_t packing : {kPackingPt5, kPackingPt5Hardware}) {
        for (uint32_t cols = 61; cols <= 66; ++cols) {
          const TernaryMatrix matrix = SomeMatrix(19, cols, kind, layout);
          const TernaryFrame frame = ToFrame(matrix, packing);
          EXPECT_EQ(frame.bytes.size(), (19 * cols + 4) / 5);
          for (const TernaryLayout to : testing::kEveryLayout) {
            std::optional<TernaryMatrix> back;
            ASSERT_EQ(FromFrame(frame, to, &back), Status::kOk);
            EXPECT_EQ(back->CopyScales(), matrix.CopyScales());
            std::vector<int8_t> expected(cols);
            std::vector<int8_t> got(cols);
            for (uint32_t row = 0; row < 19; ++row) {
              matrix.GetRow(row, expected);
              back->GetRow(row, got);
              ASSERT_EQ(got, expected);
            }
            if (to == layout) {
              EXPECT_TRUE(std::equal(back->panels().begin(), back->panels().end(),
                                     matrix.panels().begin(), matrix.panels().end()));
            }
          }
        }
      }
    }
  }
}

TEST(Frame, ContradictionsAreRefused) {
  const TernaryFrame good =
      ToFrame(SomeMatrix(4, 10, ScaleKind::kRow, TernaryLayout::kPanel2Bit), kPackingPt5);
  const auto expect = [&](Status status, auto change) {
    TernaryFrame bad = good;
    change(&bad);
    std::optional<TernaryMatrix> matrix;
    EXPECT_EQ(FromFrame(bad, TernaryLayout::kPanel2Bit, &matrix), status);
    EXPECT_FALSE(matrix.has_value());
  };
  expect(Status::kErrAddr, [](TernaryFrame* f) { f->descriptor.frame_len = 41; });
  expect(Status::kErrAddr, [](TernaryFrame* f) { f->descriptor.rows = 0x40000000; });
  expect(Status::kErrAddr, [](TernaryFrame* f) { f->descriptor.lane_stride = 9; });
  expect(Status::kErrAddr, [](TernaryFrame* f) { f->bytes.pop_back(); });
  expect(Status::kErrAddr, [](TernaryFrame* f) { f->scales.pop_back(); });
  expect(Status::kErrPack, [](TernaryFrame* f) { f->bytes[3] = 243; });
  expect(Status::kErrUnsupported, [](TernaryFrame* f) { f->descriptor.version = 2; });
  expect(Status::kErrUnsupported, [](TernaryFrame* f) { f->descriptor.packing_fmt = 9; });
  expect(Status::kErrUnsupported, [](TernaryFrame* f) {
    f->scale_kind = ScaleKind::kGroup;
    f->group = 5;
  });
  expect(Status::kErrUnsupported, [](TernaryFrame* f) {
    f->descriptor.rows = 0;
    f->descriptor.frame_len = 0;
    f->bytes.clear();
  });
}

}  // namespace
}  // namespace fabric
