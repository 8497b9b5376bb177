// Workload: projections of a block-quantised matrix of 32768 x 2560, a quarter of a head of the 2B
// shape, for 1 to 64 tokens. Weights come from DRAM. Each line says GB/s of weights and
// multiply-adds, and what share that is of this machine's limits, measured in the same process with
// the same threads.
//
//   quantized_bench           TERN_FORCE_ISA=avx2 quantized_bench

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "bench/fabric/input.h"
#include "fabric/device.h"
#include "fabric/machine_limits.h"
#include "fabric/vector_ops.h"

namespace {

using fabric::QuantizedMatrix;
using fabric::QuantizedType;

constexpr uint32_t kRows = 32768;
constexpr uint32_t kCols = 2560;
constexpr int kRuns = 15;

std::shared_ptr<const QuantizedMatrix> RandomMatrix(QuantizedType type) {
  auto matrix = std::make_shared<QuantizedMatrix>(type, kRows, kCols);
  const auto& format = matrix->format();
  std::mt19937 random(1);
  std::vector<uint8_t> codes(kCols);
  for (uint8_t& code : codes) {
    code = static_cast<uint8_t>(random() & ((1U << CodeBits(format)) - 1));
  }
  const std::vector<int8_t> sub(format.sub_scales ? kCols / format.sub_block : 0, 3);
  const std::vector<uint16_t> half(kCols / format.super_block, 0x1000);
  for (uint32_t row = 0; row < kRows; ++row) {
    matrix->SetRow(row, {.codes = codes,
                         .sub_scales = sub,
                         .sub_mins = format.mins ? std::span(sub) : std::span<const int8_t>(),
                         .scales = half,
                         .mins = format.mins ? std::span(half) : std::span<const uint16_t>()});
  }
  return matrix;
}

double MedianSeconds(fabric::Device& device, fabric::MatrixId id, const bench::Input& input) {
  std::vector<float> y(size_t{input.view.tokens} * kRows);
  const fabric::ProjectionOp op{.matrix = id, .x = &input.view, .y = y.data(), .y_stride = kRows};
  std::vector<double> seconds;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    if (fabric::Execute(device, {&op, 1}) != fabric::Status::kOk) return 0;
    seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRuns / 2, seconds.end());
  return seconds[kRuns / 2];
}

}  // namespace

int main() {
  std::printf("%-8s %7s %7s %9s %9s %10s %10s %10s\n", "type", "threads", "tokens", "us", "GB/s",
              "of DRAM", "GMAC/s", "of int8");
  for (const int threads : {1, fabric::AvailableCpus()}) {
    fabric::WorkerTeam team(threads);
    const auto limits = fabric::MeasureMachineLimits(team, fabric::ActiveIsa());
    std::printf("%s, %d threads: DRAM %.1f GB/s, int8 %.0f GMAC/s\n",
                std::string(fabric::IsaName(fabric::ActiveIsa())).c_str(), threads,
                limits.read_bytes_per_second / 1e9, limits.int8_macs_per_second / 1e9);
    for (const QuantizedType type :
         {QuantizedType::kQ6_K, QuantizedType::kQ8_0, QuantizedType::kQ4_K, QuantizedType::kQ5_K,
          QuantizedType::kQ4_0, QuantizedType::kQ2_K}) {
      const auto device = fabric::CreateDevice({}, team);
      const auto matrix = RandomMatrix(type);
      const auto bytes = static_cast<double>(matrix->bytes());
      fabric::MatrixId id;
      device->Upload(matrix, &id);
      for (const uint32_t tokens : {1U, 4U, 16U, 64U}) {
        const double seconds = MedianSeconds(
            *device, id, bench::Input(tokens, kCols, fabric::ActivationKind::kInt8Block));
        const double macs = double{kRows} * kCols * tokens;
        std::printf("%-8s %7d %7u %9.0f %9.1f %9.0f%% %10.0f %9.0f%%\n",
                    std::string(fabric::QuantizedTypeName(type)).c_str(), threads, tokens,
                    seconds * 1e6, bytes / seconds / 1e9,
                    100 * bytes / seconds / limits.read_bytes_per_second, macs / seconds / 1e9,
                    100 * macs / seconds / limits.int8_macs_per_second);
      }
    }
  }
}
