// Workload: a pruned 4096 x 4096 ternary matrix times one or four int8 vectors, one thread: in
// compressed lines, in bit planes, in the dense 2-bit layout, and as dense F16 and F32. Copies fill
// 80 MiB, so weights come from DRAM as they do in a model. Then the cost of an edit in place, and
// how many key-value pairs a bundle of 10,000 trits holds.
//
//   sparse_bench --benchmark_format=json         TERN_FORCE_ISA=avx2 sparse_bench

#include <benchmark/benchmark.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/fabric/input.h"
#include "fabric/device.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/sparse/hypervector.h"
#include "fabric/sparse/sparse_matrix.h"
#include "fabric/sparse/trit_planes.h"
#include "fabric/vector_ops.h"

namespace {

using fabric::sparse::Hypervector;
using fabric::sparse::SparseMatrix;
using fabric::sparse::TritPlanes;

constexpr uint32_t kSize = 4096;
constexpr size_t kStreamedBytes = size_t{80} << 20;

enum class Form { kLines, kPlanes, kTernary, kF16, kF32 };
constexpr const char* kFormNames[] = {"lines", "planes", "ternary", "f16", "f32"};

TritPlanes RandomPlanes(double density) {
  TritPlanes planes(kSize, kSize);
  std::mt19937 random(1);
  std::bernoulli_distribution nonzero(density);
  for (uint32_t row = 0; row < kSize; ++row) {
    for (uint32_t col = 0; col < kSize; ++col) {
      if (nonzero(random)) planes.Set(row, col, (random() & 1) != 0 ? int8_t{1} : int8_t{-1});
    }
  }
  return planes;
}

fabric::Matrix DenseCopy(Form form, const TritPlanes& planes) {
  std::vector<int8_t> trits(kSize);
  if (form == Form::kTernary) {
    fabric::TernaryMatrix matrix(kSize, kSize, fabric::ScaleKind::kTensor, 0,
                                 fabric::TernaryLayout::kPanel2Bit);
    const float scale = 0.02F;
    for (uint32_t row = 0; row < kSize; ++row) {
      for (uint32_t col = 0; col < kSize; ++col) trits[col] = planes.Get(row, col);
      matrix.SetRow(row, trits, {&scale, 1});
    }
    return matrix;
  }
  // Zeros: the speed of dense kernels does not depend on the values.
  const auto type = form == Form::kF16 ? fabric::DenseType::kF16 : fabric::DenseType::kF32;
  return std::make_shared<const fabric::DenseMatrix>(type, kSize, kSize);
}

void RunDense(benchmark::State& state, Form form, const TritPlanes& planes, bench::Input& input) {
  static fabric::WorkerTeam team(1);
  fabric::FabricOptions options;
  options.account = false;
  const auto device = fabric::CreateDevice(options, team);
  if (form != Form::kTernary) input.view.kind = fabric::ActivationKind::kFloat;
  std::vector<fabric::MatrixId> ids;
  do {
    device->Upload(DenseCopy(form, planes), &ids.emplace_back());
  } while (device->resident_bytes() < kStreamedBytes);
  std::vector<float> y(size_t{input.view.tokens} * kSize);
  size_t next = 0;
  for (auto _ : state) {
    const fabric::ProjectionOp op{
        .matrix = ids[next++ % ids.size()], .x = &input.view, .y = y.data(), .y_stride = kSize};
    if (fabric::Execute(*device, {&op, 1}) != fabric::Status::kOk) state.SkipWithError("status");
  }
  state.counters["bytes"] = static_cast<double>(device->resident_bytes() / ids.size());
}

template <typename Matrix, typename Multiply>
void RunSparse(benchmark::State& state, const TritPlanes& planes, const Multiply& multiply) {
  std::vector<Matrix> copies;
  size_t bytes = 0;
  while (bytes < kStreamedBytes) {
    if constexpr (std::is_same_v<Matrix, SparseMatrix>) {
      copies.emplace_back(planes);
    } else {
      copies.push_back(SparseMatrix(planes).ToPlanes());
    }
    bytes += copies.back().bytes();
  }
  size_t next = 0;
  for (auto _ : state) multiply(copies[next++ % copies.size()]);
  state.counters["bytes"] = static_cast<double>(bytes / copies.size());
}

void Product(benchmark::State& state) {
  const auto form = static_cast<Form>(state.range(0));
  const auto tokens = static_cast<uint32_t>(state.range(2));
  const TritPlanes planes = RandomPlanes(1.0 - static_cast<double>(state.range(1)) / 1000.0);
  const auto& kernels = fabric::kernels::ActiveKernels().sparse;
  bench::Input input(tokens, kSize, fabric::ActivationKind::kInt8Token);
  std::vector<int32_t> sums(size_t{tokens} * kSize);
  if (form == Form::kLines) {
    fabric::AlignedBuffer<int8_t> tables;
    RunSparse<SparseMatrix>(state, planes, [&](const SparseMatrix& matrix) {
      if (tables.empty()) tables = fabric::AlignedBuffer<int8_t>(tokens * matrix.table_bytes());
      for (uint32_t t = 0; t < tokens; ++t) {
        matrix.MakeTable(input.codes.data() + size_t{t} * kSize,
                         tables.data() + t * matrix.table_bytes());
      }
      matrix.Multiply(kernels, 0, matrix.panel_count(), tables.data(), tokens, sums.data(), kSize);
    });
  } else if (form == Form::kPlanes) {
    RunSparse<TritPlanes>(state, planes, [&](const TritPlanes& matrix) {
      fabric::sparse::Multiply(matrix, kernels, 0, kSize, input.codes.data(), kSize, tokens,
                               sums.data(), kSize);
    });
  } else {
    RunDense(state, form, planes, input);
  }
  state.SetLabel(std::string(kFormNames[state.range(0)]) + " " +
                 std::string(fabric::kernels::ActiveKernels().name));
}

void Edit(benchmark::State& state) {
  TritPlanes planes = RandomPlanes(0.05);
  std::mt19937 random(2);
  for (auto _ : state) {
    const auto bits = static_cast<uint32_t>(random());
    planes.Set(bits % kSize, bits / kSize % kSize, static_cast<int8_t>(bits % 3) - 1 > 0 ? 1 : 0);
  }
  if (!planes.Intact()) state.SkipWithError("an edit broke the planes");
}

// The share of pairs whose value is found again among `pairs` known values.
void Capacity(benchmark::State& state) {
  constexpr uint32_t kDimensions = 10000;
  const auto pairs = static_cast<size_t>(state.range(0));
  double found = 0;
  for (auto _ : state) {
    fabric::sparse::ItemMemory values;
    std::vector<Hypervector> bound;
    for (size_t i = 0; i < pairs; ++i) {
      values.Add(Hypervector::Random(kDimensions, 2 * i));
      bound.push_back(Bind(Hypervector::Random(kDimensions, 2 * i + 1), values[i]));
    }
    const Hypervector memory = fabric::sparse::BundleAll(bound);
    for (size_t i = 0; i < pairs; ++i) {
      const Hypervector key = Hypervector::Random(kDimensions, 2 * i + 1);
      found += values.Cleanup(Bind(memory, key)) == i ? 1.0 : 0.0;
    }
  }
  state.counters["found"] = found / static_cast<double>(pairs);
}

BENCHMARK(Product)
    ->ArgNames({"form", "zeros_permille", "tokens"})
    ->ArgsProduct({{0, 1}, {800, 900, 950, 980, 990}, {1, 4}})
    ->ArgsProduct({{2, 3, 4}, {950}, {1, 4}})
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(Edit);
BENCHMARK(Capacity)->Arg(100)->Arg(200)->Arg(300)->Arg(400)->Arg(500)->Iterations(1)->Unit(
    benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
