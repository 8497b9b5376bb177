// Workload: a pruned 4096 x 4096 ternary matrix times one or four int8 vectors (or as many as
// --benchmark_filter picks), one thread: as its non-zeros, in bit planes, in the dense 2-bit and
// PT-5 layouts, and as dense F16 and F32, all but the planes through a device. Copies fill 80 MiB,
// so weights come from DRAM as they do in a model. Then the cost of an edit in place, and how many
// key-value pairs a bundle of 10,000 trits holds.
//
//   sparse_bench --benchmark_format=json         TERN_FORCE_ISA=avx2 sparse_bench

#include <benchmark/benchmark.h>

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "bench/fabric/input.h"
#include "fabric/device.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/sparse/hypervector.h"
#include "fabric/sparse/trit_planes.h"
#include "fabric/vector_ops.h"

namespace {

using fabric::sparse::Hypervector;
using fabric::sparse::TritPlanes;

constexpr uint32_t kSize = 4096;
constexpr size_t kStreamedBytes = size_t{80} << 20;

enum class Form { kSparse, kPlanes, k2Bit, kPt5, kF16, kF32 };
constexpr const char* kFormNames[] = {"sparse", "planes", "2bit", "pt5", "f16", "f32"};

// [kSize, kSize]; the same until another density is asked for.
const std::vector<int8_t>& RandomTrits(double density) {
  static double last = -1;
  static std::vector<int8_t> trits;
  if (density == last) return trits;
  last = density;
  trits.assign(size_t{kSize} * kSize, 0);
  std::mt19937 random(1);
  std::bernoulli_distribution nonzero(density);
  for (int8_t& trit : trits) {
    if (nonzero(random)) trit = (random() & 1) != 0 ? int8_t{1} : int8_t{-1};
  }
  return trits;
}

TritPlanes PlanesOf(const std::vector<int8_t>& trits) {
  TritPlanes planes(kSize, kSize);
  for (uint32_t row = 0; row < kSize; ++row) {
    for (uint32_t col = 0; col < kSize; ++col) {
      const int8_t trit = trits[size_t{row} * kSize + col];
      if (trit != 0) planes.Set(row, col, trit);
    }
  }
  return planes;
}

fabric::Matrix MatrixOf(Form form, const std::vector<int8_t>& trits) {
  const float scale = 0.02F;
  if (form == Form::kSparse) {
    return fabric::TernaryMatrix::PackSparse(kSize, kSize, fabric::ScaleKind::kTensor, 0,
                                             {&scale, 1}, [&](uint32_t row, std::span<int8_t> out) {
                                               std::copy_n(trits.begin() + size_t{row} * kSize,
                                                           kSize, out.begin());
                                             });
  }
  if (form == Form::k2Bit || form == Form::kPt5) {
    fabric::TernaryMatrix matrix(
        kSize, kSize, fabric::ScaleKind::kTensor, 0,
        form == Form::kPt5 ? fabric::TernaryLayout::kPanelPt5 : fabric::TernaryLayout::kPanel2Bit);
    for (uint32_t row = 0; row < kSize; ++row) {
      matrix.SetRow(row, std::span(trits).subspan(size_t{row} * kSize, kSize), {&scale, 1});
    }
    return matrix;
  }
  // Zeros: the speed of dense kernels does not depend on the values.
  const auto type = form == Form::kF16 ? fabric::DenseType::kF16 : fabric::DenseType::kF32;
  return std::make_shared<const fabric::DenseMatrix>(type, kSize, kSize);
}

// Copies of a matrix on a device.
struct Copies {
  std::unique_ptr<fabric::Device> device;
  std::vector<fabric::MatrixId> ids;
};

// The same until another form or density is asked for.
const Copies& CopiesOf(Form form, double density) {
  static fabric::WorkerTeam team(1);
  static Copies copies;
  static std::pair<Form, double> last = {Form::kPlanes, 0};
  if (last == std::pair(form, density)) return copies;
  last = {form, density};
  fabric::FabricOptions options;
  options.account = false;
  copies = {fabric::CreateDevice(options, team), {}};
  do {
    copies.device->Upload(MatrixOf(form, RandomTrits(density)), &copies.ids.emplace_back());
  } while (copies.device->resident_bytes() < kStreamedBytes);
  return copies;
}

void RunOnDevice(benchmark::State& state, Form form, double density, bench::Input& input) {
  if (form == Form::kF16 || form == Form::kF32) input.view.kind = fabric::ActivationKind::kFloat;
  const auto& [device, ids] = CopiesOf(form, density);
  std::vector<float> y(size_t{input.view.tokens} * kSize);
  size_t next = 0;
  for (auto _ : state) {
    const fabric::ProjectionOp op{
        .matrix = ids[next++ % ids.size()], .x = &input.view, .y = y.data(), .y_stride = kSize};
    if (fabric::Execute(*device, {&op, 1}) != fabric::Status::kOk) state.SkipWithError("status");
  }
  state.counters["bytes"] = static_cast<double>(device->resident_bytes() / ids.size());
}

void RunPlanes(benchmark::State& state, double density, const bench::Input& input) {
  static double last = -1;
  static std::vector<TritPlanes> copies;
  if (last != density) copies.clear();
  last = density;
  size_t bytes = 0;
  for (const TritPlanes& planes : copies) bytes += planes.bytes();
  while (bytes < kStreamedBytes) {
    copies.push_back(PlanesOf(RandomTrits(density)));
    bytes += copies.back().bytes();
  }
  std::vector<int32_t> sums(size_t{input.view.tokens} * kSize);
  size_t next = 0;
  for (auto _ : state) {
    fabric::sparse::Multiply(copies[next++ % copies.size()],
                             fabric::kernels::ActiveKernels().sparse, 0, kSize, input.codes.data(),
                             kSize, input.view.tokens, sums.data(), kSize);
  }
  state.counters["bytes"] = static_cast<double>(bytes / copies.size());
}

void Product(benchmark::State& state) {
  const auto form = static_cast<Form>(state.range(0));
  const auto tokens = static_cast<uint32_t>(state.range(2));
  const double density = 1.0 - static_cast<double>(state.range(1)) / 1000.0;
  bench::Input input(tokens, kSize, fabric::ActivationKind::kInt8Token);
  if (form == Form::kPlanes) {
    RunPlanes(state, density, input);
  } else {
    RunOnDevice(state, form, density, input);
  }
  state.SetLabel(std::string(kFormNames[state.range(0)]) + " " +
                 std::string(fabric::kernels::ActiveKernels().name));
}

void Edit(benchmark::State& state) {
  TritPlanes planes = PlanesOf(RandomTrits(0.05));
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
    ->ArgsProduct({{0, 1}, {800, 900, 950, 990}, {1, 4, 64}})
    ->ArgsProduct({{2, 3, 4, 5}, {950}, {1, 4, 64}})
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(Edit);
BENCHMARK(Capacity)->Arg(100)->Arg(200)->Arg(300)->Arg(400)->Arg(500)->Iterations(1)->Unit(
    benchmark::kMillisecond);

}  // namespace

BENCHMARK_MAIN();
