#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "scheduler/sequence.h"

namespace scheduler {

// Who goes first among the sequences of one key: the lower urgency, then who came first; siblings
// by choice. Ids are given in order of arrival and kept through preemption, so the order is total
// and never changes.
struct Rank {
  double urgency = 0;
  uint64_t id = 0;
  auto operator<=>(const Rank&) const = default;
};

// Waiting sequences, shared fairly between keys: the key that has been served least goes first, in
// it the best rank. What a key was served is counted in tokens (Sheng et al. 2024, "Fairness in
// serving large language models"): the prompt's when a sequence starts, generated ones as they
// come. A key that comes back is lifted to the least served key that waits, so that nobody saves up
// service by being away.
//
// Bounds:  one counter per key, for ever; keys are those of the server's configuration.
// Threads: one.
class FairQueue {
 public:
  void Insert(const Sequence& sequence, const Rank& rank);
  void Erase(const Sequence& sequence, const Rank& rank);
  void Charge(const std::string& tenant, double tokens) { tenants_[tenant].served += tokens; }

  bool Contains(const Sequence& sequence, const Rank& rank) const;
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  double served(const std::string& tenant) const;

  // The id of the first in order that `wanted(id)` accepts; 0 when none is.
  template <typename Predicate>
  uint64_t First(const Predicate& wanted) const {
    for (const Tenant* tenant : InOrder()) {
      for (const Rank& rank : tenant->waiting) {
        if (wanted(rank.id)) return rank.id;
      }
    }
    return 0;
  }
  // All ids, the last of each key first.
  std::vector<uint64_t> Backwards() const;

 private:
  struct Tenant {
    double served = 0;
    std::set<Rank> waiting;
  };

  // Keys that wait, least served first.
  std::vector<const Tenant*> InOrder() const;

  std::map<std::string, Tenant> tenants_;
  double left_at_ = 0;  // what the key whose queue became empty last had been served
  size_t size_ = 0;
};

}  // namespace scheduler
