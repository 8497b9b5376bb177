#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/rig.h"

namespace engine::testing {

// A sequence on its way through random steps, in blocks and a state slot of its own.
struct Walker {
  std::vector<TokenId> tokens;
  std::vector<BlockId> blocks;
  uint32_t slot = 0;
  size_t computed = 0;
  LogitRows logits = {};  // of every position since
};

// Gives the logits of row i to walker row_walkers[i]. Both outlive the sink.
class WalkerSink : public LogitsSink {
 public:
  WalkerSink(std::vector<Walker>* walkers, const std::vector<size_t>& row_walkers)
      : walkers_(walkers), row_walkers_(row_walkers) {}
  void OnLogits(size_t row, size_t, std::span<float> logits) override {
    (*walkers_)[row_walkers_[row]].logits.emplace_back(logits.begin(), logits.end());
  }

 private:
  std::vector<Walker>* walkers_;
  const std::vector<size_t>& row_walkers_;
};

// Takes random steps until every walker has computed all its tokens.
void WalkToTheEnd(Engine& engine, std::vector<Walker>& walkers, uint64_t seed);

// Walks `lengths.size()` random sequences through `engine`, some of them in each step and in chunks
// of any size, over blocks and slots in no order, and expects each to have the bits that it has
// alone in `solo`.
void CheckInvariance(Engine& engine, Engine& solo, const std::vector<size_t>& lengths,
                     uint64_t seed);

}  // namespace engine::testing
