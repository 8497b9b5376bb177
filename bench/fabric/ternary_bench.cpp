// Workload: projections of the 2B shape (2560 x 6912 and back) with random trits, one scale per
// tensor and int8 activations per token; and a float head. Reports bytes of weights per second and
// multiply-adds per second, and the share of what this process measured the machine can do at best
// with as many threads (of_dram, of_int8, in percent). Few tokens cycle through more matrices than
// the last-level cache holds, so weights come from DRAM. Attend: attention over each KV type, from
// memory.
//
//   fabric_bench --benchmark_format=json         TERN_FORCE_ISA=avx2 fabric_bench

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/fabric/input.h"
#include "fabric/aligned_buffer.h"
#include "fabric/device.h"
#include "fabric/kernels/kernel_table.h"
#include "fabric/machine_limits.h"
#include "fabric/matrix_store.h"
#include "fabric/vector_ops.h"

namespace {

using fabric::ActivationKind;
using fabric::DenseMatrix;
using fabric::Matrix;
using fabric::TernaryLayout;
using fabric::TernaryMatrix;

constexpr uint32_t kRows = 6912;
constexpr uint32_t kCols = 2560;
constexpr size_t kStreamedBytes = size_t{80} << 20;

fabric::WorkerTeam& Team(int threads) {
  static std::unique_ptr<fabric::WorkerTeam> team;
  if (team == nullptr || team->size() != threads) {
    team = std::make_unique<fabric::WorkerTeam>(threads);
  }
  return *team;
}

TernaryMatrix RandomTernary(TernaryLayout layout, fabric::ScaleKind kind, uint32_t seed) {
  TernaryMatrix matrix(kRows, kCols, kind, 128, layout);
  std::vector<int8_t> trits(kCols);
  const std::vector<float> scales(matrix.scales_per_row(), 0.02F);
  uint32_t state = seed;
  for (uint32_t row = 0; row < kRows; ++row) {
    for (int8_t& trit : trits) {
      state = state * 1664525 + 1013904223;
      trit = static_cast<int8_t>(static_cast<int>((state >> 24) * 3 >> 8) - 1);
    }
    matrix.SetRow(row, trits, scales);
  }
  return matrix;
}

const fabric::MachineLimits& Limits(int threads) {
  static std::map<int, fabric::MachineLimits> measured;
  const auto found = measured.find(threads);
  if (found != measured.end()) return found->second;
  return measured.emplace(threads, fabric::MeasureMachineLimits(Team(threads), fabric::ActiveIsa()))
      .first->second;
}

void Report(benchmark::State& state, int threads, size_t bytes, uint64_t macs) {
  const fabric::MachineLimits& limits = Limits(threads);
  const auto runs = static_cast<double>(state.iterations());
  state.counters["bytes/s"] =
      benchmark::Counter(runs * static_cast<double>(bytes), benchmark::Counter::kIsRate);
  state.counters["mac/s"] =
      benchmark::Counter(runs * static_cast<double>(macs), benchmark::Counter::kIsRate);
  const auto share = [&](double work, double limit) {
    return benchmark::Counter(100.0 * runs * work / limit, benchmark::Counter::kIsRate);
  };
  state.counters["of_dram"] = share(static_cast<double>(bytes), limits.read_bytes_per_second);
  state.counters["of_int8"] = share(static_cast<double>(macs), limits.int8_macs_per_second);
}

// Copies of one matrix until they fill `kStreamedBytes`, one Submit() per copy in turn.
void RunMatrices(benchmark::State& state, int threads, TernaryLayout layout,
                 const bench::Input& input, const std::function<Matrix(uint32_t)>& make,
                 bool streamed, bool account = true) {
  fabric::FabricOptions options;
  options.layout = layout;
  options.account = account;
  const auto device = fabric::CreateDevice(options, Team(threads));
  std::vector<fabric::MatrixId> ids;
  uint32_t rows = 0;
  do {
    Matrix matrix = make(static_cast<uint32_t>(ids.size()));
    rows = fabric::RowsOf(matrix);
    device->Upload(std::move(matrix), &ids.emplace_back());
  } while (streamed && device->resident_bytes() < kStreamedBytes);
  std::vector<float> y(size_t{input.view.tokens} * rows);
  size_t next = 0;
  for (auto _ : state) {
    const fabric::ProjectionOp op{
        .matrix = ids[next++ % ids.size()], .x = &input.view, .y = y.data(), .y_stride = rows};
    if (fabric::Execute(*device, {&op, 1}) != fabric::Status::kOk) state.SkipWithError("status");
  }
  Report(state, threads, device->resident_bytes() / ids.size(),
         uint64_t{rows} * kCols * input.view.tokens);
}

void Ternary(benchmark::State& state) {
  const auto threads = static_cast<int>(state.range(0));
  const auto tokens = static_cast<uint32_t>(state.range(1));
  const auto layout = static_cast<TernaryLayout>(state.range(2));
  const bool blocks = state.range(3) != 0;
  const bench::Input input(tokens, kCols,
                           blocks ? ActivationKind::kInt8Block : ActivationKind::kInt8Token);
  const auto kind = blocks ? fabric::ScaleKind::kGroup : fabric::ScaleKind::kTensor;
  RunMatrices(
      state, threads, layout, input,
      [&](uint32_t seed) { return RandomTernary(layout, kind, seed); }, tokens <= 16,
      state.range(4) != 0);
  state.SetLabel(std::string(fabric::kernels::ActiveKernels().name));
}

void Dense(benchmark::State& state) {
  const auto threads = static_cast<int>(state.range(0));
  const auto tokens = static_cast<uint32_t>(state.range(1));
  const auto type = static_cast<fabric::DenseType>(state.range(2));
  const bench::Input input(tokens, kCols, ActivationKind::kFloat);
  RunMatrices(
      state, threads, {}, input,
      [&](uint32_t) -> Matrix { return std::make_shared<const DenseMatrix>(type, kRows, kCols); },
      tokens <= 4);
  state.SetLabel(std::string(fabric::kernels::ActiveKernels().name));
}

constexpr std::array kKvNames = {"f32", "f16", "q8", "t2"};

// K and V of one position in one head.
struct KvRow {
  fabric::KvElement element;
  size_t codes;
  size_t bytes;
};
KvRow RowOf(fabric::KvElement element, uint32_t dim) {
  const size_t codes = fabric::KvCodeBytes(element, dim);
  return {element, codes, codes + fabric::KvScaleBytes(element)};
}

// Keys or values of `chunks` chunks, each its codes and then its scales, as in a cache: 32 random
// ones over and over.
fabric::AlignedBuffer<std::byte> RandomRows(const KvRow& row, size_t chunks, uint32_t dim) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  fabric::AlignedBuffer<std::byte> bytes(chunks * fabric::kAttentionChunk * row.bytes);
  std::vector<float> x(dim);
  const size_t drawn = std::min<size_t>(chunks, 32) * fabric::kAttentionChunk;
  for (size_t i = 0; i < drawn; ++i) {
    const size_t at = i % fabric::kAttentionChunk;
    std::byte* chunk = bytes.data() + (i - at) * row.bytes;
    void* codes = chunk + at * row.codes;
    auto* scale = reinterpret_cast<uint16_t*>(chunk + fabric::kAttentionChunk * row.codes) + at;
    for (float& value : x) value = normal(random);
    switch (row.element) {
      case fabric::KvElement::kF32:
        std::memcpy(codes, x.data(), row.codes);
        break;
      case fabric::KvElement::kF16:
        fabric::FloatsToHalves(x.data(), dim, static_cast<uint16_t*>(codes));
        break;
      case fabric::KvElement::kQ8:
        *scale = fabric::QuantizeKvQ8(x.data(), dim, static_cast<int8_t*>(codes));
        break;
      case fabric::KvElement::kT2:
        *scale = fabric::QuantizeKvT2(x.data(), dim, static_cast<uint8_t*>(codes));
        break;
    }
  }
  for (size_t i = drawn * row.bytes; i < bytes.size(); ++i) bytes[i] = bytes[i - drawn * row.bytes];
  return bytes;
}

