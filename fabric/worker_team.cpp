#include "fabric/worker_team.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace fabric {
namespace {

// Serial work between two tasks of one step is shorter than this; an idle server is not.
constexpr auto kSpin = std::chrono::microseconds(60);
constexpr int kPausesPerClockRead = 64;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Polls `done` for about kSpin; false when it stayed false.
template <typename Done>
bool SpinUntil(const Done& done) {
  const auto give_up = std::chrono::steady_clock::now() + kSpin;
  while (true) {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (done()) return true;
      Pause();
    }
    if (std::chrono::steady_clock::now() >= give_up) return done();
  }
}

// The pieces of a job that one worker begins with: [next, end). The epoch in the high half keeps a
// thread that slept through jobs from claiming a piece of a later one by accident.
struct Range {
  uint32_t epoch = 0;
  uint32_t next = 0;  // 16 bits
  uint32_t end = 0;   // 16 bits

  static Range FromWord(uint64_t word) {
    return {static_cast<uint32_t>(word >> 32), static_cast<uint32_t>(word >> 16) & 0xFFFF,
            static_cast<uint32_t>(word) & 0xFFFF};
  }
  uint64_t Word() const { return (uint64_t{epoch} << 32) | (uint64_t{next} << 16) | uint64_t{end}; }
  bool empty() const { return next >= end; }
};
constexpr size_t kMaxPieces = 0xFFFF;

struct alignas(64) PieceQueue {
  std::atomic<uint64_t> word{0};

  // Takes the first piece, or the last one; false when there is none.
  bool Take(bool first, uint32_t* piece) {
    uint64_t now = word.load(std::memory_order_relaxed);
    while (true) {
      Range range = Range::FromWord(now);
      if (range.empty()) return false;
      *piece = first ? range.next++ : --range.end;
      if (word.compare_exchange_weak(now, range.Word(), std::memory_order_acquire,
                                     std::memory_order_relaxed)) {
        return true;
      }
    }
  }
};

}  // namespace

// Every worker has a queue of consecutive pieces, so that it streams through memory in order, and
// takes from the far end of the others' when its own is empty.
//
// The caller publishes a job by filling the queues; whoever claims a piece may read the job's
// fields, because the caller cannot leave before that piece is done. Completion counts pieces, not
// workers: a worker whose core was taken away holds nobody up unless it holds a piece.
struct WorkerTeam::Impl {
  explicit Impl(size_t team_size) : size(team_size), queues(new PieceQueue[team_size]) {}

  const size_t size;
  const std::unique_ptr<PieceQueue[]> queues;  // [size]
  alignas(64) std::atomic<uint32_t> pieces_done{0};
  alignas(64) std::atomic<uint32_t> signal{0};
  std::atomic<bool> stopping{false};

  const std::function<void(int, size_t)>* piece_task = nullptr;
  uint32_t job_pieces = 0;
  uint32_t epoch = 0;
  std::mutex caller;  // held for a job: a model that loads measures between the steps of others
  std::vector<std::thread> threads;

  bool HasWork() const {
    for (size_t i = 0; i < size; ++i) {
      if (!Range::FromWord(queues[i].word.load(std::memory_order_relaxed)).empty()) return true;
    }
    return stopping.load(std::memory_order_relaxed);
  }

  bool Claim(size_t worker, uint32_t* piece) {
    if (queues[worker].Take(true, piece)) return true;
    for (size_t i = 1; i < size; ++i) {
      if (queues[(worker + i) % size].Take(false, piece)) return true;
    }
    return false;
  }

  bool RunOnePiece(int worker) {
    uint32_t piece = 0;
    if (!Claim(static_cast<size_t>(worker), &piece)) return false;
    (*piece_task)(worker, piece);
    const uint32_t pieces = job_pieces;
    if (pieces_done.fetch_add(1, std::memory_order_release) + 1 == pieces) {
      pieces_done.notify_one();
    }
    return true;
  }

  void WorkerLoop(int worker) {
    while (!stopping.load(std::memory_order_acquire)) {
      const uint32_t seen = signal.load(std::memory_order_acquire);
      while (RunOnePiece(worker)) {
      }
      if (!SpinUntil([this] { return HasWork(); })) signal.wait(seen, std::memory_order_acquire);
    }
  }

