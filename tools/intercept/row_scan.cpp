#include "tools/intercept/row_scan.h"

#include <algorithm>
#include <iterator>

namespace intercept {
namespace {

template <typename Entry>
Entry* LeastRecentlyUsed(Entry* begin, Entry* end) {
  return std::min_element(begin, end,
                          [](const Entry& a, const Entry& b) { return a.used < b.used; });
}

}  // namespace

bool RowScanDetector::Observe(uintptr_t address, size_t bytes, RowScan* found) noexcept {
  ++clock_;
  if (bytes == 0) return false;
  Run* run = Extend(address, bytes);
  if (run == nullptr) {
    Begin(address, bytes);
    return false;
  }
  return run->rows >= kFewestRows && Remember(*run, found);
}

// A run that the read continues: of the next row, or else of a second one.
RowScanDetector::Run* RowScanDetector::Extend(uintptr_t address, size_t bytes) noexcept {
  Run* best = nullptr;
  for (Run& run : runs_) {
    if (run.rows == 0 || run.bytes != bytes) continue;
    if (run.stride != 0 && run.last + run.stride == address) {
      best = &run;
      break;
    }
    const bool second =
        run.stride == 0 && address >= run.last + bytes && address - run.last <= kLongestStride;
    if (second && (best == nullptr || run.used > best->used)) best = &run;
  }
  if (best == nullptr) return nullptr;
  best->stride = address - best->last;
  best->last = address;
  ++best->rows;
  best->used = clock_;
  return best;
}

void RowScanDetector::Begin(uintptr_t address, size_t bytes) noexcept {
  Run* run = LeastRecentlyUsed(std::begin(runs_), std::end(runs_));
  *run = {.base = address, .last = address, .stride = 0, .bytes = bytes, .rows = 1, .used = clock_};
}

// Counts a scan when it reaches kFewestRows; lengthens it later on.
bool RowScanDetector::Remember(const Run& run, RowScan* found) noexcept {
  for (Known& known : known_) {
    const RowScan& scan = known.scan;
    if (scan.times == 0 || scan.base != run.base || scan.stride != run.stride ||
        scan.row_bytes != run.bytes) {
      continue;
    }
    known.used = clock_;
    known.scan.rows = std::max(known.scan.rows, run.rows);
    if (run.rows != kFewestRows) return false;
    ++known.scan.times;
    *found = known.scan;
    return true;
  }
  if (run.rows != kFewestRows) return false;  // forgotten since
  Known* known = LeastRecentlyUsed(std::begin(known_), std::end(known_));
  *known = {.scan = {.base = run.base,
                     .stride = run.stride,
                     .row_bytes = run.bytes,
                     .rows = run.rows,
                     .times = 1},
            .used = clock_};
  return false;
}

}  // namespace intercept
