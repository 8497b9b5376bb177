// Property: every index is visited exactly once whatever the team, grain and interleaving, and a
// team that slept wakes up.

#include "fabric/worker_team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <thread>
#include <vector>

#include "fabric/parallel.h"

namespace fabric {
namespace {

TEST(WorkerTeam, ParallelForVisitsEachIndexOnce) {
  for (const int threads : {1, 2, 3, 7}) {
    WorkerTeam team(threads);
    EXPECT_EQ(team.size(), threads);
    for (const size_t count : {0U, 1U, 2U, 63U, 64U, 65U, 1000U, 70001U}) {
      for (const size_t grain : {0U, 1U, 7U, 64U, 100000U}) {
        std::vector<std::atomic<int>> visits(count);
        std::atomic<bool> good{true};
        team.ParallelFor(count, grain, [&](int worker, size_t begin, size_t end) {
          if (worker < 0 || worker >= threads || begin >= end || end > count) good = false;
          if (grain > 1 && end - begin > grain) good = false;
          for (size_t i = begin; i < end; ++i) ++visits[i];
        });
        EXPECT_TRUE(good);
        for (const auto& visit : visits) ASSERT_EQ(visit, 1);
      }
    }
  }
}

TEST(WorkerTeam, RunCallsEachWorkerOnce) {
  WorkerTeam team(4);
  for (int repeat = 0; repeat < 100; ++repeat) {
    std::vector<std::atomic<int>> calls(4);
    team.Run([&](int worker) { ++calls[static_cast<size_t>(worker)]; });
    for (const auto& call : calls) ASSERT_EQ(call, 1);
  }
}

TEST(WorkerTeam, NoTwoPiecesShareAWorkerAtATime) {
  WorkerTeam team(3);
  std::vector<std::atomic<int>> busy(3);
  std::atomic<bool> shared{false};
  for (int repeat = 0; repeat < 50; ++repeat) {
    team.ParallelFor(200, 1, [&](int worker, size_t, size_t) {
      if (busy[static_cast<size_t>(worker)].fetch_add(1) != 0) shared = true;
      busy[static_cast<size_t>(worker)].fetch_sub(1);
    });
  }
  EXPECT_FALSE(shared);
}

TEST(WorkerTeam, CallersOfSeveralThreadsTakeTurns) {
  WorkerTeam team(3);
  std::vector<std::atomic<int>> busy(3);
  std::atomic<bool> shared{false};
  std::atomic<int> visits{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 3; ++caller) {
    callers.emplace_back([&] {
      for (int repeat = 0; repeat < 50; ++repeat) {
        team.ParallelFor(64, 1, [&](int worker, size_t, size_t) {
          if (busy[static_cast<size_t>(worker)].fetch_add(1) != 0) shared = true;
          ++visits;
          busy[static_cast<size_t>(worker)].fetch_sub(1);
        });
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_FALSE(shared);
  EXPECT_EQ(visits, 3 * 50 * 64);
}

// A worker that lost its core in the middle of a piece leaves all its other pieces to the others.
TEST(WorkerTeam, AThrottledWorkerKeepsOnlyThePieceItHolds) {
  for (const int threads : {2, 4}) {
    WorkerTeam team(threads);
    constexpr size_t kPieces = 60;
    std::atomic<size_t> done{0};
    std::atomic<int> throttled{-1};
    std::atomic<bool> gave_up{false};
    team.ParallelFor(kPieces, 1, [&](int worker, size_t, size_t) {
      int nobody = -1;
      if (throttled.compare_exchange_strong(nobody, worker)) {
        const auto give_up = std::chrono::steady_clock::now() + std::chrono::seconds(60);
        while (done < kPieces - 1 && !gave_up) {
          std::this_thread::sleep_for(std::chrono::microseconds(100));
          gave_up = std::chrono::steady_clock::now() > give_up;
        }
      }
      ++done;
    });
    EXPECT_FALSE(gave_up) << "pieces of worker " << throttled << " were left to it";
    EXPECT_EQ(done, kPieces);
  }
}

TEST(WorkerTeam, ResultsOfEarlierTasksAreVisibleToLaterOnes) {
  WorkerTeam team(2);
  std::vector<uint64_t> from(512, 1);
  std::vector<uint64_t> to(512);
  // Every piece reads what the other worker may have written in the round before.
  for (int round = 0; round < 500; ++round) {
    team.ParallelFor(from.size(), 32, [&](int, size_t begin, size_t end) {
      for (size_t i = begin; i < end; ++i) to[i] = from[from.size() - 1 - i] + 1;
    });
    from.swap(to);
  }
  EXPECT_EQ(from, std::vector<uint64_t>(512, 501));
}

TEST(WorkerTeam, WakesAfterSleeping) {
  WorkerTeam team(2);
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    std::atomic<size_t> sum{0};
    team.ParallelFor(100, 1, [&](int, size_t begin, size_t) { sum += begin; });
    EXPECT_EQ(sum, 4950U);
  }
}

TEST(WorkerTeam, AvailableCpusIsPositive) { EXPECT_GE(AvailableCpus(), 1); }

TEST(ParallelFor, VisitsEachIndexOnceAndPassesExceptionsOn) {
  std::vector<std::atomic<int>> visits(1001);
  ParallelFor(visits.size(), 10, [&](size_t begin, size_t end) {
    for (size_t i = begin; i < end; ++i) ++visits[i];
  });
  for (const auto& visit : visits) ASSERT_EQ(visit, 1);
  EXPECT_THROW(ParallelFor(100, 1,
                           [](size_t begin, size_t) {
                             if (begin == 57) throw std::runtime_error("stop");
                           }),
               std::runtime_error);
}

}  // namespace
}  // namespace fabric
