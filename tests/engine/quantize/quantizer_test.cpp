// Property: a converted model holds what its report says. Repacking keeps every trit, and every
// scale where the type can hold it (docs/decisions.md), over all pairs of ternary types; what
// cannot be kept is refused or, when allowed, reported; a stopped write leaves nothing behind.

#include "engine/quantize/quantizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "gguf/codec.h"
#include "gguf/error.h"
#include "gguf/writer.h"
#include "tests/support/gguf_builder.h"

namespace engine::quantize {
namespace {

namespace fs = std::filesystem;
using gguf::ScaleLayout;
using gguf::TensorType;
using testing::HasSubstr;

class Folder {
 public:
  Folder() {
    static int counter = 0;
    path_ = fs::path(testing::TempDir()) /
            ("tern_quantize_" + std::to_string(getpid()) + "_" + std::to_string(counter++));
    fs::create_directories(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder() { fs::remove_all(path_); }
  std::string File(const std::string& name) const { return (path_ / name).string(); }
  size_t Count() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(path_), {}));
  }

 private:
  fs::path path_;
};

constexpr uint64_t kRows = 8;
constexpr uint64_t kCols = 512;
constexpr const char* kName = "blk.0.ffn_down.weight";

// A type and what it can hold.
struct Kind {
  TensorType type;
  ScaleLayout finest;
  uint32_t group;  // for kGroup
  bool half;
};

constexpr Kind kKinds[] = {
    {TensorType::kTQ1_0, ScaleLayout::kGroup, 256, true},
    {TensorType::kTQ2_0, ScaleLayout::kGroup, 256, true},
    {TensorType::kI2_S, ScaleLayout::kTensor, 0, false},
    {TensorType::kQ2_0, ScaleLayout::kGroup, 64, true},
    {TensorType::kQ2_0_G128, ScaleLayout::kGroup, 128, true},
    {TensorType::kPQ2_0, ScaleLayout::kGroup, 128, true},
    {TensorType::kPTQ1_0, ScaleLayout::kGroup, 128, true},
    {TensorType::kIQ1_BN, ScaleLayout::kRow, 0, true},
    {TensorType::kIQ2_BN, ScaleLayout::kRow, 0, false},
    {TensorType::kIQ2_BN_R4, ScaleLayout::kRow, 0, false},
};

// How many columns share a scale; all rows too for a tensor's.
uint64_t Width(ScaleLayout layout, uint32_t group) {
  if (layout == ScaleLayout::kTensor) return kRows * kCols;
  return layout == ScaleLayout::kRow ? kCols : group;
}

struct Matrix {
  std::vector<int8_t> trits;
  ScaleLayout layout;
  uint32_t group;
  std::vector<float> scales;

