#include "gguf/writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string_view>
#include <system_error>
#include <utility>

#include "gguf/error.h"
#include "gguf/quoted.h"
#include "gguf/type_layout.h"

namespace gguf {
namespace {

constexpr uint64_t kLargestAlignment = 65536;

uint64_t AlignUp(uint64_t position, uint64_t alignment) {
  return (position + alignment - 1) / alignment * alignment;
}

// Keys that describe the container, not the model: the writer says what its own file is.
bool DescribesContainer(std::string_view key) {
  return key == "general.alignment" || key.starts_with("split.");
}

class HeaderBuilder {
 public:
  template <typename T>
  void Put(T value) {
    bytes_.resize(bytes_.size() + sizeof(T));
    std::memcpy(bytes_.data() + bytes_.size() - sizeof(T), &value, sizeof(T));
  }

  void PutString(std::string_view text) {
    Put<uint64_t>(text.size());
    const auto* bytes = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), bytes, bytes + text.size());
  }

  void PutValue(const MetadataValue& value) {
    Put(static_cast<uint32_t>(value.type));
    std::visit([&](const auto& held) { PutHeld(value.type, held); }, value.value);
  }

  void Pad(uint64_t alignment) { bytes_.resize(AlignUp(bytes_.size(), alignment)); }
  std::vector<std::byte> Take() { return std::move(bytes_); }

 private:
  [[noreturn]] static void ThrowMismatch(ValueType type) {
    throw FormatError("a metadata value of type " + std::to_string(static_cast<uint32_t>(type)) +
                      " does not hold what its type says");
  }

  void PutHeld(ValueType type, bool value) {
    if (type != ValueType::kBool) ThrowMismatch(type);
    Put<uint8_t>(value ? 1 : 0);
  }

  void PutHeld(ValueType type, int64_t value) {
    switch (type) {
      case ValueType::kInt8:
        return PutNarrow<int8_t>(value);
      case ValueType::kInt16:
        return PutNarrow<int16_t>(value);
      case ValueType::kInt32:
        return PutNarrow<int32_t>(value);
      case ValueType::kInt64:
        return Put(value);
      default:
        ThrowMismatch(type);
    }
  }

  void PutHeld(ValueType type, uint64_t value) {
    switch (type) {
      case ValueType::kBool:
      case ValueType::kUint8:
        return PutNarrow<uint8_t>(value);
      case ValueType::kUint16:
        return PutNarrow<uint16_t>(value);
      case ValueType::kUint32:
        return PutNarrow<uint32_t>(value);
      case ValueType::kUint64:
        return Put(value);
      default:
        ThrowMismatch(type);
    }
  }

  void PutHeld(ValueType type, double value) {
    if (type == ValueType::kFloat64) return Put(value);
    if (type != ValueType::kFloat32) ThrowMismatch(type);
    Put(static_cast<float>(value));
  }

  void PutHeld(ValueType type, const std::string& value) {
    if (type != ValueType::kString) ThrowMismatch(type);
    PutString(value);
  }

  void PutHeld(ValueType type, const MetadataArray& array) {
    if (type != ValueType::kArray) ThrowMismatch(type);
    Put(static_cast<uint32_t>(array.element_type));
    Put<uint64_t>(array.size());
    std::visit(
        [&](const auto& elements) {
          for (const auto& element : elements) PutHeld(array.element_type, element);
        },
        array.values);
  }

  template <typename T, typename Wide>
  void PutNarrow(Wide value) {
    const T narrow = static_cast<T>(value);
    if (static_cast<Wide>(narrow) != value) {
      throw FormatError("metadata value " + std::to_string(value) + " does not fit its type");
    }
    Put(narrow);
  }

  std::vector<std::byte> bytes_;
};

void RefuseDuplicateNames(const std::vector<const TensorInfo*>& tensors) {
  std::vector<std::string_view> names;
  names.reserve(tensors.size());
  for (const TensorInfo* info : tensors) names.push_back(info->name);
  std::sort(names.begin(), names.end());
  const auto duplicate = std::adjacent_find(names.begin(), names.end());
  if (duplicate != names.end()) {
    throw FormatError("tensor " + Quoted(*duplicate) + " was added twice");
  }
}

std::vector<std::byte> BuildHeader(const Metadata& metadata, uint64_t alignment,
                                   const std::vector<const TensorInfo*>& tensors) {
  std::vector<const std::pair<std::string, MetadataValue>*> entries;
  for (const auto& entry : metadata.entries()) {
    if (!DescribesContainer(entry.first)) entries.push_back(&entry);
  }
  const std::pair<std::string, MetadataValue> own_alignment = {"general.alignment",
                                                               {ValueType::kUint32, alignment}};
  if (alignment != Writer::kDefaultAlignment) entries.push_back(&own_alignment);
  RefuseDuplicateNames(tensors);
  HeaderBuilder header;
  header.Put(std::array<char, 4>{'G', 'G', 'U', 'F'});
  header.Put<uint32_t>(3);
  header.Put<uint64_t>(tensors.size());
  header.Put<uint64_t>(entries.size());
  for (const auto* entry : entries) {
    header.PutString(entry->first);
    header.PutValue(entry->second);
  }
  uint64_t offset = 0;
  for (const TensorInfo* info : tensors) {
    header.PutString(info->name);
    header.Put<uint32_t>(info->rank);
    for (uint32_t i = 0; i < info->rank; ++i) header.Put<uint64_t>(info->extents[i]);
    // Values above 0xffff exist in memory only; the id is what they stand for.
    header.Put<uint32_t>(static_cast<uint32_t>(info->type) & 0xffff);
    header.Put<uint64_t>(offset);
    offset = AlignUp(offset + info->byte_size, alignment);
  }
  header.Pad(alignment);
  return header.Take();
}

