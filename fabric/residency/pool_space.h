#pragma once

#include <cstddef>
#include <map>
#include <optional>

namespace fabric::residency {

// Which parts of a pool are free. Neighbours that are free become one, so that a pool from which
// everything was given back has room for anything that fits it at all.
//
// Threads: one at a time. Errors: std::bad_alloc.
class PoolSpace {
 public:
  // Sizes and places are rounded to whole cache lines.
  explicit PoolSpace(size_t bytes);

  // Where so many bytes may lie, the lowest place that has room; nothing when none has.
  std::optional<size_t> Take(size_t bytes);
  // place, bytes: of an earlier Take().
  void Give(size_t place, size_t bytes);

  size_t bytes() const { return bytes_; }
  size_t free_bytes() const { return free_bytes_; }
  // Pieces that the free space is in.
  size_t gaps() const { return gaps_.size(); }

 private:
  size_t bytes_;
  size_t free_bytes_;
  std::map<size_t, size_t> gaps_;  // bytes by place; no two touch
};

}  // namespace fabric::residency