  uint64_t PerRow() const { return layout == ScaleLayout::kGroup ? kCols / group : 1; }
  float Scale(uint64_t row, uint64_t col) const {
    if (layout == ScaleLayout::kTensor) return scales[0];
    return scales[row * PerRow() + (layout == ScaleLayout::kGroup ? col / group : 0)];
  }
};

// Every group has trits of each kind; scales differ from group to group.
Matrix RandomMatrix(ScaleLayout layout, uint32_t group, bool half, uint32_t seed) {
  std::mt19937 random(seed);
  Matrix matrix = {.trits = {}, .layout = layout, .group = group, .scales = {}};
  for (uint64_t i = 0; i < kRows * kCols; ++i) {
    matrix.trits.push_back(static_cast<int8_t>(static_cast<int>(random() % 3) - 1));
  }
  const size_t count = layout == ScaleLayout::kTensor ? 1 : kRows * matrix.PerRow();
  for (size_t i = 0; i < count; ++i) {
    const auto step = static_cast<float>(i + 1);
    // 1/3 is no float16; n/1024 is.
    matrix.scales.push_back(half ? step / 1024.0F : step / 3.0F);
  }
  return matrix;
}

// A model file with one projection; `matrix` in the given type.
std::vector<std::byte> ModelOf(const Kind& kind, const Matrix& matrix) {
  gguf::Writer writer;
  writer.metadata().Set("general.architecture", support::TextValue("llama"));
  writer.metadata().Set("general.file_type", support::UintValue(999));
  writer.AddTensor("output_norm.weight", TensorType::kF32, {4}, std::vector<std::byte>(16));
  writer.AddTensor(kName, kind.type, {kCols, kRows},
                   gguf::EncodeTernary(kind.type, kRows, kCols, matrix.trits, matrix.layout,
                                       matrix.layout == ScaleLayout::kGroup ? matrix.group : kCols,
                                       matrix.scales));
  return writer.Serialize();
}

Matrix ReadMatrix(const gguf::File& file) {
  const gguf::TensorInfo& info = *file.FindTensor(kName);
  const gguf::TernaryDecoder decoder(info, file.TensorBytes(info), file.options());
  Matrix matrix = {.trits = std::vector<int8_t>(kRows * kCols),
                   .layout = decoder.scale_layout(),
                   .group = decoder.group(),
                   .scales = std::vector<float>(kRows * decoder.scales_per_row())};
  for (uint64_t row = 0; row < kRows; ++row) {
    decoder.DecodeRow(
        row, std::span(matrix.trits).subspan(row * kCols, kCols),
        std::span(matrix.scales).subspan(row * decoder.scales_per_row(), decoder.scales_per_row()));
  }
  // As rows: the decoder gives a tensor's scale with each.
  if (matrix.layout == ScaleLayout::kTensor) matrix.layout = ScaleLayout::kRow;
  return matrix;
}

std::string RefusalOf(const std::vector<std::byte>& model, const QuantizeOptions& options) {
  try {
    const gguf::File file = gguf::File::Parse(model);
    Quantizer(file, options).Measure({});
  } catch (const QuantizeError& error) {
    return error.what();
  }
  return "";
}

// True when every range of scales of `to` lies inside one of `from` and its number fits.
bool Holds(const Kind& to, ScaleLayout from, uint32_t from_group, bool half) {
  return Width(to.finest, to.group) <= Width(from, from_group) && (half || !to.half);
}

struct MatrixCase {
  ScaleLayout layout;
  uint32_t group;
  bool half;
};

TEST(Repack, KeepsTritsAndScalesBetweenAllTypesOrIsRefused) {
  const MatrixCase cases[] = {{ScaleLayout::kTensor, 0, true},  {ScaleLayout::kTensor, 0, false},
                              {ScaleLayout::kRow, 0, true},     {ScaleLayout::kRow, 0, false},
                              {ScaleLayout::kGroup, 256, true}, {ScaleLayout::kGroup, 128, true},
                              {ScaleLayout::kGroup, 64, true}};
  const Folder folder;
  int exact = 0, refused = 0;
  for (const MatrixCase& c : cases) {
    const Matrix matrix = RandomMatrix(c.layout, c.group, c.half, 7);
    for (const Kind& from : kKinds) {
      if (!Holds(from, c.layout, c.group, c.half)) continue;
      const std::vector<std::byte> source = ModelOf(from, matrix);
      for (const Kind& to : kKinds) {
        if (to.type == from.type) continue;
        const std::string name =
            std::string(gguf::TypeName(from.type)) + " to " + std::string(gguf::TypeName(to.type));
        const QuantizeOptions options = {.type = to.type};
        if (!Holds(to, c.layout, c.group, c.half)) {
          EXPECT_THAT(RefusalOf(source, options), HasSubstr("--allow-scale-rounding")) << name;
          ++refused;
          continue;
        }
        const gguf::File file = gguf::File::Parse(source);
        const QuantizeReport report =
            Quantizer(file, options).WriteFile(folder.File("out.gguf"), {});
        EXPECT_EQ(report.tensors[1].method, Method::kRepacked) << name;
        EXPECT_EQ(report.total.relative_error(), 0.0) << name;
        const gguf::File written = gguf::File::Open(folder.File("out.gguf"));
        EXPECT_EQ(written.FindTensor(kName)->type, to.type) << name;
        const Matrix read = ReadMatrix(written);
        ASSERT_EQ(read.trits, matrix.trits) << name;
        for (uint64_t i = 0; i < kRows * kCols; ++i) {
          ASSERT_EQ(read.Scale(i / kCols, i % kCols), matrix.Scale(i / kCols, i % kCols)) << name;
        }
        ++exact;
      }
    }
  }
  // Pairs by hand, in the order of `cases`: the first type holds the scales, the second too or not.
  EXPECT_EQ(exact, 10 * 9 + 3 * 2 + 9 * 8 + 2 * 1 + 6 * 5 + 4 * 3 + 0);
  EXPECT_EQ(refused, 0 + 3 * 7 + 9 * 1 + 2 * 8 + 6 * 4 + 4 * 6 + 9);
}

TEST(Repack, AllowedRoundingKeepsTheTritsAndReportsTheError) {
  const Folder folder;
  int rounded = 0;
  const Matrix matrix = RandomMatrix(ScaleLayout::kGroup, 64, true, 3);
  const std::vector<std::byte> source = ModelOf(kKinds[3], matrix);
  for (const Kind& to : kKinds) {
    if (to.type == TensorType::kQ2_0) continue;
    const gguf::File file = gguf::File::Parse(source);
    const QuantizeReport report = Quantizer(file, {.type = to.type, .allow_scale_rounding = true})
                                      .WriteFile(folder.File("out.gguf"), {});
    EXPECT_EQ(report.tensors[1].method, Method::kRescaled);
    const Matrix read = ReadMatrix(gguf::File::Open(folder.File("out.gguf")));
    ASSERT_EQ(read.trits, matrix.trits);
    // What the report says, computed here from what was written.
    double error = 0, squares = 0;
    for (uint64_t i = 0; i < kRows * kCols; ++i) {
      const double before = matrix.trits[i] * matrix.Scale(i / kCols, i % kCols);
      const double after = read.trits[i] * read.Scale(i / kCols, i % kCols);
      error += (before - after) * (before - after);
      squares += before * before;
    }
    EXPECT_GT(error, 0);
    EXPECT_NEAR(report.total.relative_error(), std::sqrt(error / squares), 1e-12);
    ++rounded;
  }
  EXPECT_EQ(rounded, 9);
}

// Encoders write scale 0 for blocks of zeros; such tensors still have one scale.
TEST(Repack, BlocksOfZerosDoNotCount) {
  Matrix matrix = RandomMatrix(ScaleLayout::kGroup, 256, true, 5);
  std::fill(matrix.scales.begin(), matrix.scales.end(), 0.5F);
  for (const size_t block : {0, 3, 15}) {
    std::fill_n(matrix.trits.begin() + static_cast<ptrdiff_t>(block * 256), 256, int8_t{0});
    matrix.scales[block] = 0;
  }
  for (const Kind& to : kKinds) {
    if (to.type == TensorType::kTQ2_0) continue;
    EXPECT_EQ(RefusalOf(ModelOf(kKinds[1], matrix), {.type = to.type}), "");
  }
}

TEST(Repack, ZerosDoNotFitTheBinaryType) {
  const Matrix matrix = RandomMatrix(ScaleLayout::kTensor, 0, true, 1);
  EXPECT_THAT(RefusalOf(ModelOf(kKinds[1], matrix), {.type = TensorType::kQ1_0}),
              HasSubstr("a weight is 0"));
}

// Floats of a bell shape, with rows of different size.
std::vector<float> Bell(uint64_t rows, uint64_t cols) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  std::vector<float> values(rows * cols);
  for (uint64_t i = 0; i < values.size(); ++i) {
    values[i] = normal(random) * 0.02F * static_cast<float>(1 + i / cols % 3);
  }
  return values;
}

