#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "cli/local_model.h"
#include "fabric/machine_limits.h"

namespace cli {

struct BenchPlan {
  uint32_t prompt = 0;       // tokens per sequence of the pp test; 0 = none
  uint32_t generate = 0;     // tokens per sequence of the tg test; 0 = none
  uint32_t repetitions = 1;  // measured, after one warm-up
  std::vector<uint32_t> batches = {1};
  std::vector<uint32_t> depths = {0};
};

struct BenchResult {
  std::string test;  // "pp256", "tg48"
  uint32_t batch = 0;
  uint32_t depth = 0;
  int threads = 0;
  std::string isa;
  std::string head;   // how the head is computed where that is open: "full", "strict"
  double median = 0;  // tokens per second, all sequences together
  double min = 0;
  double max = 0;
  double bytes_per_token = 0;  // weights and KV that were streamed
  double limit_tokens_per_second = 0;
  bool memory_bound = false;  // which limit that is
  double skip_rate = 0;       // of the device's account, over one run
  double energy_proxy_joules_per_token = 0;
  // Of a bounded pool, over the same run.
  uint64_t pool_bytes = 0;  // 0: without a bound, and without the rest
  double fetched_bytes_per_token = 0;
  double residency_hit_rate = 0;
  double fetch_seconds = 0;
  double fetch_wait_seconds = 0;
};

// Runs greedy steps of a model: no sampler, no scheduler, the head as the engine computes it.
//
// Threads: one. Errors: as LocalModel::PrepareKv() and LocalSequence.
class BenchRunner {
 public:
  BenchRunner(LocalModel& model, BenchPlan plan);

  fabric::MachineLimits MeasureLimits();
  // Depths in ascending order, at each of them every batch.
  void Run(const fabric::MachineLimits& limits,
           const std::function<void(const BenchResult&)>& on_result);

  const std::string& isa() const { return isa_; }

 private:
  struct Cost {
    double seconds = 0;
    uint64_t bytes = 0;
    uint64_t head_positions = 0;
  };

  // One step over some sequences: `count` tokens of each from `position` on.
  void Step(const std::vector<uint32_t>& sequences, uint32_t position, uint32_t count, bool output,
            Cost* cost);
  // Brings `count` tokens of every sequence into the cache, in as few steps as the workspace
  // allows.
  Cost Fill(uint32_t batch, uint32_t position, uint32_t count, bool output);
  Cost Generate(uint32_t batch, uint32_t position, uint32_t count);
  // What the pool did between two readings of the counters.
  void AddResidency(const fabric::DeviceCounters& before, const fabric::DeviceCounters& after,
                    double tokens, BenchResult* result) const;
  BenchResult Measure(const std::string& test, uint32_t batch, uint32_t depth, uint32_t count,
                      const std::function<Cost()>& work, const fabric::MachineLimits& limits);

  LocalModel& model_;
  BenchPlan plan_;
  std::string isa_;
  std::vector<LocalSequence> sequences_;
  std::vector<engine::TokenId> tokens_;  // what every sequence holds
  double layer_macs_ = 0;                // per token, without the head
  double head_macs_ = 0;                 // per output position
};

}  // namespace cli
