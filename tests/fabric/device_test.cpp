// Property: every device computes, with every supported instruction set, the bits that the scalar
// kernels define; the scalar kernels compute W x as exact integers scaled in the documented order;
// and ops that can't run are refused before any of them runs.

#include "fabric/device.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "fabric/kernels/kernel_table.h"
#include "fabric/matrix_store.h"
#include "fabric/sim/sim_device.h"
#include "fabric/vector_ops.h"
#include "tests/fabric/cases.h"

namespace fabric {
namespace {

using kernels::KernelTable;
using testing::Bits;
using testing::Codes;
using testing::Floats;
using testing::Random;
using testing::RandomDense;
using testing::TernaryCase;

// The definition, written apart from the kernels: exact sums in int64, then the documented order.
float NaiveTernary(const TernaryCase& c, const Codes& x, uint32_t row, uint32_t token) {
  const uint32_t cols = c.matrix.cols();
  const int8_t* trits = c.trits.data() + size_t{row} * cols;
  const int8_t* codes = x.codes.data() + token * x.view.code_stride;
  const auto sum = [&](uint32_t begin, uint32_t end) {
    int64_t total = 0;
    for (uint32_t col = begin; col < std::min(end, cols); ++col) total += trits[col] * codes[col];
    return static_cast<float>(total);
  };
  if (x.view.kind == ActivationKind::kInt8Block) {
    float v = 0;
    for (uint32_t begin = 0; begin < cols; begin += kActivationBlock) {
      const float d = x.scales[token * x.view.scale_stride + begin / kActivationBlock];
      v = std::fma(sum(begin, begin + kActivationBlock), c.matrix.ScaleAt(row, begin) * d, v);
    }
    return v;
  }
  if (c.matrix.scale_kind() != ScaleKind::kGroup) {
    return sum(0, cols) * (c.matrix.ScaleAt(row, 0) / x.scales[token]);
  }
  float v = 0;
  for (uint32_t begin = 0; begin < cols; begin += c.matrix.group()) {
    v = std::fma(sum(begin, begin + c.matrix.group()),
                 c.matrix.ScaleAt(row, begin) / x.scales[token], v);
  }
  return v;
}

FabricOptions OptionsWith(TernaryLayout layout) {
  FabricOptions options;
  options.layout = layout;
  return options;
}

std::vector<float> Project(const KernelTable& table, WorkerTeam* team, Matrix matrix,
                           TernaryLayout layout, const ActivationView& x) {
  const uint32_t rows = RowsOf(matrix);
  sim::SimDevice device("test", OptionsWith(layout), table, team);
  MatrixId id;
  EXPECT_EQ(device.Upload(std::move(matrix), &id), Status::kOk);
  std::vector<float> y(size_t{x.tokens} * rows, -7.0F);
  const ProjectionOp op{.matrix = id, .x = &x, .y = y.data(), .y_stride = rows};
  EXPECT_EQ(Execute(device, {&op, 1}), Status::kOk);
  return y;
}

TEST(TernaryKernels, ScalarEqualsExactSumsInTheDocumentedOrder) {
  Random random(1);
  for (const TernaryLayout layout : testing::kEveryLayout) {
    for (const ScaleKind kind : {ScaleKind::kTensor, ScaleKind::kRow, ScaleKind::kGroup}) {
      for (const ActivationKind x_kind : {ActivationKind::kInt8Token, ActivationKind::kInt8Block}) {
        for (int repeat = 0; repeat < 6; ++repeat) {
          const uint32_t rows = 1 + random() % 70;
          const uint32_t cols = 1 + random() % 400;
          const uint32_t group = 32 * (1 + random() % 4);
          const TernaryCase c = TernaryCase::Make(rows, cols, kind, group, layout, random());
          const Codes x = Codes::Make(x_kind, 1 + random() % 5, cols, random());
          std::vector<float> expected;
          for (uint32_t token = 0; token < x.view.tokens; ++token) {
            for (uint32_t row = 0; row < rows; ++row) {
              expected.push_back(NaiveTernary(c, x, row, token));
            }
          }
          const auto y = Project(kernels::SupportedKernels().back(), nullptr,
                                 CopyTernary(c.matrix, layout), layout, x.view);
          ASSERT_EQ(Bits(y), Bits(expected)) << rows << " x " << cols;
        }
      }
    }
  }
}

struct Shape {
  uint32_t rows;
  uint32_t cols;
  uint32_t tokens;
};

TEST(TernaryKernels, EverySupportedIsaMatchesScalar) {
  WorkerTeam team(2);
  Random random(2);
  const std::vector<Shape> shapes = {
      {1, 1, 1},     {16, 16, 1},   {17, 33, 2},   {33, 63, 3},    {31, 64, 4},    {64, 65, 5},
      {100, 319, 7}, {48, 320, 8},  {65, 321, 11}, {32, 640, 12},  {47, 1000, 13}, {130, 257, 24},
      {16, 560, 65}, {72, 2560, 1}, {40, 6912, 2}, {48, 1099, 25}, {9, 131071, 1}};
  for (const Shape& shape : shapes) {
    for (const TernaryLayout layout : testing::kEveryLayout) {
      for (const ScaleKind kind : {ScaleKind::kTensor, ScaleKind::kRow, ScaleKind::kGroup}) {
        for (const ActivationKind x_kind :
             {ActivationKind::kInt8Token, ActivationKind::kInt8Block}) {
          const uint32_t group = 32 * (1 + random() % 5);
          const uint32_t seed = random();
          const Codes x = Codes::Make(x_kind, shape.tokens, shape.cols, random());
          const auto matrix = [&] {
            return TernaryCase::Make(shape.rows, shape.cols, kind, group, layout, seed).matrix;
          };
          const std::span<const KernelTable> tables = kernels::SupportedKernels();
          const auto expected = Bits(Project(tables.back(), nullptr, matrix(), layout, x.view));
          for (const KernelTable& table : tables.first(tables.size() - 1)) {
            ASSERT_EQ(Bits(Project(table, &team, matrix(), layout, x.view)), expected)
                << table.name << ' ' << shape.rows << " x " << shape.cols << " tokens "
                << shape.tokens << " layout " << static_cast<int>(layout) << " scales "
                << static_cast<int>(kind) << " activations " << static_cast<int>(x_kind);
          }
        }
      }
    }
  }
}

TEST(TernaryKernels, EveryLayoutGivesTheSameBitsOverAMillionTrits) {
  WorkerTeam team(2);
  for (const ActivationKind kind : {ActivationKind::kInt8Token, ActivationKind::kInt8Block}) {
    const Codes x = Codes::Make(kind, 3, 1024, 5);
    const auto bits = [&](const KernelTable& table, TernaryLayout layout) {
      return Bits(Project(table, &team,
                          TernaryCase::Make(1024, 1024, ScaleKind::kRow, 0, layout, 6).matrix,
                          layout, x.view));
    };
    for (const KernelTable& table : kernels::SupportedKernels()) {
      const auto expected = bits(table, TernaryLayout::kPanel2Bit);
      EXPECT_EQ(bits(table, TernaryLayout::kPanelPt5), expected) << table.name;
      EXPECT_EQ(bits(table, TernaryLayout::kSparse), expected) << table.name;
    }
  }
}

// Inputs that some ops of a Submit() share and others do not, sparse matrices beside dense ones.
TEST(Device, SparseAndDenseMatricesShareASubmission) {
  WorkerTeam team(2);
  const Codes a = Codes::Make(ActivationKind::kInt8Token, 9, 300, 1);
  const Codes b = Codes::Make(ActivationKind::kInt8Token, 2, 300, 2);
  const Codes blocks = Codes::Make(ActivationKind::kInt8Block, 5, 300, 3);
  const auto run = [&](TernaryLayout first, TernaryLayout others) {
    const auto device = CreateDevice({}, team);
    std::vector<MatrixId> ids(3);
    for (uint32_t i = 0; i < 3; ++i) {
      TernaryCase c =
          TernaryCase::Make(90, 300, ScaleKind::kRow, 0, i == 0 ? first : others, 20 + i);
      EXPECT_EQ(device->Upload(std::move(c.matrix), &ids[i]), Status::kOk);
    }
    std::vector<float> y(5 * 9 * 90);
    const auto op = [&](size_t place, size_t matrix, const Codes& x, Epilogue epilogue) {
      return ProjectionOp{.matrix = ids[matrix],
                          .x = &x.view,
                          .y = y.data() + place * 9 * 90,
                          .y_stride = 90,
                          .epilogue = epilogue};
    };
    const ProjectionOp ops[] = {op(0, 0, a, Epilogue::kStore), op(0, 1, a, Epilogue::kSiluMul),
                                op(1, 2, b, Epilogue::kStore), op(2, 1, a, Epilogue::kAdd),
                                op(3, 0, b, Epilogue::kStore), op(4, 2, blocks, Epilogue::kStore)};
    EXPECT_EQ(Execute(*device, ops), Status::kOk);
    return Bits(y);
  };
  const auto expected = run(TernaryLayout::kPanel2Bit, TernaryLayout::kPanel2Bit);
  EXPECT_EQ(run(TernaryLayout::kSparse, TernaryLayout::kSparse), expected);
  EXPECT_EQ(run(TernaryLayout::kSparse, TernaryLayout::kPanelPt5), expected);
  EXPECT_EQ(run(TernaryLayout::kPanel2Bit, TernaryLayout::kSparse), expected);
}

TEST(TernaryKernels, ATokensBitsDoNotDependOnItsBatch) {
  WorkerTeam team(2);
  const Codes x = Codes::Make(ActivationKind::kInt8Block, 30, 700, 8);
  const auto matrix = [] {
    return TernaryCase::Make(90, 700, ScaleKind::kGroup, 64, TernaryLayout::kPanel2Bit, 9).matrix;
  };
  const KernelTable& table = kernels::SupportedKernels().front();
  const auto all = Project(table, &team, matrix(), TernaryLayout::kPanel2Bit, x.view);
  for (uint32_t token = 0; token < 30; ++token) {
    ActivationView one = x.view;
    one.tokens = 1;
    one.codes += token * x.view.code_stride;
    one.scales += token * x.view.scale_stride;
    one.sums += token * x.view.scale_stride;
    const auto alone = Project(table, &team, matrix(), TernaryLayout::kPanel2Bit, one);
    const std::vector<float> row(all.begin() + token * 90, all.begin() + (token + 1) * 90);
    ASSERT_EQ(Bits(alone), Bits(row));
  }
}

TEST(DenseKernels, EverySupportedIsaMatchesScalarAndANaiveSum) {
  WorkerTeam team(2);
  const std::vector<Shape> shapes = {{1, 1, 1},    {3, 17, 2},    {5, 31, 3},    {70, 96, 4},
                                     {33, 160, 5}, {129, 250, 9}, {64, 1024, 1}, {9, 32, 65}};
  for (const DenseType type : {DenseType::kF32, DenseType::kF16, DenseType::kBF16}) {
    for (const Shape& shape : shapes) {
      const auto matrix = RandomDense(type, shape.rows, shape.cols, shape.rows);
      const Floats x = Floats::Make(shape.tokens, shape.cols, shape.cols);
      const std::span<const KernelTable> tables = kernels::SupportedKernels();
      const auto expected = Project(tables.back(), nullptr, matrix, {}, x.view);
      std::vector<float> row(shape.cols);
      for (uint32_t r = 0; r < shape.rows; ++r) {
        matrix->GetRow(r, row);
        double exact = 0;
        double magnitude = 0;
        for (uint32_t c = 0; c < shape.cols; ++c) {
          exact += double{row[c]} * x.values[c];
          magnitude += std::fabs(double{row[c]} * x.values[c]);
        }
        ASSERT_NEAR(expected[r], exact, 1e-6 * magnitude + 1e-30);
      }
      for (const KernelTable& table : tables.first(tables.size() - 1)) {
        ASSERT_EQ(Bits(Project(table, &team, matrix, {}, x.view)), Bits(expected))
            << table.name << ' ' << shape.rows << " x " << shape.cols << " tokens " << shape.tokens
            << " type " << static_cast<int>(type);
      }
    }
  }
}

// One device with a ternary [rows, cols] matrix.
struct Bench {
  explicit Bench(uint32_t rows = 40, uint32_t cols = 96) : device(CreateDevice({}, team)) {
    TernaryCase c =
        TernaryCase::Make(rows, cols, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit, 1);
    EXPECT_EQ(device->Upload(std::move(c.matrix), &id), Status::kOk);
    x = Codes::Make(ActivationKind::kInt8Token, 2, cols, 2);
    y.assign(size_t{2} * rows, 1.5F);
    op = {.matrix = id, .x = &x.view, .y = y.data(), .y_stride = rows};
  }
  Status Run(const ProjectionOp& changed) { return Execute(*device, {&changed, 1}); }