struct NamedFloats {
  std::string name;
  uint64_t rows;
  uint64_t cols;
  TensorType type = TensorType::kF32;
};

std::vector<std::byte> FloatModel(const std::vector<NamedFloats>& tensors,
                                  uint64_t alignment = 32) {
  gguf::Writer writer;
  writer.SetAlignment(alignment);
  writer.metadata().Set("general.architecture", support::TextValue("llama"));
  writer.metadata().Set("general.file_type", support::UintValue(1));
  for (const NamedFloats& tensor : tensors) {
    std::vector<uint64_t> extents = {tensor.cols};
    if (tensor.rows > 1) extents.push_back(tensor.rows);
    writer.AddTensor(
        tensor.name, tensor.type, extents,
        gguf::EncodeTensor(tensor.type, tensor.rows, tensor.cols, Bell(tensor.rows, tensor.cols)));
  }
  return writer.Serialize();
}

// Each scale of the file is that of its own range, by Ternarize().
TEST(Calibrate, ScalesFollowTheGranularity) {
  struct Case {
    TensorType type;
    Granularity granularity;
    uint32_t group;
    uint64_t width;  // weights per scale
  };
  const uint64_t rows = 8, cols = 512;
  const Case cases[] = {
      {TensorType::kTQ2_0, Granularity::kAuto, 0, 256},
      {TensorType::kTQ1_0, Granularity::kGroup, 512, 512},
      {TensorType::kQ2_0, Granularity::kAuto, 0, 64},
      {TensorType::kQ2_0, Granularity::kGroup, 192, 192},
      {TensorType::kPTQ1_0, Granularity::kRow, 0, 512},
      {TensorType::kI2_S, Granularity::kAuto, 0, 4096},
      {TensorType::kIQ2_BN, Granularity::kAuto, 0, 512},
      {TensorType::kIQ1_BN, Granularity::kTensor, 0, 4096},
      {TensorType::kIQ2_BN_R4, Granularity::kTensor, 0, 4096},
  };
  const std::vector<std::byte> model = FloatModel({{kName, rows, cols}});
  const std::vector<float> values = Bell(rows, cols);
  const Folder folder;
  for (const Case& c : cases) {
    const gguf::File file = gguf::File::Parse(model);
    const QuantizeReport report =
        Quantizer(file, {.type = c.type, .granularity = c.granularity, .group = c.group})
            .WriteFile(folder.File("out.gguf"), {});
    EXPECT_EQ(report.tensors[0].method, Method::kCalibrated);
    const Matrix read = ReadMatrix(gguf::File::Open(folder.File("out.gguf")));
    const bool half = gguf::TernaryScalesOf(c.type)->half;
    const uint64_t row_width = std::min(c.width, cols);
    for (uint64_t row = 0; row < rows; ++row) {
      for (uint64_t first = 0; first < cols; first += row_width) {
        const bool whole = c.width > cols;
        const auto range = whole ? std::span<const float>(values)
                                 : std::span(values).subspan(row * cols + first,
                                                             std::min(row_width, cols - first));
        std::vector<int8_t> trits(range.size());
        float scale = Ternarize(range, {}, trits);
        if (half) scale = gguf::HalfToFloat(gguf::FloatToHalf(scale));
        EXPECT_EQ(read.Scale(row, first), scale) << gguf::TypeName(c.type);
        const int8_t* expected = trits.data() + (whole ? row * cols : 0);
        for (uint64_t i = 0; i < std::min(row_width, cols - first); ++i) {
          ASSERT_EQ(read.trits[row * cols + first + i], expected[i]) << gguf::TypeName(c.type);
        }
      }
    }
  }
}

