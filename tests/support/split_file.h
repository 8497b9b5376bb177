#pragma once

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "gguf/reader.h"
#include "gguf/writer.h"
#include "tests/support/gguf_builder.h"

namespace support {

// The split.* keys of one part as bytes of a header; their number keeps the alignment of what
// follows.
inline std::vector<std::byte> SplitKeys(uint16_t number, uint16_t count, size_t tensors) {
  constexpr size_t kFileHeader = 24;
  GgufBuilder keys(0, 0);
  keys.Key("split.no", gguf::ValueType::kUint16).Put(number);
  keys.Key("split.count", gguf::ValueType::kUint16).Put(count);
  keys.Key("split.tensors.count", gguf::ValueType::kInt32).Put(static_cast<int32_t>(tensors));
  keys.Key("split.pad", gguf::ValueType::kString);
  const size_t text = 32 - (keys.bytes().size() - kFileHeader + 8) % 32;
  keys.String(std::string(text, '.'));
  return {keys.bytes().begin() + kFileHeader, keys.bytes().end()};
}

// Writes `whole` as PREFIX-00001-of-0000N.gguf and so on, as the field's splitters do: metadata in
// the first part, the tensors spread in order. Returns the paths.
inline std::vector<std::string> WriteSplit(const gguf::File& whole, const std::string& prefix,
                                           uint16_t count) {
  constexpr uint64_t kSplitKeys = 4;
  std::vector<std::string> paths;
  const size_t tensors = whole.tensors().size();
  for (uint16_t number = 0; number < count; ++number) {
    gguf::Writer writer;
    if (number == 0) writer.metadata() = whole.metadata();
    for (size_t i = tensors * number / count; i < tensors * (number + 1u) / count; ++i) {
      const gguf::TensorInfo& info = whole.tensors()[i];
      const auto bytes = whole.TensorBytes(info);
      writer.AddTensor(info.name, info.type,
                       {info.extents.begin(), info.extents.begin() + info.rank},
                       {bytes.begin(), bytes.end()});
    }
    std::vector<std::byte> part = writer.Serialize();
    uint64_t entries = 0;
    std::memcpy(&entries, part.data() + 16, sizeof entries);
    entries += kSplitKeys;
    std::memcpy(part.data() + 16, &entries, sizeof entries);
    const std::vector<std::byte> keys = SplitKeys(number, count, tensors);
    part.insert(part.begin() + 24, keys.begin(), keys.end());

    char suffix[32];
    std::snprintf(suffix, sizeof suffix, "-%05d-of-%05d.gguf", number + 1, count);
    paths.push_back(prefix + suffix);
    std::ofstream(paths.back(), std::ios::binary)
        .write(reinterpret_cast<const char*>(part.data()),
               static_cast<std::streamsize>(part.size()));
  }
  return paths;
}

}  // namespace support
