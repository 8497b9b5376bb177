#include "scheduler/prefix_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <stdexcept>

#include "engine/record.h"

namespace scheduler {
namespace {

constexpr char kMagic[8] = {'T', 'E', 'R', 'N', 'K', 'V', '0', '1'};
constexpr size_t kMagicName = 6;  // the same in all versions
constexpr uint32_t kNoParent = UINT32_MAX;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, CloseFile>;

[[noreturn]] void Fail(const std::string& path, const std::string& what) {
  throw PrefixStoreError("The prefix cache file " + path + " " + what + ".");
}

std::vector<std::byte> BuildHead(const PrefixStoreFormat& format,
                                 const std::vector<PrefixCache::Entry>& entries) {
  engine::RecordWriter head;
  head.AddText(format.identity);
  head.Add(format.block_size);
  head.Add(format.block_bytes);
  head.Add(static_cast<uint32_t>(entries.size()));
  std::unordered_map<BlockId, uint32_t> index;
  for (const PrefixCache::Entry& entry : entries) {
    head.Add(entry.parent ? index.at(*entry.parent) : kNoParent);
    head.AddText(entry.space);
    head.Add(static_cast<uint32_t>(entry.tokens.size()));
    for (const engine::TokenId token : entry.tokens) head.Add(token);
    index.emplace(entry.block, static_cast<uint32_t>(index.size()));
  }
  return head.bytes();
}

void Write(std::FILE* file, const std::string& path, std::span<const std::byte> bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size()) return;
  Fail(path, "cannot be written: " + std::string(std::strerror(errno)));
}

void WriteTag(std::FILE* file, const std::string& path, uint64_t tag) {
  Write(file, path, std::as_bytes(std::span(&tag, 1)));
}

void Read(std::FILE* file, const std::string& path, std::span<std::byte> bytes) {
  if (std::fread(bytes.data(), 1, bytes.size(), file) != bytes.size()) Fail(path, "is cut off");
}

template <typename Number>
Number ReadNumber(std::FILE* file, const std::string& path) {
  Number number;
  Read(file, path, std::as_writable_bytes(std::span(&number, 1)));
  return number;
}

std::vector<PrefixCache::Entry> ParseHead(const std::string& path, std::span<const std::byte> bytes,
                                          const PrefixStoreFormat& format) try {
  engine::RecordReader head(bytes);
  const bool same = head.TakeText() == format.identity &&
                    head.Take<uint32_t>() == format.block_size &&
                    head.Take<uint64_t>() == format.block_bytes;
  if (!same) Fail(path, "was written for another model or other KV settings");
  const auto count = head.Take<uint32_t>();
  std::vector<PrefixCache::Entry> entries;
  for (uint32_t i = 0; i < count; ++i) {
    PrefixCache::Entry& entry = entries.emplace_back();
    entry.block = i;
    const auto parent = head.Take<uint32_t>();
    if (parent != kNoParent) entry.parent = parent;
    entry.space = head.TakeText();
    const auto tokens = head.Take<uint32_t>();
    const bool sound = (parent == kNoParent ||
                        (parent < i && entries[parent].tokens.size() == format.block_size)) &&
                       tokens > 0 && tokens <= format.block_size;
    if (!sound) Fail(path, "has a broken entry");
    for (uint32_t t = 0; t < tokens; ++t) entry.tokens.push_back(head.Take<engine::TokenId>());
    // Only the first of a chain names the space.
    if (entry.parent) entry.space = entries[*entry.parent].space;
  }
  if (head.left() != 0) Fail(path, "has a head that is too long");
  return entries;
} catch (const std::out_of_range&) {
  Fail(path, "has a head that ends too early");
}

// Not a byte of what a user named by mistake is replaced.
bool HoldsSomethingElse(const std::string& path) {
  const File file(std::fopen(path.c_str(), "rbe"));
  if (!file) return false;
  char magic[sizeof kMagic];
  const size_t count = std::fread(magic, 1, sizeof magic, file.get());
  return count > 0 && (count < sizeof magic || std::memcmp(magic, kMagic, kMagicName) != 0);
}

}  // namespace