// A tensor that is taken in several pieces has the bytes of one that is not.
TEST(Calibrate, PiecesDoNotShow) {
  const uint64_t rows = 16512, cols = 512;  // more than 8 million weights, an odd last piece
  const std::vector<std::byte> model = FloatModel({{kName, rows, cols}});
  const Folder folder;
  const gguf::File file = gguf::File::Parse(model);
  Quantizer(file, {.type = TensorType::kTQ1_0}).WriteFile(folder.File("out.gguf"), {});
  const gguf::File written = gguf::File::Open(folder.File("out.gguf"));
  const auto bytes = written.TensorBytes(*written.FindTensor(kName));
  const std::vector<float> values = Bell(rows, cols);
  std::vector<int8_t> trits(values.size());
  std::vector<float> scales;
  for (size_t begin = 0; begin < values.size(); begin += 256) {
    const float scale =
        Ternarize(std::span(values).subspan(begin, 256), {}, std::span(trits).subspan(begin, 256));
    scales.push_back(gguf::HalfToFloat(gguf::FloatToHalf(scale)));
  }
  const std::vector<std::byte> expected =
      gguf::EncodeTernary(TensorType::kTQ1_0, rows, cols, trits, ScaleLayout::kGroup, 256, scales);
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), expected.begin(), expected.end()));
}

