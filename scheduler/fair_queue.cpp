#include "scheduler/fair_queue.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace scheduler {

std::vector<const FairQueue::Tenant*> FairQueue::InOrder() const {
  std::vector<const Tenant*> order;
  for (const auto& [name, tenant] : tenants_) {
    if (!tenant.waiting.empty()) order.push_back(&tenant);
  }
  std::sort(order.begin(), order.end(), [](const Tenant* a, const Tenant* b) {
    return std::pair(a->served, *a->waiting.begin()) < std::pair(b->served, *b->waiting.begin());
  });
  return order;
}

void FairQueue::Insert(const Sequence& sequence, const Rank& rank) {
  Tenant& tenant = tenants_[sequence.tenant];
  if (tenant.waiting.empty()) {
    const std::vector<const Tenant*> others = InOrder();
    tenant.served = std::max(tenant.served, others.empty() ? left_at_ : others.front()->served);
  }
  tenant.waiting.insert(rank);
  ++size_;
}

void FairQueue::Erase(const Sequence& sequence, const Rank& rank) {
  Tenant& tenant = tenants_.at(sequence.tenant);
  const size_t erased = tenant.waiting.erase(rank);
  assert(erased == 1);
  size_ -= erased;
  if (tenant.waiting.empty()) left_at_ = tenant.served;
}

bool FairQueue::Contains(const Sequence& sequence, const Rank& rank) const {
  const auto tenant = tenants_.find(sequence.tenant);
  return tenant != tenants_.end() && tenant->second.waiting.contains(rank);
}

double FairQueue::served(const std::string& tenant) const {
  const auto found = tenants_.find(tenant);
  return found == tenants_.end() ? 0 : found->second.served;
}

std::vector<uint64_t> FairQueue::Backwards() const {
  std::vector<uint64_t> ids;
  for (const auto& [name, tenant] : tenants_) {
    for (auto rank = tenant.waiting.rbegin(); rank != tenant.waiting.rend(); ++rank) {
      ids.push_back(rank->id);
    }
  }
  return ids;
}

}  // namespace scheduler
