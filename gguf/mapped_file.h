#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace gguf {

// A whole file mapped read-only.
//
// Ownership: unmaps on destruction; bytes() is valid until then. Move-only.
// Threads:   const calls from any thread.
// Errors:    Open() throws FormatError naming the path and the system's reason.
// Lifetime:  a file truncated by someone else while mapped raises SIGBUS on access, so callers read
//            everything they need during load and then drop the mapping (docs/decisions.md).
class MappedFile {
 public:
  static MappedFile Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile(const std::byte* data, size_t size) : data_(data), size_(size) {}

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace gguf