TEST(Calibrate, TernaryFloatsKeepTheirTritsAndScales) {
  const Matrix matrix = RandomMatrix(ScaleLayout::kTensor, 0, true, 9);
  std::vector<float> values;
  for (const int8_t trit : matrix.trits) {
    values.push_back(static_cast<float>(trit) * matrix.scales[0]);
  }
  gguf::Writer writer;
  writer.metadata().Set("general.architecture", support::TextValue("bitnet"));
  writer.AddTensor(kName, TensorType::kF16, {kCols, kRows},
                   gguf::EncodeTensor(TensorType::kF16, kRows, kCols, values));
  const std::vector<std::byte> model = writer.Serialize();
  const Folder folder;
  for (const Kind& to : kKinds) {
    const gguf::File file = gguf::File::Parse(model);
    const QuantizeReport report =
        Quantizer(file, {.type = to.type}).WriteFile(folder.File("out.gguf"), {});
    EXPECT_EQ(report.tensors[0].method, Method::kExact);
    EXPECT_EQ(report.total.relative_error(), 0.0);
    const Matrix read = ReadMatrix(gguf::File::Open(folder.File("out.gguf")));
    EXPECT_EQ(read.trits, matrix.trits);
    EXPECT_EQ(read.scales[0], matrix.scales[0]);
    // absmean would have shrunk the scale by the share of zeros.
    const QuantizeReport again =
        Quantizer(file, {.type = to.type, .recalibrate = true}).Measure({});
    EXPECT_EQ(again.tensors[0].method, Method::kCalibrated);
    EXPECT_NEAR(again.total.relative_error(), again.total.zero_rate(), 0.02);
  }
}

TEST(Plan, NamesDecideWhatIsConverted) {
  const std::vector<std::byte> model = FloatModel({{"token_embd.weight", 16, 256},
                                                   {"output.weight", 16, 256},
                                                   {"output_norm.weight", 1, 256},
                                                   {"blk.0.attn_q.weight", 8, 256},
                                                   {"blk.0.attn_q_norm.weight", 2, 256},
                                                   {"blk.0.attn_q.bias", 2, 256},
                                                   {"blk.0.ffn_gate_inp.weight", 4, 256},
                                                   {"blk.1.ffn_down.weight", 8, 256},
                                                   {"blk.10.ffn_down.weight", 8, 256}});
  const gguf::File file = gguf::File::Parse(model);
  const auto types = [&](const QuantizeOptions& options) {
    std::string names;
    for (const PlannedTensor& tensor : PlanTensors(file, options)) {
      names += std::string(gguf::TypeName(tensor.target)) + " ";
    }
    return names;
  };
  EXPECT_EQ(types({.type = TensorType::kTQ2_0}), "F32 F32 F32 TQ2_0 F32 F32 F32 TQ2_0 TQ2_0 ");
  EXPECT_EQ(types({.type = TensorType::kI2_S,
                   .embeddings = TensorType::kQ6_K,
                   .head = TensorType::kQ8_0,
                   .rules = {{"blk.1.*", TensorType::kF16}, {"*.1?.*down*", std::nullopt}}}),
            "Q6_K Q8_0 F32 I2_S F32 F32 F32 F16 F32 ");
  // The last match counts.
  EXPECT_EQ(types({.type = TensorType::kI2_S,
                   .rules = {{"*", std::nullopt}, {"blk.0.attn_q.weight", TensorType::kTQ1_0}}}),
            "F32 F32 F32 TQ1_0 F32 F32 F32 F32 F32 ");
}

