#include "fabric/machine_limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "fabric/aligned_buffer.h"
#include "fabric/kernels/peak.h"
#include "fabric/seconds_since.h"

namespace fabric {
namespace {

constexpr size_t kReadBytes = size_t{512} << 20;
constexpr size_t kPieceBytes = size_t{1} << 20;
constexpr int kMeasuredRuns = 5;
constexpr double kMinSeconds = 0.01;

kernels::PeakKernels KernelsOf(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAvx512Vbmi:
    case Isa::kAvx512Vnni:
      return kernels::PeakAvx512Vnni();
    case Isa::kAvxVnni:
      return kernels::PeakAvxVnni();
    case Isa::kAvx2:
      return kernels::PeakAvx2();
    case Isa::kNeon:
    case Isa::kScalar:
      break;
  }
#elif defined(__aarch64__)
  if (isa == Isa::kNeon) return kernels::PeakNeon();
#endif
  return kernels::PeakScalar();
}

// Keeps results alive without telling the compiler what they are for.
std::atomic<uint64_t> result_sink{0};

template <typename Work>
double FastestSeconds(const Work& work) {
  double best = 1e30;
  for (int run = 0; run < kMeasuredRuns; ++run) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const double seconds = SecondsSince(start);
    best = std::min(best, seconds);
  }
  return best;
}

double MeasureRead(WorkerTeam& team, const kernels::PeakKernels& kernels) {
  AlignedBuffer<uint8_t> buffer(kReadBytes);
  const auto pieces = [&](const std::function<void(uint8_t*)>& visit) {
    team.ParallelFor(kReadBytes / kPieceBytes, 1, [&](int, size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) visit(buffer.data() + i * kPieceBytes);
    });
  };
  // Zeroed pages may all be one page until they are written.
  pieces([](uint8_t* piece) {
    for (size_t i = 0; i < kPieceBytes; i += 64) piece[i] = static_cast<uint8_t>(i >> 6);
  });
  const double seconds = FastestSeconds([&] {
    pieces([&](uint8_t* piece) {
      result_sink.fetch_xor(kernels.read_bytes(piece, kPieceBytes), std::memory_order_relaxed);
    });
  });
  return static_cast<double>(kReadBytes) / seconds;
}

double MeasureMultiply(WorkerTeam& team, const kernels::PeakKernels& kernels) {
  const auto run = [&](uint64_t rounds) {
    return FastestSeconds([&] {
      team.Run([&](int) {
        result_sink.fetch_xor(kernels.multiply_int8(rounds), std::memory_order_relaxed);
      });
    });
  };
  // Long enough that starting the threads does not count, on fast and slow kernels alike.
  uint64_t rounds = 1 << 12;
  double seconds = run(rounds);
  while (seconds < kMinSeconds) {
    rounds *= 4;
    seconds = run(rounds);
  }
  return static_cast<double>(rounds * kernels.macs_per_round) * team.size() / seconds;
}

}  // namespace

MachineLimits MeasureMachineLimits(WorkerTeam& team, Isa isa) {
  const kernels::PeakKernels kernels = KernelsOf(isa);
  return {.read_bytes_per_second = MeasureRead(team, kernels),
          .int8_macs_per_second = MeasureMultiply(team, kernels),
          .isa = isa};
}

}  // namespace fabric
