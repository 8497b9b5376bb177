#pragma once

#include <cstddef>
#include <cstdint>

namespace intercept {

// A matrix that a program read row by row at least twice.
struct RowScan {
  uintptr_t base = 0;
  size_t stride = 0;  // bytes from one row to the next
  size_t row_bytes = 0;
  uint32_t rows = 0;
  uint32_t times = 0;  // scans so far
};

// Finds matrices that are read again and again, row after row, in a stream of reads: the
// candidates for weights that should stay in a Fabric.
//
// A scan is a run of at least kFewestRows reads of one size whose addresses grow by one stride. It
// is repeated when another one begins at the same address with the same stride and size. Reads of
// several runs may be mixed; kOpenRuns are followed at a time, and kKnownScans remembered, the
// least recently used give way. Not found: rows in another order or of changing sizes, and scans
// that are not repeated.
//
// Threads: one at a time. Nothing here allocates.
class RowScanDetector {
 public:
  static constexpr uint32_t kFewestRows = 8;
  static constexpr size_t kOpenRuns = 16;
  static constexpr size_t kKnownScans = 64;
  static constexpr size_t kLongestStride = size_t{1} << 20;

  // A read of [address, address + bytes). True when it shows that a scan is repeated, once for each
  // time; found: which.
  bool Observe(uintptr_t address, size_t bytes, RowScan* found) noexcept;

 private:
  struct Run {
    uintptr_t base = 0;
    uintptr_t last = 0;
    size_t stride = 0;  // 0: one read so far
    size_t bytes = 0;
    uint32_t rows = 0;  // 0: free
    uint64_t used = 0;
  };
  struct Known {
    RowScan scan;
    uint64_t used = 0;
  };

  Run* Extend(uintptr_t address, size_t bytes) noexcept;
  void Begin(uintptr_t address, size_t bytes) noexcept;
  bool Remember(const Run& run, RowScan* found) noexcept;

  Run runs_[kOpenRuns];
  Known known_[kKnownScans];
  uint64_t clock_ = 0;
};

}  // namespace intercept