TEST(Plan, WhatDoesNotFitIsRefusedOrTakesTheFallback) {
  const std::vector<std::byte> model =
      FloatModel({{kName, 6, 192}, {"blk.0.ffn_up.weight", 6, 256}});
  EXPECT_THAT(RefusalOf(model, {.type = TensorType::kTQ2_0}),
              testing::AllOf(HasSubstr("192 columns"), HasSubstr("a multiple of 256"),
                             HasSubstr("Q2_0, IQ2_BN, IQ1_BN, F16")));
  EXPECT_THAT(RefusalOf(model, {.type = TensorType::kIQ2_BN_R4}), HasSubstr("of 4 rows"));
  EXPECT_THAT(RefusalOf(model, {.type = TensorType::kTQ2_0, .fallback = TensorType::kI2_S}),
              HasSubstr("the fallback I2_S no less"));
  EXPECT_THAT(RefusalOf(model, {.type = TensorType::kQ4_K}),
              testing::AllOf(HasSubstr("Q4_K needs a multiple of 256 columns"),
                             HasSubstr("(Q8_0, Q5_1, Q5_0, IQ4_NL, Q4_1, Q4_0, F16)")));
  const gguf::File file = gguf::File::Parse(model);
  const QuantizeReport report =
      Quantizer(file, {.type = TensorType::kTQ2_0, .fallback = TensorType::kQ2_0}).Measure({});
  EXPECT_EQ(report.tensors[0].target_type, TensorType::kQ2_0);
  EXPECT_TRUE(report.tensors[0].fallback);
  EXPECT_EQ(report.tensors[1].target_type, TensorType::kTQ2_0);
  EXPECT_FALSE(report.tensors[1].fallback);
}

TEST(Plan, WhatCannotBeDoneIsOneSentence) {
  const std::vector<std::byte> model = FloatModel({{kName, 8, 256}});
  const auto refusal = [&](const QuantizeOptions& options) { return RefusalOf(model, options); };
  EXPECT_THAT(refusal({.type = TensorType::kI2_S, .granularity = Granularity::kRow}),
              HasSubstr("I2_S holds one scale per tensor only, not one per row."));
  EXPECT_THAT(
      refusal({.type = TensorType::kIQ2_BN, .granularity = Granularity::kGroup, .group = 64}),
      HasSubstr("one scale per row or per tensor, not one per group of 64"));
  EXPECT_THAT(
      refusal({.type = TensorType::kTQ2_0, .granularity = Granularity::kGroup, .group = 128}),
      HasSubstr("a multiple of 256 columns, not one per group of 128"));
  EXPECT_THAT(refusal({.type = TensorType::kQ1_0}), HasSubstr("binary"));
  EXPECT_THAT(refusal({.type = TensorType::kTQ2_0, .embeddings = TensorType::kF16}),
              HasSubstr("no token_embd.weight"));
  EXPECT_THAT(refusal({.type = TensorType::kTQ2_0, .head = TensorType::kF16}),
              HasSubstr("its head is the embedding matrix"));
  EXPECT_THAT(refusal({.type = TensorType::kTQ2_0, .rules = {{"blk.9*", std::nullopt}}}),
              HasSubstr("no tensor that matches \"blk.9*\""));
  EXPECT_THAT(RefusalOf(FloatModel({{"a", 2, 256}}), {}), HasSubstr("nothing to convert"));
}