TensorInfo MakeInfo(std::string name, TensorType type, const std::vector<uint64_t>& extents,
                    uint64_t byte_size) {
  if (extents.empty() || extents.size() > 4) {
    throw FormatError("tensor " + Quoted(name) + " has " + std::to_string(extents.size()) +
                      " dimensions: expected 1 to 4");
  }
  TensorInfo info;
  info.name = std::move(name);
  info.type = type;
  info.rank = static_cast<uint32_t>(extents.size());
  std::copy(extents.begin(), extents.end(), info.extents.begin());
  info.byte_size = TensorByteSize(type, info.rows(), info.cols());
  if (info.byte_size != byte_size) {
    throw FormatError("tensor " + Quoted(info.name) + " is given " + std::to_string(byte_size) +
                      " bytes: expected " + std::to_string(info.byte_size));
  }
  return info;
}

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

[[noreturn]] void ThrowErrno(const std::string& path) {
  const int error = errno;
  throw FormatError("cannot write " + path + ": " + std::generic_category().message(error));
}

// A file that appears under its name only when complete, so that a failure leaves nothing and a
// file that is being read (perhaps the source of this very copy) is not cut under its mapping.
class OutputFile {
 public:
  explicit OutputFile(const std::string& path)
      : path_(path), partial_(path + ".partial"), file_(std::fopen(partial_.c_str(), "wb")) {
    if (file_ == nullptr) ThrowErrno(partial_);
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;
  ~OutputFile() {
    if (file_ != nullptr) std::remove(partial_.c_str());
  }

  void Write(std::span<const std::byte> bytes) {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file_.get()) != bytes.size()) ThrowErrno(path_);
  }

  void Commit() {
    if (std::fflush(file_.get()) != 0 || fsync(fileno(file_.get())) != 0) ThrowErrno(path_);
    if (std::rename(partial_.c_str(), path_.c_str()) != 0) ThrowErrno(path_);
    file_.reset();
  }

 private:
  std::string path_;
  std::string partial_;
  std::unique_ptr<std::FILE, FileCloser> file_;
};

}  // namespace

uint64_t TensorByteSize(TensorType type, uint64_t rows, uint64_t cols) {
  const TypeLayout* layout = FindTypeLayout(type);
  if (layout == nullptr) {
    throw FormatError("unknown tensor type " + std::to_string(static_cast<uint32_t>(type)));
  }
  const auto size = LayoutByteSize(*layout, rows, cols);
  if (!size) {
    throw FormatError(std::to_string(rows) + " rows of " + std::to_string(cols) +
                      " columns do not fit " + std::string(layout->name) +
                      ": expected a multiple of " + std::to_string(layout->block_cols) +
                      " columns and of " + std::to_string(layout->group_rows) + " rows");
  }
  return *size;
}

void Writer::SetAlignment(uint64_t alignment) {
  if (!std::has_single_bit(alignment) || alignment > kLargestAlignment) {
    throw FormatError("an alignment of " + std::to_string(alignment) +
                      " was asked for: expected a power of two up to 65536");
  }
  alignment_ = alignment;
}

void Writer::AddTensor(std::string name, TensorType type, std::vector<uint64_t> extents,
                       std::vector<std::byte> bytes) {
  const uint64_t size = bytes.size();
  // std::function wants a copyable callable; the bytes are held once.
  const auto held = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  AddTensor(std::move(name), type, std::move(extents), size,
            [held](const Emit& emit) { emit(*held); });
}

void Writer::AddTensor(std::string name, TensorType type, std::vector<uint64_t> extents,
                       uint64_t byte_size, Producer producer) {
  TensorInfo info = MakeInfo(std::move(name), type, extents, byte_size);
  tensors_.push_back({std::move(info), std::move(producer)});
}

void Writer::WriteTo(const Emit& emit) const {
  std::vector<const TensorInfo*> infos;
  for (const Pending& tensor : tensors_) infos.push_back(&tensor.info);
  emit(BuildHeader(metadata_, alignment_, infos));
  const std::vector<std::byte> zeros(alignment_);
  for (const Pending& tensor : tensors_) {
    uint64_t written = 0;
    tensor.producer([&](std::span<const std::byte> bytes) {
      written += bytes.size();
      emit(bytes);
    });
    if (written != tensor.info.byte_size) {
      throw FormatError("the producer of tensor " + Quoted(tensor.info.name) + " wrote " +
                        std::to_string(written) + " bytes: expected " +
                        std::to_string(tensor.info.byte_size));
    }
    emit(std::span(zeros).first(AlignUp(written, alignment_) - written));
  }
}

void Writer::WriteFile(const std::string& path) const {
  OutputFile file(path);
  WriteTo([&](std::span<const std::byte> bytes) { file.Write(bytes); });
  file.Commit();
}

std::vector<std::byte> Writer::Serialize() const {
  std::vector<std::byte> file;
  WriteTo([&](std::span<const std::byte> bytes) {
    file.insert(file.end(), bytes.begin(), bytes.end());
  });
  return file;
}

}  // namespace gguf
