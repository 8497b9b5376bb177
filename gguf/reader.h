#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/error.h"
#include "gguf/metadata.h"
#include "gguf/tensor_info.h"

namespace gguf {

// How an id-36 (I2_S) tensor is laid out; the file does not say (docs/ternary_format.md).
enum class I2SLayout { kX86, kArm64, kInterleaved4 };

struct ReadOptions {
  I2SLayout i2s_layout = I2SLayout::kX86;
};

// A GGUF v2/v3 file, one part or several, with every count, length, offset, alignment, type and
// tensor span checked against the file's size before anything is allocated or read.
//
// Ownership: Open() owns the mapping(s); Parse() views `bytes`, which must outlive the File.
// Threads:   const calls from any thread.
// Errors:    Open() and Parse() throw FormatError.
class File {
 public:
  static File Open(const std::string& path, const ReadOptions& options = {});
  static File Parse(std::span<const std::byte> bytes, const ReadOptions& options = {});

  File(File&&) noexcept;
  File& operator=(File&&) noexcept;
  ~File();

  const Metadata& metadata() const;
  std::span<const TensorInfo> tensors() const;
  const TensorInfo* FindTensor(std::string_view name) const;  // nullptr when absent
  // Exactly info.byte_size bytes. REQUIRES: info is one of tensors().
  std::span<const std::byte> TensorBytes(const TensorInfo& info) const;
  const ReadOptions& options() const;
  uint32_t version() const;
  uint64_t file_bytes() const;                 // all parts together
  uint64_t alignment() const;                  // of the first part
  std::span<const std::string> paths() const;  // of the parts; empty after Parse()

 private:
  struct Impl;
  explicit File(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace gguf