TEST(Write, MetadataIsTrueAndAlignmentKept) {
  const Folder folder;
  for (const auto& [type, expected] :
       {std::pair{TensorType::kTQ2_0, 37}, {TensorType::kI2_S, 40}, {TensorType::kQ2_0_G128, -1}}) {
    const std::vector<std::byte> model = FloatModel({{"a", 1, 3}, {kName, 4, 256}}, 128);
    const gguf::File file = gguf::File::Parse(model);
    Quantizer(file, {.type = type}).WriteFile(folder.File("out.gguf"), {});
    const gguf::File written = gguf::File::Open(folder.File("out.gguf"));
    EXPECT_EQ(written.alignment(), 128u);
    EXPECT_EQ(written.metadata().GetString("general.architecture"), "llama");
    EXPECT_EQ(written.metadata().GetUint("general.quantization_version"), 2u);
    const auto file_type = written.metadata().FindUint("general.file_type");
    EXPECT_EQ(file_type ? static_cast<int>(*file_type) : -1, expected);
    // What no option names is byte for byte the same.
    const auto before = file.TensorBytes(*file.FindTensor("a"));
    const auto after = written.TensorBytes(*written.FindTensor("a"));
    EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin(), after.end()));
  }
}

TEST(Write, StoppedWriteLeavesNothingAndKeepsTheOldFile) {
  const std::vector<std::byte> model =
      FloatModel({{"blk.0.ffn_up.weight", 64, 256}, {kName, 64, 256}});
  const gguf::File file = gguf::File::Parse(model);
  const Folder folder;
  std::ofstream(folder.File("out.gguf")) << "old";
  for (const char* stop_at : {"blk.0.ffn_up.weight", kName}) {
    EXPECT_THROW(Quantizer(file, {.type = TensorType::kTQ2_0})
                     .WriteFile(folder.File("out.gguf"),
                                [&](const QuantizeProgress& progress) {
                                  if (progress.tensor == stop_at) throw QuantizeError("stop");
                                }),
                 QuantizeError);
    EXPECT_EQ(folder.Count(), 1u);
    EXPECT_EQ(fs::file_size(folder.File("out.gguf")), 3u);
  }
}

TEST(Write, WeightsThatAreNotFiniteNameTheTensor) {
  for (const TensorType type : {TensorType::kTQ2_0, TensorType::kQ8_0, TensorType::kQ4_K}) {
    gguf::Writer writer;
    writer.metadata().Set("general.architecture", support::TextValue("llama"));
    std::vector<float> values(512, 1.5F);
    values[300] = std::nanf("");
    std::vector<std::byte> bytes(2048);
    std::memcpy(bytes.data(), values.data(), bytes.size());
    writer.AddTensor(kName, TensorType::kF32, {256, 2}, bytes);
    EXPECT_THAT(RefusalOf(writer.Serialize(), {.type = type}),
                testing::AllOf(HasSubstr(kName), HasSubstr("not a finite number")));
  }
}

TEST(Report, CountsWhatWasWritten) {
  const std::vector<std::byte> model = FloatModel(
      {{"token_embd.weight", 16, 256, TensorType::kF16}, {kName, 8, 256}, {"n", 1, 256}});
  const gguf::File file = gguf::File::Parse(model);
  const QuantizeReport report =
      Quantizer(file, {.type = TensorType::kTQ2_0, .embeddings = TensorType::kQ8_0}).Measure({});
  EXPECT_EQ(report.tensors[0].method, Method::kEncoded);
  EXPECT_LT(report.tensors[0].difference.relative_error(), 0.01);
  EXPECT_EQ(report.tensors[0].target_bytes, 16u * 256 / 32 * 34);
  EXPECT_EQ(report.tensors[2].method, Method::kCopied);
  EXPECT_EQ(report.tensors[2].difference.elements, 0u);
  EXPECT_EQ(report.source_bytes, 16u * 256 * 2 + 8 * 256 * 4 + 1024);
  EXPECT_EQ(report.target_bytes, 16u * 256 / 32 * 34 + 8 * 66 + 1024);
  EXPECT_EQ(report.ternary.elements, 8u * 256);
  EXPECT_NEAR(report.ternary.zero_rate(), 0.31, 0.05);  // P(|x| < 0.4 sigma)
  EXPECT_NEAR(report.ternary.cosine(), 0.9, 0.03);
}

}  // namespace
}  // namespace engine::quantize