  WorkerTeam team{2};
  std::unique_ptr<Device> device;
  MatrixId id;
  Codes x;
  std::vector<float> y;
  ProjectionOp op;
};

TEST(Device, PrefersTheLayoutItWasAskedForOrHasMeasured) {
  WorkerTeam team(2);
  for (const TernaryLayout layout : {TernaryLayout::kPanel2Bit, TernaryLayout::kPanelPt5}) {
    const auto device = CreateDevice(OptionsWith(layout), team);
    EXPECT_EQ(device->PreferredLayout(ActivationKind::kInt8Token).layout, layout);
  }
  const auto device = CreateDevice({}, team);
  const LayoutChoice token = device->PreferredLayout(ActivationKind::kInt8Token);
  EXPECT_FALSE(token.reason.empty());
  // Measured once: asking again cannot give another answer.
  EXPECT_EQ(device->PreferredLayout(ActivationKind::kInt8Token).reason, token.reason);
}

// Never what costs speed: with many non-zeros, other sums or other kernels the answer is dense.
TEST(Device, PrefersSparseWhereItIsToldToOrHasMeasuredItToBeFaster) {
  WorkerTeam team(2);
  const auto layout_of = [&](SparseChoice sparse, const TernaryUse& use) {
    FabricOptions options = OptionsWith(TernaryLayout::kPanel2Bit);
    options.sparse = sparse;
    return CreateDevice(options, team)->PreferredLayout(use).layout;
  };
  const TernaryUse empty(ActivationKind::kInt8Token, ScaleKind::kRow, 0.0);
  const TernaryUse full(ActivationKind::kInt8Token, ScaleKind::kRow, 1.0);
  const TernaryUse blocks(ActivationKind::kInt8Block, ScaleKind::kRow, 0.0);
  const TernaryUse groups(ActivationKind::kInt8Token, ScaleKind::kGroup, 0.0);
  for (const TernaryUse& use : {empty, full, blocks, groups}) {
    EXPECT_EQ(layout_of(SparseChoice::kAlways, use), TernaryLayout::kSparse);
    EXPECT_EQ(layout_of(SparseChoice::kNever, use), TernaryLayout::kPanel2Bit);
  }
  EXPECT_EQ(layout_of(SparseChoice::kAuto, full), TernaryLayout::kPanel2Bit);
  EXPECT_EQ(layout_of(SparseChoice::kAuto, blocks), TernaryLayout::kPanel2Bit);
  EXPECT_EQ(layout_of(SparseChoice::kAuto, groups), TernaryLayout::kPanel2Bit);

  const auto device = CreateDevice({}, team);
  const LayoutChoice few = device->PreferredLayout({ActivationKind::kInt8Token, {}, 0.01});
  const LayoutChoice none = device->PreferredLayout(empty);
  EXPECT_EQ(few.reason, none.reason);  // measured once
  const bool scalar = ActiveIsa() == Isa::kScalar;
  EXPECT_EQ(none.reason.find("non-zeros alone") == std::string::npos, scalar) << none.reason;
  if (few.layout == TernaryLayout::kSparse) {
    EXPECT_EQ(none.layout, TernaryLayout::kSparse);
  }
}

// With no layout asked for a device keeps the one that a matrix comes in.
TEST(Device, KeepsTheLayoutOfAMatrixUnlessAnotherIsAskedFor) {
  WorkerTeam team(2);
  const auto bytes_of = [&](const FabricOptions& options, TernaryLayout layout) {
    const auto device = CreateDevice(options, team);
    MatrixId id;
    TernaryCase c = TernaryCase::Make(64, 1280, ScaleKind::kTensor, 0, layout, 1);
    EXPECT_EQ(device->Upload(std::move(c.matrix), &id), Status::kOk);
    return device->resident_bytes();
  };
  const size_t two_bit = bytes_of({}, TernaryLayout::kPanel2Bit);
  const size_t pt5 = bytes_of({}, TernaryLayout::kPanelPt5);
  EXPECT_GT(two_bit, pt5);
  EXPECT_EQ(bytes_of(OptionsWith(TernaryLayout::kPanelPt5), TernaryLayout::kPanel2Bit), pt5);
}

TEST(Device, StaleHandlesAreRefusedForEver) {
  Bench b;
  EXPECT_EQ(b.Run(b.op), Status::kOk);
  EXPECT_EQ(b.device->Free(b.id), Status::kOk);
  EXPECT_EQ(b.device->resident_bytes(), 0U);
  EXPECT_EQ(b.Run(b.op), Status::kErrStale);
  EXPECT_EQ(b.device->Free(b.id), Status::kErrStale);
  MatrixId next;
  TernaryCase c = TernaryCase::Make(40, 96, ScaleKind::kTensor, 0, TernaryLayout::kPanel2Bit, 1);
  ASSERT_EQ(b.device->Upload(std::move(c.matrix), &next), Status::kOk);
  EXPECT_EQ(next.index, b.id.index);
  EXPECT_NE(next.generation, b.id.generation);
  EXPECT_EQ(b.Run(b.op), Status::kErrStale);
  b.op.matrix = next;
  EXPECT_EQ(b.Run(b.op), Status::kOk);
  b.op.matrix = {99, 1};
  EXPECT_EQ(b.Run(b.op), Status::kErrStale);
  EXPECT_EQ(b.Run({}), Status::kErrStale);
}

TEST(Device, WrongOpsAreRefusedBeforeAnyRuns) {
  Bench b;
  const auto expect = [&](Status status, auto change) {
    ProjectionOp bad = b.op;
    ActivationView view = b.x.view;
    bad.x = &view;
    change(&bad, &view);
    const std::vector<float> before = b.y;
    const ProjectionOp both[] = {b.op, bad};
    Ticket ticket = 0;
    EXPECT_EQ(b.device->Submit(both, &ticket), status);
    EXPECT_EQ(b.y, before);
  };
  expect(Status::kErrAddr, [](ProjectionOp* op, ActivationView*) { op->x = nullptr; });
  expect(Status::kErrAddr, [](ProjectionOp* op, ActivationView*) { op->y = nullptr; });
  expect(Status::kErrAddr, [](ProjectionOp* op, ActivationView*) { op->y_stride = 39; });
  expect(Status::kErrAddr, [](ProjectionOp*, ActivationView* x) { x->cols = 95; });
  expect(Status::kErrAddr, [](ProjectionOp*, ActivationView* x) { x->codes = nullptr; });
  expect(Status::kErrAddr, [](ProjectionOp*, ActivationView* x) { x->scales = nullptr; });
  expect(Status::kErrAddr, [](ProjectionOp*, ActivationView* x) { x->sums = nullptr; });
  expect(Status::kErrAddr, [](ProjectionOp*, ActivationView* x) { x->code_stride = 96; });
  expect(Status::kErrUnsupported,
         [](ProjectionOp*, ActivationView* x) { x->kind = ActivationKind::kFloat; });
  expect(Status::kErrPack, [](ProjectionOp* op, ActivationView*) {
    op->epilogue = Epilogue::kSiluMul;
    op->y += 1;
  });
  expect(Status::kErrStale, [](ProjectionOp* op, ActivationView*) { op->matrix.generation = 7; });
  ProjectionOp first = b.op;
  first.epilogue = Epilogue::kReluSquaredMul;
  EXPECT_EQ(b.Run(first), Status::kErrPack);
  EXPECT_EQ(b.device->Submit({&b.op, 1}, nullptr), Status::kErrAddr);
  EXPECT_EQ(b.device->Wait(1), Status::kErrAddr);
  EXPECT_EQ(b.device->Counters().TotalFaults(), 13U);
  EXPECT_EQ(b.device->Counters().projections, 0U);
}

TEST(Device, FusedEpiloguesEqualTheOpsApart) {
  WorkerTeam team(2);
  for (const Epilogue epilogue :
       {Epilogue::kAdd, Epilogue::kReluSquaredMul, Epilogue::kSiluMul, Epilogue::kGeluMul}) {
    const auto device = CreateDevice({}, team);
    MatrixId gate;
    MatrixId up;
    const auto matrix = [](uint32_t seed) {
      return TernaryCase::Make(203, 320, ScaleKind::kRow, 0, TernaryLayout::kPanel2Bit, seed)
          .matrix;
    };
    ASSERT_EQ(device->Upload(matrix(1), &gate), Status::kOk);
    ASSERT_EQ(device->Upload(matrix(2), &up), Status::kOk);
    const Codes x = Codes::Make(ActivationKind::kInt8Token, 70, 320, 4);
    std::vector<float> bias(203);
    for (size_t i = 0; i < bias.size(); ++i) bias[i] = 0.25F * static_cast<float>(i) - 20;
    std::vector<float> fused(size_t{70} * 203);
    std::vector<float> apart = fused;
    std::vector<float> other = fused;
    const ProjectionOp together[] = {
        {.matrix = gate, .x = &x.view, .y = fused.data(), .y_stride = 203, .bias = bias.data()},
        {.matrix = up, .x = &x.view, .y = fused.data(), .y_stride = 203, .epilogue = epilogue}};
    ASSERT_EQ(Execute(*device, together), Status::kOk);
    const ProjectionOp separate[] = {
        {.matrix = gate, .x = &x.view, .y = apart.data(), .y_stride = 203, .bias = bias.data()},
        {.matrix = up, .x = &x.view, .y = other.data(), .y_stride = 203}};
    ASSERT_EQ(Execute(*device, separate), Status::kOk);
    if (epilogue == Epilogue::kAdd) AddTo(other.data(), other.size(), apart.data());
    if (epilogue == Epilogue::kSiluMul) SiluMul(other.data(), other.size(), apart.data());
    if (epilogue == Epilogue::kGeluMul) GeluMul(other.data(), other.size(), apart.data());
    if (epilogue == Epilogue::kReluSquaredMul) {
      ReluSquaredMul(other.data(), other.size(), apart.data());
    }
    EXPECT_EQ(Bits(fused), Bits(apart));
  }
}

TEST(Device, AnOpSeesWhatAnEarlierOneOfTheSameSubmitWrote) {
  WorkerTeam team(2);
  const auto device = CreateDevice({}, team);
  MatrixId first;
  MatrixId second;
  const auto a = RandomDense(DenseType::kF32, 700, 600, 1);
  const auto b = RandomDense(DenseType::kF16, 300, 700, 2);
  ASSERT_EQ(device->Upload(std::shared_ptr<const DenseMatrix>(a), &first), Status::kOk);
  ASSERT_EQ(device->Upload(std::shared_ptr<const DenseMatrix>(b), &second), Status::kOk);
  const Floats x = Floats::Make(3, 600, 5);
  std::vector<float> middle(size_t{3} * 700);
  std::vector<float> y(size_t{3} * 300);
  const ActivationView middle_view{
      .tokens = 3, .cols = 700, .values = middle.data(), .value_stride = 700};
  const ProjectionOp ops[] = {
      {.matrix = first, .x = &x.view, .y = middle.data(), .y_stride = 700},
      {.matrix = second, .x = &middle_view, .y = y.data(), .y_stride = 300}};
  ASSERT_EQ(Execute(*device, ops), Status::kOk);
  const KernelTable& scalar = kernels::SupportedKernels().back();
  const Matrix first_matrix = std::shared_ptr<const DenseMatrix>(a);
  const auto expected_middle =
      Project(scalar, nullptr, std::shared_ptr<const DenseMatrix>(a), {}, x.view);
  EXPECT_EQ(Bits(middle), Bits(expected_middle));
  EXPECT_EQ(Bits(y),
            Bits(Project(scalar, nullptr, std::shared_ptr<const DenseMatrix>(b), {}, middle_view)));
}

TEST(Device, UnknownNamesAreRefusedWithTheKnownOnes) {
  WorkerTeam team(1);
  FabricOptions options;
  options.device = "abacus";
  try {
    CreateDevice(options, team);
    FAIL() << "accepted";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("sim"), std::string::npos);
  }
}

}  // namespace
}  // namespace fabric