// One query token, `group` heads of 128 that share K and V, over `positions`; K and V come from as
// many places in turn as make up 128 MiB, or from the cache. Bytes are those of K and V.
void Attend(benchmark::State& state) {
  const auto group = static_cast<uint32_t>(state.range(0));
  const auto element = static_cast<fabric::KvElement>(state.range(1));
  const auto positions = static_cast<size_t>(state.range(2));
  const bool from_memory = state.range(3) != 0;
  constexpr uint32_t kDim = 128;
  const KvRow row = RowOf(element, kDim);
  const size_t chunks = positions / fabric::kAttentionChunk;
  const size_t chunk_bytes = fabric::kAttentionChunk * row.bytes;
  const size_t places =
      from_memory ? std::max<size_t>(1, (size_t{64} << 20) / (chunks * chunk_bytes)) : 1;
  // Keys and values of a chunk in turn, as in a cache.
  const auto rows = RandomRows(row, 2 * places * chunks, kDim);
  std::vector<float> queries(size_t{group} * kDim);
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  for (float& value : queries) value = normal(random);
  std::vector<float> max(group);
  std::vector<float> sum(group);
  std::vector<float> accumulator(queries.size());
  size_t place = 0;
  for (auto _ : state) {
    max.assign(group, -1e30F);
    sum.assign(group, 0);
    accumulator.assign(accumulator.size(), 0);
    for (size_t chunk = 0; chunk < chunks; ++chunk) {
      const std::byte* keys = rows.data() + (place * chunks + chunk) * 2 * chunk_bytes;
      const std::byte* values = keys + chunk_bytes;
      const size_t scales = fabric::kAttentionChunk * row.codes;
      const bool last = place + 1 == places && chunk + 1 == chunks;
      fabric::AttendChunk({.element = element,
                           .keys = keys,
                           .values = values,
                           .key_scales = reinterpret_cast<const uint16_t*>(keys + scales),
                           .value_scales = reinterpret_cast<const uint16_t*>(values + scales),
                           .next_keys = last ? nullptr : keys + 2 * chunk_bytes,
                           .next_values = last ? nullptr : values + 2 * chunk_bytes,
                           .count = fabric::kAttentionChunk,
                           .queries = queries.data(),
                           .group = group,
                           .head_dim = kDim,
                           .scale = 0.088F,
                           .max = max.data(),
                           .sum = sum.data(),
                           .accumulator = accumulator.data()});
    }
    place = (place + 1) % places;
    benchmark::DoNotOptimize(accumulator.data());
  }
  Report(state, 1, 2 * chunks * chunk_bytes, uint64_t{2} * group * kDim * positions);
  state.SetLabel(std::string(kKvNames[static_cast<size_t>(element)]) + " " +
                 std::string(fabric::kernels::ActiveKernels().name));
}

