// Copies above the threshold that read or write the Fabric's memory: counted, and watched for rows
// that are read again and again.

#include "tools/intercept/runtime.h"

namespace {

using intercept::arena;
using intercept::counts;
using intercept::detector;
using intercept::detector_busy;
using intercept::Hooked;
using intercept::Inside;
using intercept::Log;
using intercept::next;
using intercept::PlainMove;
using intercept::RowScan;
using intercept::settings;

void NoteCopy(const void* to, const void* from, size_t bytes) {
  const bool read = arena.Contains(from);
  if (!read && !arena.Contains(to)) return;
  ++counts.copies;
  counts.copied_bytes += bytes;
  if (!read || detector_busy.test_and_set(std::memory_order_acquire)) return;
  RowScan scan;
  const bool found = detector->Observe(reinterpret_cast<uintptr_t>(from), bytes, &scan);
  detector_busy.clear(std::memory_order_release);
  if (!found) return;
  ++counts.row_scans;
  const Inside inside;
  Log("tfmbs_intercept: rows of %zu bytes, %zu apart, from %#zx on are read again (%u times by "
      "now): weights?\n",
      scan.row_bytes, scan.stride, static_cast<size_t>(scan.base), scan.times);
}

}  // namespace

EXPORT void* memcpy(void* __restrict to, const void* __restrict from, size_t bytes) {
  if (bytes >= settings.copy_threshold && Hooked()) NoteCopy(to, from, bytes);
  return next.memcpy != nullptr ? next.memcpy(to, from, bytes) : PlainMove(to, from, bytes);
}

EXPORT void* memmove(void* to, const void* from, size_t bytes) {
  if (bytes >= settings.copy_threshold && Hooked()) NoteCopy(to, from, bytes);
  return next.memmove != nullptr ? next.memmove(to, from, bytes) : PlainMove(to, from, bytes);
}
