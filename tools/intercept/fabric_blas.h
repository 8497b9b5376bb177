#pragma once

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "tfmbs_host.h"

namespace intercept {

// W[r][c] = base[r * row_stride + c * col_stride].
struct MatrixView {
  const float* base = nullptr;
  uint32_t rows = 0;
  uint32_t cols = 0;
  size_t row_stride = 0;
  size_t col_stride = 0;

  friend bool operator==(const MatrixView&, const MatrixView&) = default;
};

// Float matrices as sums of ternary planes with a scale per row and plane, and products with them
// on a Fabric.
//
// Planes: the balanced base-3 digits of each row's weights, rounded to levels of which the largest
//         weight is the largest. Rows whose non-zeros have one magnitude are exact with one plane.
// Input:  a vector is the sum of two int8 vectors, the second one what the first has lost, so that
//         its error is 254 times smaller than of one.
// Bound:  |y - W x| of row r <= residual_r max|x| + weight_r max|x2| / 254
//                               + 2^-23 (cols + 64) weight_r max|x|,
//         residual_r and weight_r the sums of |W - planes| and |planes|, x2 what the second vector
//         stands for; the last term is for rounding here and in the sum that it is compared with.
// Threads: any.
class FabricBlas {
 public:
  struct Options {
    uint32_t planes = 8;      // at most so many
    double max_error = 0.02;  // of ||W - planes|| / ||W||: a matrix that misses it stays away
    uint32_t uses = 2;        // products with an unregistered matrix before it goes to the Fabric
    const char* device = nullptr;
  };
  enum class Outcome : uint8_t { kDone, kTooEarly, kTooFar, kNoFabric };

  explicit FabricBlas(const Options& options) : options_(options) {}
  FabricBlas(const FabricBlas&) = delete;
  FabricBlas& operator=(const FabricBlas&) = delete;

  bool Register(const MatrixView& matrix);
  bool Unregister(const float* base);
  bool IsKnown(const float* base);

  // y[batch, rows] = x[batch, cols] W^T. bounds: of each y. Unless the matrix is registered its
  // values are read, to see whether they are those that were ternarised. kTooEarly: it has not been
  // used often enough; kTooFar: not near enough with so many planes.
  Outcome Multiply(const MatrixView& matrix, const float* x, uint32_t batch, std::vector<float>* y,
                   std::vector<float>* bounds);

  uint64_t ternarised();

 private:
  struct Entry {
    MatrixView matrix;
    uint64_t hash = 0;
    uint32_t uses = 0;
    bool registered = false;
    bool too_far = false;
    tfmbs_frame frame = 0;
    std::vector<float> weight = {};    // [rows]
    std::vector<float> residual = {};  // [rows]
    uint64_t used = 0;
  };

  bool Start();
  Entry* Find(const MatrixView& matrix);
  Entry* Add(const MatrixView& matrix);
  void Drop(Entry* entry);
  bool Ternarise(Entry* entry);
  bool Run(const Entry& entry, const float* x, uint32_t batch, std::vector<float>* y,
           std::vector<float>* bounds);

  const Options options_;
  std::mutex mutex_;
  tfmbs_ctx* context_ = nullptr;
  bool failed_ = false;
  std::vector<Entry> entries_;
  uint64_t clock_ = 0;
  uint64_t ternarised_ = 0;
};

}  // namespace intercept