void MachineLimits(benchmark::State& state) {
  const fabric::MachineLimits& limits = Limits(static_cast<int>(state.range(0)));
  for (auto _ : state) {
    state.counters["bytes/s"] = limits.read_bytes_per_second;
    state.counters["mac/s"] = limits.int8_macs_per_second;
  }
}

BENCHMARK(MachineLimits)->Arg(1)->Arg(2)->Iterations(1)->Unit(benchmark::kMillisecond);
// One thread is timed by its own CPU time, so that a busy machine disturbs it less.
BENCHMARK(Ternary)
    ->ArgNames({"threads", "tokens", "pt5", "blocks", "account"})
    ->ArgsProduct({{1}, {1, 2, 4, 8, 16, 32, 128}, {0, 1}, {0}, {1}})
    ->ArgsProduct({{1}, {1, 128}, {0}, {1}, {1}})
    ->ArgsProduct({{1}, {1}, {0}, {0}, {0}})
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(Ternary)
    ->ArgNames({"threads", "tokens", "pt5", "blocks", "account"})
    ->ArgsProduct({{2}, {1, 16, 128}, {0, 1}, {0}, {1}})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(Dense)
    ->ArgNames({"threads", "tokens", "type"})
    ->ArgsProduct({{1}, {1, 8}, {0, 1, 2}})
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(Attend)
    ->ArgNames({"group", "element", "positions", "memory"})
    ->ArgsProduct({{1, 4, 32}, {0, 1, 2, 3}, {16}, {0}})
    ->ArgsProduct({{1, 4}, {0, 1, 2, 3}, {2048, 4096}, {1}})
    ->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
