// Property: trits and their scale survive the way from any form in which Tern keeps them to any
// other and back, byte for byte: PT-5 frames in both alphabets, panels of both layouts, bit planes,
// compressed lines, the ternary planes of quantised codes, and every ternary GGUF type.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "fabric/aligned_buffer.h"
#include "fabric/frame.h"
#include "fabric/half.h"
#include "fabric/matrix_store.h"
#include "fabric/panel_layout.h"
#include "fabric/plane_matrix.h"
#include "fabric/quantized_matrix.h"
#include "fabric/sparse/sparse_lines.h"
#include "fabric/sparse/trit_planes.h"
#include "fabric/ternary_matrix.h"
#include "gguf/codec.h"

namespace engine {
namespace {

using fabric::TernaryLayout;
using fabric::TernaryMatrix;

constexpr uint32_t kRows = 20;   // whole groups of four, and a panel that is not full
constexpr uint32_t kCols = 768;  // whole blocks of every type, and lines of PT-5 that are not full

// What all forms hold.
struct Trits {
  std::vector<int8_t> trits;  // [kRows, kCols]
  float scale = 0;

  bool operator==(const Trits&) const = default;
};

using Bytes = std::vector<uint8_t>;

// A form: how it is written and read. Bytes of forms without a scale carry it behind them.
struct Form {
  std::string name;
  std::function<Bytes(const Trits&)> write;
  std::function<Trits(const Bytes&)> read;
  bool has_zeros = true;
};

template <typename Range>
void Append(const Range& range, Bytes* bytes) {
  const auto* first = reinterpret_cast<const uint8_t*>(std::data(range));
  bytes->insert(bytes->end(), first, first + std::size(range) * sizeof(*std::data(range)));
}

void AppendScale(float scale, Bytes* bytes) { Append(std::array{scale}, bytes); }

float ScaleBehind(const Bytes& bytes) {
  float scale = 0;
  std::memcpy(&scale, bytes.data() + bytes.size() - sizeof scale, sizeof scale);
  return scale;
}

std::span<const int8_t> RowOf(const Trits& t, uint32_t row) {
  return std::span(t.trits).subspan(size_t{row} * kCols, kCols);
}

TernaryMatrix ToPanels(const Trits& t, TernaryLayout layout) {
  TernaryMatrix matrix(kRows, kCols, fabric::ScaleKind::kTensor, 0, layout);
  for (uint32_t row = 0; row < kRows; ++row) matrix.SetRow(row, RowOf(t, row), {&t.scale, 1});
  return matrix;
}

Trits FromPanels(const TernaryMatrix& matrix) {
  Trits t{.trits = std::vector<int8_t>(size_t{kRows} * kCols), .scale = matrix.ScaleAt(0, 0)};
  for (uint32_t row = 0; row < kRows; ++row) {
    matrix.GetRow(row, std::span(t.trits).subspan(size_t{row} * kCols, kCols));
  }
  return t;
}

// Panels are read back from their bytes by way of a matrix whose every byte is theirs: position by
// position, by the definition in fabric/panel_layout.h.
Form Panels(const std::string& name, TernaryLayout layout) {
  return {name,
          [=](const Trits& t) {
            const TernaryMatrix matrix = ToPanels(t, layout);
            Bytes bytes;
            Append(matrix.panels(), &bytes);
            AppendScale(matrix.ScaleAt(0, 0), &bytes);
            return bytes;
          },
          [=](const Bytes& bytes) {
            const uint32_t digits =
                layout == TernaryLayout::kPanel2Bit ? fabric::k2BitDigits : fabric::kPt5Digits;
            const uint32_t base = layout == TernaryLayout::kPanel2Bit ? 4 : 3;
            const size_t panel_bytes = size_t{fabric::LinesOf(kCols, digits)} * fabric::kLineBytes;
            Trits t{.trits = {}, .scale = ScaleBehind(bytes)};
            for (uint32_t row = 0; row < kRows; ++row) {
              for (uint32_t col = 0; col < kCols; ++col) {
                const auto at = fabric::PositionInPanel(row % fabric::kPanelRows, col, digits);
                uint32_t byte = bytes[row / fabric::kPanelRows * panel_bytes + at.byte];
                for (uint32_t digit = 0; digit < at.digit; ++digit) byte /= base;
                t.trits.push_back(static_cast<int8_t>(static_cast<int>(byte % base) - 1));
              }
            }
            return t;
          }};
}

Form Frames(const std::string& name, uint16_t packing) {
  return {
      name,
      [=](const Trits& t) {
        const fabric::TernaryFrame frame =
            fabric::ToFrame(ToPanels(t, TernaryLayout::kPanel2Bit), packing);
        Bytes bytes = frame.bytes;
        AppendScale(frame.scales.at(0), &bytes);
        return bytes;
      },
      [=](const Bytes& bytes) {
        fabric::TernaryFrame frame = fabric::ToFrame(
            TernaryMatrix(kRows, kCols, fabric::ScaleKind::kTensor, 0, TernaryLayout::kPanelPt5),
            packing);
        frame.bytes.assign(bytes.begin(), bytes.end() - sizeof(float));
        frame.scales = {ScaleBehind(bytes)};
        std::optional<TernaryMatrix> matrix;
        EXPECT_EQ(fabric::FromFrame(frame, TernaryLayout::kPanelPt5, &matrix), fabric::Status::kOk);
        return FromPanels(*matrix);
      }};
}

fabric::sparse::TritPlanes ToBitPlanes(const Trits& t) {
  return fabric::sparse::TritPlanes::FromMatrix(ToPanels(t, TernaryLayout::kPanelPt5));
}

Bytes BitPlaneBytes(const fabric::sparse::TritPlanes& planes, float scale) {
  Bytes bytes;
  for (uint32_t row = 0; row < kRows; ++row) {
    Append(planes.plus(row), &bytes);
    Append(planes.minus(row), &bytes);
  }
  AppendScale(scale, &bytes);
  return bytes;
}

Trits ReadBitPlanes(const Bytes& bytes) {
  Trits t{.trits = {}, .scale = ScaleBehind(bytes)};
  constexpr size_t kRowBytes = kCols / 8;
  for (uint32_t row = 0; row < kRows; ++row) {
    for (uint32_t col = 0; col < kCols; ++col) {
      const size_t plus = 2 * row * kRowBytes + col / 8;
      const int is_plus = bytes[plus] >> (col % 8) & 1;
      const int is_minus = bytes[plus + kRowBytes] >> (col % 8) & 1;
      t.trits.push_back(static_cast<int8_t>(is_plus - is_minus));
    }
  }
  return t;
}

Form Lines() {
  return {"compressed lines",
          [](const Trits& t) {
            const TernaryMatrix lines =
                fabric::CopyTernary(ToPanels(t, TernaryLayout::kPanel2Bit), TernaryLayout::kSparse);
            Bytes bytes;
            Append(lines.panels(), &bytes);
            AppendScale(lines.ScaleAt(0, 0), &bytes);
            return bytes;
          },
          [](const Bytes& bytes) {
            fabric::AlignedBuffer<uint8_t> aligned(bytes.size() - sizeof(float));
            std::copy_n(bytes.begin(), aligned.size(), aligned.begin());
            constexpr uint32_t kPanels = (kRows + fabric::kPanelRows - 1) / fabric::kPanelRows;
            const auto view = fabric::sparse::ViewLines({aligned.data(), aligned.size()}, kPanels);
            Trits t{.trits = std::vector<int8_t>(size_t{kRows} * kCols),
                    .scale = ScaleBehind(bytes)};
            for (uint32_t row = 0; row < kRows; ++row) {
              fabric::sparse::GetLinesRow(view, row,
                                          std::span(t.trits).subspan(size_t{row} * kCols, kCols));
            }
            return t;
          }};
}

Form BitPlanes() {
  return {"bit planes", [](const Trits& t) { return BitPlaneBytes(ToBitPlanes(t), t.scale); },
          ReadBitPlanes};
}

// As codes of a quantised type, whose planes are what is kept.
Form Planes(fabric::QuantizedType type) {
  const int zero = fabric::FormatOf(type).zero;
  return {"planes of " + std::string(QuantizedTypeName(type)),
          [=](const Trits& t) {
            fabric::QuantizedMatrix matrix(type, kRows, kCols);
            const std::vector<uint16_t> scales(kCols / 32, fabric::FloatToHalf(t.scale));
            for (uint32_t row = 0; row < kRows; ++row) {
              std::vector<uint8_t> codes;
              for (const int8_t trit : RowOf(t, row)) {
                codes.push_back(static_cast<uint8_t>(zero + trit));
              }
              matrix.SetRow(
                  row,
                  {.codes = codes, .sub_scales = {}, .sub_mins = {}, .scales = scales, .mins = {}});
            }
            const fabric::PlaneMatrix planes(matrix, fabric::MeasurePlanes(matrix).back());
            Bytes bytes;
            for (const TernaryMatrix& plane : planes.planes()) Append(plane.panels(), &bytes);
            AppendScale(planes.Tile(0, 1).scales[0], &bytes);
            return bytes;
          },
          [=](const Bytes& bytes) {
            const Form panels = Panels("", TernaryLayout::kPanel2Bit);
            const size_t planes = fabric::ExactPlanes(type);
            const size_t plane_bytes = (bytes.size() - sizeof(float)) / planes;
            Trits sum{.trits = std::vector<int8_t>(size_t{kRows} * kCols),
                      .scale = ScaleBehind(bytes)};
            int weight = 1;
            for (size_t p = 0; p < planes; ++p, weight *= 3) {
              const auto first = bytes.begin() + static_cast<ptrdiff_t>(p * plane_bytes);
              Bytes plane(first, first + static_cast<ptrdiff_t>(plane_bytes));
              AppendScale(sum.scale, &plane);
              const Trits digits = panels.read(plane);
              for (size_t i = 0; i < sum.trits.size(); ++i) {
                sum.trits[i] = static_cast<int8_t>(sum.trits[i] + weight * digits.trits[i]);
              }
            }
            return sum;
          }};
}

Form Gguf(const std::string& name, gguf::TensorType type,
          gguf::I2SLayout layout = gguf::I2SLayout::kX86, bool has_zeros = true) {
  return {name,
          [=](const Trits& t) {
            const std::vector<std::byte> encoded =
                gguf::EncodeTernary(type, kRows, kCols, t.trits, gguf::ScaleLayout::kTensor, 0,
                                    std::span(&t.scale, 1), layout);
            Bytes bytes;
            Append(encoded, &bytes);
            return bytes;
          },
          [=](const Bytes& bytes) {
            gguf::TensorInfo info;
            info.name = "w";
            info.type = type;
            info.extents = {kCols, kRows, 1, 1};
            info.rank = 2;
            info.byte_size = bytes.size();
            gguf::ReadOptions options;
            options.i2s_layout = layout;
            const gguf::TernaryDecoder decoder(info, std::as_bytes(std::span(bytes)), options);
            Trits t{.trits = std::vector<int8_t>(size_t{kRows} * kCols), .scale = 0};
            std::vector<float> scales(decoder.scales_per_row());
            for (uint32_t row = 0; row < kRows; ++row) {
              decoder.DecodeRow(row, std::span(t.trits).subspan(size_t{row} * kCols, kCols),
                                scales);
              t.scale = scales[0];
            }
            return t;
          },
          has_zeros};
}

std::vector<Form> AllForms() {
  using gguf::I2SLayout;
  using gguf::TensorType;
  return {Frames("PT-5 frame", fabric::kPackingPt5),
          Frames("PT-5 frame, hardware alphabet", fabric::kPackingPt5Hardware),
          Panels("2-bit panels", TernaryLayout::kPanel2Bit),
          Panels("PT-5 panels", TernaryLayout::kPanelPt5),
          BitPlanes(),
          Lines(),
          Planes(fabric::QuantizedType::kQ4_0),
          Planes(fabric::QuantizedType::kQ8_0),
          Gguf("TQ1_0", TensorType::kTQ1_0),
          Gguf("TQ2_0", TensorType::kTQ2_0),
          Gguf("I2_S, layout a", TensorType::kI2_S, I2SLayout::kX86),
          Gguf("I2_S, layout b", TensorType::kI2_S, I2SLayout::kArm64),
          Gguf("I2_S, layout c", TensorType::kI2_S, I2SLayout::kInterleaved4),
          Gguf("Q2_0", TensorType::kQ2_0),
          Gguf("Q2_0, old", TensorType::kQ2_0_G128),
          Gguf("PQ2_0", TensorType::kPQ2_0),
          Gguf("PTQ1_0", TensorType::kPTQ1_0),
          Gguf("IQ1_BN", TensorType::kIQ1_BN),
          Gguf("IQ2_BN", TensorType::kIQ2_BN),
          Gguf("IQ2_BN_R4", TensorType::kIQ2_BN_R4),
          Gguf("Q1_0", TensorType::kQ1_0, I2SLayout::kX86, false)};
}

// Rows of all kinds: random, pruned, and of one value alone. The scale is one that float16 holds.
Trits SomeTrits(bool zeros) {
  std::mt19937 random(7);
  Trits t{.trits = {}, .scale = 0.40625F};
  for (uint32_t row = 0; row < kRows; ++row) {
    for (uint32_t col = 0; col < kCols; ++col) {
      int trit = static_cast<int>(random() % 3) - 1;
      if (row % 5 == 1 && random() % 20 != 0) trit = 0;
      if (row % 5 == 2) trit = 1;
      if (row % 5 == 3) trit = -1;
      if (row % 5 == 4 && row > 4) trit = 0;
      if (!zeros && trit == 0) trit = col % 3 == 0 ? 1 : -1;
      t.trits.push_back(static_cast<int8_t>(trit));
    }
  }
  return t;
}

TEST(Layouts, TritsSurviveBetweenEveryPair) {
  const std::vector<Form> forms = AllForms();
  ASSERT_EQ(forms.size(), 21U);
  for (const Form& from : forms) {
    for (const Form& to : forms) {
      for (const bool zeros : {true, false}) {
        if (zeros && (!from.has_zeros || !to.has_zeros)) continue;
        const Trits trits = SomeTrits(zeros);
        const Bytes first = from.write(trits);
        const Bytes second = to.write(from.read(first));
        ASSERT_EQ(to.read(second), trits) << from.name << " to " << to.name;
        ASSERT_EQ(from.write(to.read(second)), first) << from.name << " by way of " << to.name;
      }
    }
  }
}

}  // namespace
}  // namespace engine
