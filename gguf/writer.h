#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "gguf/metadata.h"
#include "gguf/tensor_info.h"

namespace gguf {

// Writes GGUF v3 files, with alignment 32 unless set.
//
// Use: set metadata(), add every tensor (bytes, or a producer called while writing so that a large
// synthetic model never sits in memory whole), then WriteFile() or Serialize().
// Metadata keys that describe the container (general.alignment, split.*) are not copied, so that
// the metadata of a file that was read can be passed on whole.
// Errors: FormatError names the path and the system's reason. A file appears under its name only
// when complete (it is written as PATH.partial first), so the source of a copy may be its target.
class Writer {
 public:
  static constexpr uint64_t kDefaultAlignment = 32;

  // Appends exactly `byte_size` bytes by calling `emit` any number of times.
  using Emit = std::function<void(std::span<const std::byte>)>;
  using Producer = std::function<void(const Emit& emit)>;

  Metadata& metadata() { return metadata_; }
  // Tensors start at multiples of `alignment`. Errors: FormatError unless a power of two up to
  // 65,536, which is what the reader takes.
  void SetAlignment(uint64_t alignment);
  void AddTensor(std::string name, TensorType type, std::vector<uint64_t> extents,
                 std::vector<std::byte> bytes);
  void AddTensor(std::string name, TensorType type, std::vector<uint64_t> extents,
                 uint64_t byte_size, Producer producer);

  void WriteFile(const std::string& path) const;
  std::vector<std::byte> Serialize() const;

 private:
  struct Pending {
    TensorInfo info;
    Producer producer;
  };
  void WriteTo(const Emit& emit) const;

  Metadata metadata_;
  uint64_t alignment_ = kDefaultAlignment;
  std::vector<Pending> tensors_;
};

// Bytes that a tensor of this type and shape takes in a file.
// Errors: FormatError when the type is unknown or cols does not fit its block.
uint64_t TensorByteSize(TensorType type, uint64_t rows, uint64_t cols);

}  // namespace gguf
