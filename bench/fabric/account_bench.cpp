// Workload: the ternary projections of one token of the 2B shape (30 layers of seven, 521 MB in
// 2-bit panels) on two simulated devices in turn, one with its account and one without. What the
// account costs is the ratio of the two, token by token, so that the machine's moods are in both.
//
//   account_bench [tokens = 200]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "bench/fabric/input.h"
#include "bench/fabric/layer_2b.h"
#include "fabric/device.h"

namespace {

constexpr int kLayers = 30;

// A model's projections on a device of its own.
class Projections {
 public:
  Projections(bool account, fabric::WorkerTeam& team)
      : narrow_(1, 2560, fabric::ActivationKind::kInt8Token),
        wide_(1, bench::kWidest2b, fabric::ActivationKind::kInt8Token),
        y_(bench::kWidest2b) {
    fabric::FabricOptions options;
    options.account = account;
    options.layout = fabric::TernaryLayout::kPanel2Bit;
    device_ = fabric::CreateDevice(options, team);
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const bench::Shape& shape : bench::kLayer2b) {
        device_->Upload(bench::RandomTernary(shape), &ids_.emplace_back());
      }
    }
  }

  // Microseconds of one token.
  double Run() {
    const auto start = std::chrono::steady_clock::now();
    for (size_t i = 0; i < ids_.size(); ++i) {
      const bench::Shape& shape = bench::kLayer2b[i % std::size(bench::kLayer2b)];
      const fabric::ProjectionOp op{.matrix = ids_[i],
                                    .x = shape.cols == 2560 ? &narrow_.view : &wide_.view,
                                    .y = y_.data(),
                                    .y_stride = shape.rows};
      if (fabric::Execute(*device_, {&op, 1}) != fabric::Status::kOk) std::abort();
    }
    return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
        .count();
  }

  uint64_t total_ops() const { return device_->Counters().total_ops; }

 private:
  bench::Input narrow_;
  bench::Input wide_;
  std::vector<float> y_;
  std::unique_ptr<fabric::Device> device_;
  std::vector<fabric::MatrixId> ids_;
};

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace

int main(int argc, char** argv) {
  const int tokens = argc > 1 ? std::atoi(argv[1]) : 200;
  fabric::WorkerTeam team(0);
  Projections with(true, team);
  Projections without(false, team);
  std::vector<double> on;
  std::vector<double> off;
  std::vector<double> ratios;
  for (int token = 0; token < tokens; ++token) {
    // A B B A, so that neither is always the first.
    const bool first = token % 2 == 0;
    const double a = (first ? with : without).Run();
    const double b = (first ? without : with).Run();
    on.push_back(first ? a : b);
    off.push_back(first ? b : a);
    ratios.push_back(on.back() / off.back());
  }
  std::printf(
      "{\"tokens\": %d, \"counted_ops_per_token\": %.0f, \"with_us\": %.0f, "
      "\"without_us\": %.0f, \"median_ratio\": %.4f}\n",
      tokens, static_cast<double>(with.total_ops()) / tokens, Median(on), Median(off),
      Median(ratios));
}
