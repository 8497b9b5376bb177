#include "gguf/reader.h"

#include <algorithm>
#include <cassert>
#include <cinttypes>
#include <cstdio>
#include <optional>
#include <utility>

#include "gguf/header.h"
#include "gguf/mapped_file.h"
#include "gguf/quoted.h"
#include "gguf/tensor_table.h"

namespace gguf {
namespace {

constexpr char kSplitCount[] = "split.count";
constexpr char kSplitNumber[] = "split.no";
constexpr char kSplitTensors[] = "split.tensors.count";

std::string SplitSuffix(uint64_t number, uint64_t count) {
  char suffix[64];
  std::snprintf(suffix, sizeof suffix, "-%05" PRIu64 "-of-%05" PRIu64 ".gguf", number + 1, count);
  return suffix;
}

// The name of the model that part `number` of `count` belongs to: its path without the suffix.
std::string SplitPrefix(const std::string& path, uint64_t number, uint64_t count) {
  const std::string suffix = SplitSuffix(number, count);
  if (!path.ends_with(suffix)) {
    throw FormatError(path + " is part " + std::to_string(number + 1) + " of " +
                      std::to_string(count) + ": expected a name ending in " + suffix +
                      ", by which the other parts are found");
  }
  return path.substr(0, path.size() - suffix.size());
}

void CheckPart(const std::string& path, const Metadata& metadata, uint64_t number, uint64_t count) {
  const uint64_t found_number = metadata.GetUint(kSplitNumber);
  const uint64_t found_count = metadata.GetUint(kSplitCount);
  if (found_number == number && found_count == count) return;
  throw FormatError(path + " calls itself part " + std::to_string(found_number) + " (from 0) of " +
                    std::to_string(found_count) + ": expected " + std::to_string(number) + " of " +
                    std::to_string(count));
}

}  // namespace

struct File::Impl {
  std::vector<MappedFile> mappings;               // empty for Parse()
  std::vector<std::string> paths;                 // parallel to mappings
  std::vector<std::span<const std::byte>> parts;  // one per file
  Metadata metadata;                              // of the first part
  std::vector<TensorInfo> tensors;
  std::vector<uint32_t> by_name;  // indices into tensors, sorted by name
  ReadOptions options;
  uint32_t version = 0;
  uint32_t alignment = 0;  // of the first part

  // Reads the header of `bytes` as the next part. Returns its metadata.
  Metadata AddPart(std::span<const std::byte> bytes) {
    Header header = ParseHeader(bytes);
    const Metadata& leading = parts.empty() ? header.metadata : metadata;
    const std::string* architecture = leading.FindString("general.architecture");
    std::vector<TensorInfo> resolved =
        ResolveTensors(header, architecture == nullptr ? "" : *architecture, bytes.size(),
                       static_cast<uint32_t>(parts.size()), options);
    if (parts.empty()) {
      version = header.version;
      alignment = header.alignment;
    }
    tensors.insert(tensors.end(), std::make_move_iterator(resolved.begin()),
                   std::make_move_iterator(resolved.end()));
    parts.push_back(bytes);
    return std::move(header.metadata);
  }

  void MapPart(const std::string& path) {
    mappings.push_back(MappedFile::Open(path));
    paths.push_back(path);
  }

  void AddOtherParts(const std::string& path, uint64_t count) {
    CheckPart(path, metadata, 0, count);
    const std::string prefix = SplitPrefix(path, 0, count);
    for (uint64_t number = 1; number < count; ++number) {
      const std::string part_path = prefix + SplitSuffix(number, count);
      MapPart(part_path);
      CheckPart(part_path, AddPart(mappings.back().bytes()), number, count);
    }
    const auto expected = metadata.FindUint(kSplitTensors);
    if (expected && *expected != tensors.size()) {
      throw FormatError(path + " and its parts hold " + std::to_string(tensors.size()) +
                        " tensors: expected " + std::to_string(*expected));
    }
  }

  // REQUIRES: all parts added.
  void IndexNames() {
    by_name.resize(tensors.size());
    for (uint32_t i = 0; i < by_name.size(); ++i) by_name[i] = i;
    std::sort(by_name.begin(), by_name.end(),
              [&](uint32_t a, uint32_t b) { return tensors[a].name < tensors[b].name; });
    for (size_t i = 1; i < by_name.size(); ++i) {
      const std::string& name = tensors[by_name[i]].name;
      if (name == tensors[by_name[i - 1]].name) {
        throw FormatError("tensor " + Quoted(name) + " occurs in two parts: expected unique names");
      }
    }
  }
};

File::File(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
File::File(File&&) noexcept = default;
File& File::operator=(File&&) noexcept = default;
File::~File() = default;

File File::Open(const std::string& path, const ReadOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->MapPart(path);
  std::string first_path = path;
  try {
    const Header header = ParseHeader(impl->mappings[0].bytes());
    const uint64_t count = header.metadata.FindUint(kSplitCount).value_or(1);
    const uint64_t number = header.metadata.FindUint(kSplitNumber).value_or(0);
    if (number != 0) {
      first_path = SplitPrefix(path, number, count) + SplitSuffix(0, count);
      impl->mappings.clear();
      impl->paths.clear();
      impl->MapPart(first_path);
    }
    impl->metadata = impl->AddPart(impl->mappings[0].bytes());
    if (count > 1) impl->AddOtherParts(first_path, count);
    impl->IndexNames();
  } catch (const FormatError& error) {
    throw FormatError(path + ": " + error.what());
  }
  return File(std::move(impl));
}

File File::Parse(std::span<const std::byte> bytes, const ReadOptions& options) {
  auto impl = std::make_unique<Impl>();
  impl->options = options;
  impl->metadata = impl->AddPart(bytes);
  const uint64_t count = impl->metadata.FindUint(kSplitCount).value_or(1);
  if (count > 1) {
    throw FormatError("the file is one part of " + std::to_string(count) +
                      ": expected a whole file; open split files by their path");
  }
  impl->IndexNames();
  return File(std::move(impl));
}

const Metadata& File::metadata() const { return impl_->metadata; }
std::span<const TensorInfo> File::tensors() const { return impl_->tensors; }
const ReadOptions& File::options() const { return impl_->options; }
uint32_t File::version() const { return impl_->version; }
uint64_t File::alignment() const { return impl_->alignment; }
std::span<const std::string> File::paths() const { return impl_->paths; }

const TensorInfo* File::FindTensor(std::string_view name) const {
  const auto& order = impl_->by_name;
  const auto found = std::lower_bound(
      order.begin(), order.end(), name,
      [&](uint32_t index, std::string_view key) { return impl_->tensors[index].name < key; });
  if (found == order.end() || impl_->tensors[*found].name != name) return nullptr;
  return &impl_->tensors[*found];
}

std::span<const std::byte> File::TensorBytes(const TensorInfo& info) const {
  assert(info.part < impl_->parts.size());
  return impl_->parts[info.part].subspan(info.offset, info.byte_size);
}

uint64_t File::file_bytes() const {
  uint64_t bytes = 0;
  for (const auto& part : impl_->parts) bytes += part.size();
  return bytes;
}

}  // namespace gguf