void SavePrefixes(const std::string& path, const SipKey& key, const PrefixStoreFormat& format,
                  const std::vector<PrefixCache::Entry>& entries,
                  const std::function<void(BlockId, std::byte*)>& read) {
  if (HoldsSomethingElse(path)) Fail(path, "is none and stays as it is");
  const std::string part = path + ".part";
  const int descriptor = ::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (descriptor < 0) Fail(path, "cannot be written: " + std::string(std::strerror(errno)));
  {
    const File file(::fdopen(descriptor, "wb"));
    Write(file.get(), path, std::as_bytes(std::span(kMagic)));
    const std::vector<std::byte> head = BuildHead(format, entries);
    const uint64_t size = head.size();
    Write(file.get(), path, std::as_bytes(std::span(&size, 1)));
    Write(file.get(), path, head);
    uint64_t tag = SipHash(key, {}, head);
    WriteTag(file.get(), path, tag);
    std::vector<std::byte> bytes(format.block_bytes);
    for (const PrefixCache::Entry& entry : entries) {
      read(entry.block, bytes.data());
      Write(file.get(), path, bytes);
      tag = SipHash(key, {&tag, 1}, bytes);
      WriteTag(file.get(), path, tag);
    }
    if (std::fflush(file.get()) != 0 || ::fsync(descriptor) != 0) {
      Fail(path, "cannot be written: " + std::string(std::strerror(errno)));
    }
  }
  std::error_code error;
  std::filesystem::rename(part, path, error);
  if (error) Fail(path, "cannot be written: " + error.message());
}

void LoadPrefixes(
    const std::string& path, const SipKey& key, const PrefixStoreFormat& format,
    const std::function<std::vector<bool>(const std::vector<PrefixCache::Entry>&)>& place,
    const std::function<void(size_t entry, std::span<const std::byte> bytes)>& fill) {
  const File file(std::fopen(path.c_str(), "rbe"));
  if (!file) Fail(path, "cannot be read: " + std::string(std::strerror(errno)));
  std::error_code error;
  const uint64_t file_size = std::filesystem::file_size(path, error);
  if (error) Fail(path, "cannot be read: " + error.message());
  char magic[sizeof kMagic];
  Read(file.get(), path, std::as_writable_bytes(std::span(magic)));
  if (std::memcmp(magic, kMagic, sizeof kMagic) != 0) Fail(path, "is none");
  const auto size = ReadNumber<uint64_t>(file.get(), path);
  if (size > file_size) Fail(path, "is cut off");
  std::vector<std::byte> head(size);
  Read(file.get(), path, head);
  uint64_t tag = SipHash(key, {}, head);
  if (ReadNumber<uint64_t>(file.get(), path) != tag) Fail(path, "is damaged or not ours");

  const std::vector<PrefixCache::Entry> entries = ParseHead(path, head, format);
  const std::vector<bool> wanted = place(entries);
  std::vector<std::byte> bytes(format.block_bytes);
  for (size_t i = 0; i < entries.size(); ++i) {
    Read(file.get(), path, bytes);
    tag = SipHash(key, {&tag, 1}, bytes);
    if (ReadNumber<uint64_t>(file.get(), path) != tag) Fail(path, "is damaged or not ours");
    if (wanted[i]) fill(i, bytes);
  }
}

SipKey LoadOrMakeKey(const std::string& path) {
  SipKey key{};
  const int found = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (found >= 0) {
    const auto count = ::read(found, key.data(), sizeof key);
    ::close(found);
    if (count != static_cast<ssize_t>(sizeof key)) Fail(path, "is no key of 16 bytes");
    return key;
  }
  std::random_device random;
  for (uint64_t& word : key) word = uint64_t{random()} << 32 | random();
  const int made = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  const bool good = made >= 0 && ::write(made, key.data(), sizeof key) == sizeof key;
  const std::string reason = std::strerror(errno);
  if (made >= 0) ::close(made);
  if (!good) Fail(path, "cannot be written: " + reason);
  return key;
}

}  // namespace scheduler
