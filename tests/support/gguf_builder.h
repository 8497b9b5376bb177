#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

#include "gguf/metadata.h"

namespace support {

// Writes the fields of a GGUF header one by one, so that each may be a lie. Files that are meant to
// be valid come from gguf::Writer.
class GgufBuilder {
 public:
  GgufBuilder(uint64_t tensor_count, uint64_t entry_count, uint32_t version = 3) {
    Put(uint32_t{0x46554747});
    Put(version);
    Put(tensor_count);
    Put(entry_count);
  }

  template <typename T>
  GgufBuilder& Put(T value) {
    const size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, &value, sizeof(T));
    return *this;
  }

  GgufBuilder& String(std::string_view text) {
    Put<uint64_t>(text.size());
    return Raw(text);
  }

  GgufBuilder& Raw(std::string_view text) {
    for (const char c : text) bytes_.push_back(static_cast<std::byte>(c));
    return *this;
  }

  GgufBuilder& Key(std::string_view key, gguf::ValueType type) {
    return String(key).Put(static_cast<uint32_t>(type));
  }

  GgufBuilder& Uint32(std::string_view key, uint32_t value) {
    return Key(key, gguf::ValueType::kUint32).Put(value);
  }

  GgufBuilder& Text(std::string_view key, std::string_view value) {
    return Key(key, gguf::ValueType::kString).String(value);
  }

  GgufBuilder& Array(std::string_view key, gguf::ValueType element_type, uint64_t count) {
    return Key(key, gguf::ValueType::kArray).Put(static_cast<uint32_t>(element_type)).Put(count);
  }

  GgufBuilder& Tensor(std::string_view name, const std::vector<uint64_t>& extents, uint32_t type_id,
                      uint64_t offset) {
    String(name).Put(static_cast<uint32_t>(extents.size()));
    for (const uint64_t extent : extents) Put(extent);
    return Put(type_id).Put(offset);
  }

  // Pads to `alignment` and appends `count` bytes of data.
  GgufBuilder& Data(size_t count, size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment + count);
    return *this;
  }

  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

inline gguf::MetadataValue UintValue(uint64_t value,
                                     gguf::ValueType type = gguf::ValueType::kUint32) {
  return {type, value};
}

inline gguf::MetadataValue TextValue(std::string_view value) {
  return {gguf::ValueType::kString, std::string(value)};
}

}  // namespace support
