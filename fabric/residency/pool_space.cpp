#include "fabric/residency/pool_space.h"

#include <algorithm>
#include <cassert>
#include <iterator>

#include "fabric/aligned_buffer.h"

namespace fabric::residency {
namespace {

size_t InLines(size_t bytes) {
  return (bytes + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
}

}  // namespace

PoolSpace::PoolSpace(size_t bytes)
    : bytes_(bytes / kBufferAlignment * kBufferAlignment), free_bytes_(bytes_) {
  if (bytes_ > 0) gaps_.emplace(0, bytes_);
}

std::optional<size_t> PoolSpace::Take(size_t bytes) {
  const size_t needed = InLines(bytes);
  const auto gap = std::find_if(gaps_.begin(), gaps_.end(),
                                [&](const auto& entry) { return entry.second >= needed; });
  if (gap == gaps_.end()) return std::nullopt;
  const auto [place, size] = *gap;
  if (size > needed) gaps_.emplace_hint(std::next(gap), place + needed, size - needed);
  gaps_.erase(gap);
  free_bytes_ -= needed;
  return place;
}

void PoolSpace::Give(size_t place, size_t bytes) {
  const size_t size = InLines(bytes);
  auto gap = gaps_.emplace(place, size).first;
  free_bytes_ += size;
  assert(free_bytes_ <= bytes_);
  const auto after = std::next(gap);
  if (after != gaps_.end() && gap->first + gap->second == after->first) {
    gap->second += after->second;
    gaps_.erase(after);
  }
  if (gap == gaps_.begin()) return;
  const auto before = std::prev(gap);
  if (before->first + before->second != gap->first) return;
  before->second += gap->second;
  gaps_.erase(gap);
}

}  // namespace fabric::residency
