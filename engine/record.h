#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace engine {

static_assert(std::endian::native == std::endian::little);

// Numbers and texts end to end, little-endian: the heads of our files.
class RecordWriter {
 public:
  template <typename Number>
  void Add(Number number) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&number);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof number);
  }
  void AddText(std::string_view text) {
    Add(static_cast<uint32_t>(text.size()));
    const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), bytes, bytes + text.size());
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

// Takes the same apart. Errors: std::out_of_range when it ends too early.
class RecordReader {
 public:
  explicit RecordReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <typename Number>
  Number Take() {
    Number number;
    std::memcpy(&number, TakeBytes(sizeof number).data(), sizeof number);
    return number;
  }
  std::string TakeText() {
    const std::span<const std::byte> bytes = TakeBytes(Take<uint32_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  size_t left() const { return bytes_.size(); }

 private:
  std::span<const std::byte> TakeBytes(size_t count) {
    if (count > bytes_.size()) throw std::out_of_range("a record ends too early");
    const auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }

  std::span<const std::byte> bytes_;
};

}  // namespace engine
