#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "fabric/activations.h"
#include "fabric/aligned_buffer.h"
#include "fabric/device.h"
#include "fabric/worker_team.h"

namespace fabric {

// What a screen knows of its matrix. To measure it the whole matrix is read, so who makes several
// screens of one matrix, or one in every process, keeps it.
struct RowSketch {
  AlignedBuffer<float> reach;        // [rows]
  AlignedBuffer<float> largest_row;  // [1]
  // Of a CoarseScreen.
  AlignedBuffer<uint8_t> panels;  // as TernaryLayout::kPanel2Bit: code = level + 1.5
  AlignedBuffer<float> scales;    // [padded rows]

  // All of it. What is filled with the memory of a sketch of the same kind and shape is that
  // sketch.
  std::array<std::span<std::byte>, 4> Memory();
};

// Approximate projections of all rows of a matrix from a sketch of it, with a bound of their error,
// and exact ones of a few rows: who looks for the largest values of W x reads the whole of those
// rows only that can be among them. fabric/strict_screen.h has a proven bound,
// fabric/coarse_screen.h a smaller sketch and a statistical one.
//
//   |exact - sketch| <= Reach(row) * Norm(token)
//
// Bits:    Refine() gives those of a full projection.
// Memory:  a float per row and tokens * rows floats, and the sketch if it is not part of the
//          matrix.
// Threads: one at a time; spreads over `team`.
class RowScreen {
 public:
  virtual ~RowScreen() = default;
  RowScreen(const RowScreen&) = delete;
  RowScreen& operator=(const RowScreen&) = delete;

  // x: of the kind that the matrix takes, borrowed until the last Refine().
  // REQUIRES: x.tokens <= max_tokens.
  virtual void Sketch(const ActivationView& x) noexcept = 0;
  // Of the last Sketch(): [rows] of one token, and what Reach() is to be multiplied by.
  std::span<const float> Sketched(uint32_t token) const {
    return {sketched_.data() + size_t{token} * padded_rows_, row_sketch_->reach.size()};
  }
  float Norm(uint32_t token) const { return norms_[token]; }
  // [rows]
  std::span<const float> Reach() const { return row_sketch_->reach; }
  // No projection of the matrix is larger than this times Norm(token).
  float LargestRow() const { return row_sketch_->largest_row[0]; }
  // An exact projection farther from its sketch than this share of the bound says that the bound
  // is not to be trusted for this token. Infinite where it is proven.
  float guard() const { return guard_; }

  // Exact projections of these rows for one token of the last Sketch(). out: [rows.size()].
  void Refine(uint32_t token, std::span<const uint32_t> rows, float* out) noexcept;

  uint32_t max_tokens() const { return static_cast<uint32_t>(norms_.size()); }
  virtual size_t sketch_bytes() const = 0;  // read by one Sketch()
  size_t row_bytes() const { return row_bytes_; }
  virtual size_t bytes() const {
    return (sketched_.size() + row_sketch_->reach.size()) * sizeof(float);
  }

 protected:
  // matrix: dense or quantised.
  RowScreen(Matrix matrix, std::shared_ptr<const RowSketch> sketch, WorkerTeam& team,
            uint32_t max_tokens, float guard);

  // lengths: bounds of |w| of the rows.
  static float Largest(std::span<const float> lengths);

  Matrix matrix_;
  std::shared_ptr<const RowSketch> row_sketch_;
  WorkerTeam& team_;
  size_t padded_rows_;
  size_t row_bytes_;
  float guard_;
  ActivationView x_;
  AlignedBuffer<float> sketched_;  // [max_tokens, padded_rows]
  AlignedBuffer<float> norms_;     // [max_tokens]
};

}  // namespace fabric
