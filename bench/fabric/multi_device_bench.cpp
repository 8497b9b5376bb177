// Workload: the projections of one layer of the 2B shape (ternary, one scale per tensor) shared by
// 1, 2 and 4 simulated devices, by rows and by columns, for 1 and 16 tokens. The devices share this
// CPU, so wall time shows what sharing costs; the modelled time is that of the busiest device.
//
//   multi_device_bench

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <vector>

#include "bench/fabric/input.h"
#include "bench/fabric/layer_2b.h"
#include "fabric/device.h"

namespace {

using fabric::FabricSplit;

constexpr int kRuns = 15;

struct Times {
  double wall_us = 0;
  double modelled_us = 0;
};

Times TimesOf(fabric::Device& device, const std::vector<fabric::MatrixId>& ids, uint32_t tokens,
              double clock_hz) {
  const bench::Input narrow(tokens, 2560, fabric::ActivationKind::kInt8Token);
  const bench::Input wide(tokens, bench::kWidest2b, fabric::ActivationKind::kInt8Token);
  std::vector<float> y(size_t{tokens} * bench::kWidest2b);
  std::vector<double> walls;
  const uint64_t before = device.Counters().cycles_gated;
  for (int run = 0; run < kRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = 0; i < ids.size(); ++i) {
      const fabric::ProjectionOp op{
          .matrix = ids[i],
          .x = bench::kLayer2b[i].cols == 2560 ? &narrow.view : &wide.view,
          .y = y.data(),
          .y_stride = bench::kLayer2b[i].rows};
      if (fabric::Execute(device, {&op, 1}) != fabric::Status::kOk) return {};
    }
    walls.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::nth_element(walls.begin(), walls.begin() + kRuns / 2, walls.end());
  const auto cycles = static_cast<double>(device.Counters().cycles_gated - before) / kRuns;
  return {.wall_us = walls[kRuns / 2], .modelled_us = cycles / clock_hz * 1e6};
}

}  // namespace

int main() {
  std::printf("%8s %8s %7s %12s %14s\n", "devices", "split", "tokens", "wall us", "modelled us");
  fabric::WorkerTeam team(0);
  for (const uint32_t devices : {1U, 2U, 4U}) {
    for (const FabricSplit split : {FabricSplit::kRows, FabricSplit::kColumns}) {
      fabric::FabricOptions options;
      options.layout = fabric::TernaryLayout::kPanel2Bit;
      options.devices = devices;
      options.split = split;
      const auto device = fabric::CreateDevice(options, team);
      std::vector<fabric::MatrixId> ids(std::size(bench::kLayer2b));
      for (size_t i = 0; i < ids.size(); ++i)
        device->Upload(bench::RandomTernary(bench::kLayer2b[i]), &ids[i]);
      for (const uint32_t tokens : {1U, 16U}) {
        const Times times = TimesOf(*device, ids, tokens, options.geometry.clock_hz);
        std::printf("%8u %8s %7u %12.0f %14.0f\n", devices,
                    split == FabricSplit::kRows ? "rows" : "columns", tokens, times.wall_us,
                    times.modelled_us);
      }
    }
  }
}