  void Wake() {
    signal.fetch_add(1, std::memory_order_release);
    signal.notify_all();
  }

  // Runs task(worker, piece) for all pieces; the caller is worker 0.
  void RunPieces(uint32_t pieces, const std::function<void(int, size_t)>& task) {
    const std::lock_guard lock(caller);
    piece_task = &task;
    job_pieces = pieces;
    pieces_done.store(0, std::memory_order_relaxed);
    ++epoch;
    for (size_t i = 0; i < size; ++i) {
      const auto begin = static_cast<uint32_t>(size_t{pieces} * i / size);
      const auto end = static_cast<uint32_t>(size_t{pieces} * (i + 1) / size);
      queues[i].word.store(Range{epoch, begin, end}.Word(), std::memory_order_release);
    }
    if (pieces > 1) Wake();
    while (RunOnePiece(0)) {
    }
    const auto all_done = [&] { return pieces_done.load(std::memory_order_acquire) == pieces; };
    if (SpinUntil(all_done)) return;
    while (!all_done()) {
      const uint32_t seen = pieces_done.load(std::memory_order_acquire);
      if (seen != pieces) pieces_done.wait(seen, std::memory_order_acquire);
    }
  }
};

WorkerTeam::WorkerTeam(int threads)
    : impl_(std::make_unique<Impl>(static_cast<size_t>(threads > 0 ? threads : AvailableCpus()))) {
  const auto count = static_cast<int>(impl_->size);
  for (int worker = 1; worker < count; ++worker) {
    impl_->threads.emplace_back([impl = impl_.get(), worker] { impl->WorkerLoop(worker); });
  }
}

WorkerTeam::~WorkerTeam() {
  impl_->stopping.store(true, std::memory_order_release);
  impl_->Wake();
  for (std::thread& thread : impl_->threads) thread.join();
}

int WorkerTeam::size() const { return static_cast<int>(impl_->size); }

void WorkerTeam::Run(const std::function<void(int)>& task) {
  const auto piece = [&task](int, size_t index) { task(static_cast<int>(index)); };
  impl_->RunPieces(static_cast<uint32_t>(size()), std::ref(piece));
}

void WorkerTeam::ParallelFor(size_t count, size_t grain,
                             const std::function<void(int, size_t, size_t)>& task) {
  if (count == 0) return;
  const size_t smallest = (count + kMaxPieces - 1) / kMaxPieces;
  const size_t step = std::max({grain, smallest, size_t{1}});
  const size_t pieces = (count + step - 1) / step;
  if (pieces == 1 || impl_->threads.empty()) {
    for (size_t begin = 0; begin < count; begin += step) {
      task(0, begin, std::min(begin + step, count));
    }
    return;
  }
  const auto piece = [&](int worker, size_t index) {
    task(worker, index * step, std::min((index + 1) * step, count));
  };
  impl_->RunPieces(static_cast<uint32_t>(pieces), std::ref(piece));
}

namespace {

// CPUs that a cpu.max file grants, rounded up; `limit` when it says "max" or is not there.
int LimitFromFile(const std::string& path, int limit) {
  std::ifstream file(path);
  std::string quota;
  int64_t period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return limit;
  int64_t granted = 0;
  if (!(std::istringstream(quota) >> granted) || granted <= 0) return limit;
  return static_cast<int>(std::min<int64_t>(limit, (granted + period - 1) / period));
}

// The smallest limit of this process's cgroup and its ancestors.
int CgroupLimit(int limit) {
  const std::string root = "/sys/fs/cgroup";
  limit = LimitFromFile(root + "/cpu.max", limit);
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with("0::/")) continue;
    std::string group = line.substr(3);
    while (group.size() > 1) {
      limit = LimitFromFile(root + group + "/cpu.max", limit);
      group.resize(std::max<size_t>(group.rfind('/'), 1));
    }
  }
  return limit;
}

}  // namespace

int AvailableCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  if (sched_getaffinity(0, sizeof set, &set) == 0) cpus = CPU_COUNT(&set);
  return std::max(1, CgroupLimit(std::max(1, cpus)));
}

}  // namespace fabric
