#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "fabric/aligned_buffer.h"
#include "fabric/status.h"
#include "fabric/ternary_matrix.h"

namespace fabric::residency {

// The weights of a matrix as kernels read them (TernaryMatrix::CopyImage()), outside of the pool.
struct StoredImage {
  size_t bytes = 0;
  AlignedBuffer<uint8_t> memory;  // [bytes], or empty when they are in the file
  uint64_t offset = 0;            // in the file
};

// Keeps what does not fit a pool: in memory, or in a file without a name that goes with the
// process. What was packed once is never packed again.
//
// Threads: Read() from any; the rest one at a time.
class ImageStore {
 public:
  // directory: of the file; empty = memory. Errors: std::runtime_error when no file can be made.
  explicit ImageStore(const std::string& directory);
  ~ImageStore();
  ImageStore(const ImageStore&) = delete;
  ImageStore& operator=(const ImageStore&) = delete;

  // kErrNoMem when the file cannot take it. Errors: std::bad_alloc.
  Status Put(const TernaryMatrix& matrix, StoredImage* image);
  void Drop(StoredImage* image) noexcept;
  // Bytes [begin, begin + to.size()) of the image; false when the file cannot be read.
  bool Read(const StoredImage& image, size_t begin, std::span<uint8_t> to) const noexcept;

  bool in_file() const { return file_ >= 0; }

 private:
  int file_ = -1;
  uint64_t end_ = 0;
};

}  // namespace fabric::residency
