#include "engine/packed_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <utility>

#include "engine/errors.h"
#include "engine/record.h"
#include "fabric/parallel.h"
#include "fabric/sparse/mix.h"

namespace engine {
namespace {

constexpr std::array<char, 8> kMagic = {'T', 'E', 'R', 'N', 'P', 'K', '0', '1'};
// To be raised with every change of what packed matrices look like.
constexpr int kPackVersion = 1;
// What one task reads or writes, and what one checksum is of: small enough to be in a core's cache
// when it is summed up, and to spread a matrix over the cores.
constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr size_t kAlignment = 4096;
// Of every tensor, in the identity.
constexpr size_t kSampleBytes = 64;

struct Header {
  std::array<char, 8> magic = kMagic;
  uint64_t index_offset = 0;
  uint64_t index_size = 0;
  uint64_t index_checksum = 0;
};

struct Piece {
  uint64_t offset = 0;
  uint64_t size = 0;
  std::vector<uint64_t> checksums;
};

struct Entry {
  std::string facts;
  std::vector<Piece> pieces;
};
using Index = std::map<std::string, Entry, std::less<>>;

// Four sums side by side, a step of which waits for one multiplication: as fast as memory is read.
// Each step is a bijection of its sum, so no single word can change unnoticed.
uint64_t Checksum(std::span<const std::byte> bytes) {
  constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;
  std::array<uint64_t, 4> sums = {1, 2, 3, 4};
  const auto add = [&sums](const std::byte* words) {
    for (size_t i = 0; i < sums.size(); ++i) {
      uint64_t word;
      std::memcpy(&word, words + i * sizeof word, sizeof word);
      sums[i] = std::rotl((sums[i] ^ word) * kOdd, 29);
    }
  };
  size_t at = 0;
  for (; at + sizeof sums <= bytes.size(); at += sizeof sums) add(bytes.data() + at);
  std::array<std::byte, sizeof sums> rest = {};
  std::copy(bytes.begin() + static_cast<ptrdiff_t>(at), bytes.end(), rest.begin());
  add(rest.data());
  uint64_t sum = bytes.size();
  for (const uint64_t one : sums) sum = fabric::sparse::Mix(sum ^ one);
  return sum;
}

// All of it, or false.
bool ReadAt(int file, uint64_t offset, std::span<std::byte> to) {
  while (!to.empty()) {
    const ssize_t count = ::pread(file, to.data(), to.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    to = to.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return true;
}

bool WriteAt(int file, uint64_t offset, std::span<const std::byte> from) {
  while (!from.empty()) {
    const ssize_t count = ::pwrite(file, from.data(), from.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    from = from.subspan(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return true;
}

std::span<const std::byte> BytesOf(const Header& header) {
  return std::as_bytes(std::span(&header, 1));
}

size_t ChunksOf(size_t bytes) { return (bytes + kChunkBytes - 1) / kChunkBytes; }

// Calls body(chunk number, its place in the piece, its bytes) for all chunks, on all cores.
template <typename Body>
void ForChunks(std::span<std::byte> piece, const Body& body) {
  fabric::ParallelFor(ChunksOf(piece.size()), 1, [&](size_t begin, size_t end) {
    for (size_t chunk = begin; chunk < end; ++chunk) {
      const size_t at = chunk * kChunkBytes;
      body(chunk, at, piece.subspan(at, std::min(kChunkBytes, piece.size() - at)));
    }
  });
}

RecordWriter BuildIndex(const std::string& identity, const Index& index) {
  RecordWriter record;
  record.AddText(identity);
  record.Add(static_cast<uint32_t>(index.size()));
  for (const auto& [name, entry] : index) {
    record.AddText(name);
    record.AddText(entry.facts);
    record.Add(static_cast<uint32_t>(entry.pieces.size()));
    for (const Piece& piece : entry.pieces) {
      record.Add(piece.offset);
      record.Add(piece.size);
      for (const uint64_t checksum : piece.checksums) record.Add(checksum);
    }
  }
  return record;
}

Index ParseEntries(RecordReader* record) {
  Index index;
  const auto entries = record->Take<uint32_t>();
  for (uint32_t i = 0; i < entries; ++i) {
    Entry& entry = index[record->TakeText()];
    entry.facts = record->TakeText();
    const auto pieces = record->Take<uint32_t>();
    for (uint32_t p = 0; p < pieces; ++p) {
      Piece& piece = entry.pieces.emplace_back();
      piece.offset = record->Take<uint64_t>();
      piece.size = record->Take<uint64_t>();
      const size_t chunks = ChunksOf(piece.size);
      if (chunks > record->left()) throw std::out_of_range("more chunks than checksums");
      for (size_t c = 0; c < chunks; ++c) piece.checksums.push_back(record->Take<uint64_t>());
    }
  }
  return index;
}

class OpenFile {
 public:
  OpenFile(const std::string& path, int flags)
      : file_(::open(path.c_str(), flags, 0644)), error_(file_ < 0 ? errno : 0) {}
  ~OpenFile() {
    if (file_ >= 0) ::close(file_);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  int get() const { return file_; }
  // Of opening it: errno, or 0.
  int error() const { return error_; }
  uint64_t size() const {
    struct stat facts = {};
    return ::fstat(file_, &facts) == 0 ? static_cast<uint64_t>(facts.st_size) : 0;
  }

 private:
  int file_;
  int error_;
};

}  // namespace

class PackedCache::Reader {
 public:
  // Check() before anything else.
  explicit Reader(const std::string& path) : path_(path), file_(path, O_RDONLY | O_CLOEXEC) {}

  // Empty when the file can be used, else why not, as a clause; "there was none" when there is
  // none.
  std::string Check(const std::string& identity) {
    if (file_.error() == ENOENT) return "there was none";
    if (file_.error() != 0) return std::strerror(file_.error());
    Header header;
    const uint64_t size = file_.size();
    if (!ReadAt(file_.get(), 0, std::as_writable_bytes(std::span(&header, 1))) ||
        header.magic != kMagic) {
      return "the old file is not one of this version";
    }
    if (header.index_offset > size || header.index_size > size - header.index_offset) {
      return "the old file is cut off";
    }
    std::vector<std::byte> bytes(header.index_size);
    if (!ReadAt(file_.get(), header.index_offset, bytes) ||
        Checksum(bytes) != header.index_checksum) {
      return "the old file is damaged";
    }
    try {
      RecordReader record(bytes);
      if (record.TakeText() != identity) {
        return "the model, a setting or the machine has changed";
      }
      index_ = ParseEntries(&record);
    } catch (const std::out_of_range&) {
      return "the old file is damaged";
    }
    return {};
  }

  const Entry* Find(std::string_view name) const {
    const auto entry = index_.find(name);
    return entry == index_.end() ? nullptr : &entry->second;
  }

  void Read(std::string_view name, std::span<const std::span<std::byte>> pieces) const {
    const Entry* entry = Find(name);
    const bool same = entry != nullptr && entry->pieces.size() == pieces.size();
    if (!same) Fail(name);
    std::atomic<bool> sound = true;
    for (size_t i = 0; i < pieces.size(); ++i) {
      const Piece& piece = entry->pieces[i];
      if (piece.size != pieces[i].size()) Fail(name);
      ForChunks(pieces[i], [&](size_t chunk, size_t at, std::span<std::byte> bytes) {
        if (!ReadAt(file_.get(), piece.offset + at, bytes) ||
            Checksum(bytes) != piece.checksums[chunk]) {
          sound = false;
        }
      });
    }
    if (!sound) Fail(name);
  }

 private:
  [[noreturn]] void Fail(std::string_view name) const {
    throw PackedCacheError("The packed cache " + path_ + " is damaged at " + std::string(name) +
                           ".");
  }

  std::string path_;
  OpenFile file_;
  Index index_;
};

// Makes the file under another name, which one process at a time may do.
class PackedCache::Writer {
 public:
  explicit Writer(std::string path)
      : path_(std::move(path)),
        part_(path_ + ".part"),
        file_(part_, O_WRONLY | O_CREAT | O_CLOEXEC),
        error_(file_.error()) {
    if (error_ != 0) return;
    const bool locked = ::flock(file_.get(), LOCK_EX | LOCK_NB) == 0;
    ours_ = locked && IsStillThere();
    error_ = !ours_ ? EWOULDBLOCK : ::ftruncate(file_.get(), 0) == 0 ? 0 : errno;
  }
  ~Writer() {
    if (ours_) ::unlink(part_.c_str());
  }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Empty, or why nothing more can be written.
  std::string error() const {
    if (error_ == 0) return {};
    return error_ == EWOULDBLOCK ? "another process is making it" : std::strerror(error_);
  }

  void Keep(std::string_view name, std::string_view facts,
            std::span<const std::span<std::byte>> pieces) {
    if (index_.contains(name)) return;
    Entry entry{.facts = std::string(facts), .pieces = {}};
    for (const std::span<std::byte> bytes : pieces) {
      Piece piece{.offset = end_,
                  .size = bytes.size(),
                  .checksums = std::vector<uint64_t>(ChunksOf(bytes.size()))};
      std::atomic<int> error = 0;
      ForChunks(bytes, [&](size_t chunk, size_t at, std::span<const std::byte> from) {
        piece.checksums[chunk] = Checksum(from);
        if (!WriteAt(file_.get(), piece.offset + at, from)) error = errno;
      });
      if (error != 0) error_ = error;
      end_ = (end_ + bytes.size() + kAlignment - 1) / kAlignment * kAlignment;
      entry.pieces.push_back(std::move(piece));
    }
    index_.emplace(std::string(name), std::move(entry));
  }

  // It is not synced to the disk: what a crash leaves of it is found by its checksums.
  bool Finish(const std::string& identity) {
    const RecordWriter record = BuildIndex(identity, index_);
    const Header header{.index_offset = end_,
                        .index_size = record.bytes().size(),
                        .index_checksum = Checksum(record.bytes())};
    const bool written = WriteAt(file_.get(), end_, record.bytes()) &&
                         WriteAt(file_.get(), 0, BytesOf(header)) &&
                         std::rename(part_.c_str(), path_.c_str()) == 0;
    if (!written) error_ = errno;
    if (written) ours_ = false;
    return written;
  }

 private:
  // Another process may have finished and renamed it between open and lock.
  bool IsStillThere() const {
    struct stat open = {};
    struct stat named = {};
    return ::fstat(file_.get(), &open) == 0 && ::stat(part_.c_str(), &named) == 0 &&
           open.st_dev == named.st_dev && open.st_ino == named.st_ino;
  }

  std::string path_;
  std::string part_;
  OpenFile file_;
  bool ours_ = false;
  int error_;
  uint64_t end_ = kAlignment;  // the header comes first
  Index index_;
};

PackedCache::PackedCache() = default;
PackedCache::~PackedCache() = default;

PackedCache::PackedCache(std::string path, std::string identity)
    : path_(std::move(path)), identity_(std::move(identity)) {
  auto reader = std::make_unique<Reader>(path_);
  reason_ = reader->Check(identity_);
  if (reason_.empty()) {
    reader_ = std::move(reader);
    outcome_ = "read from " + path_;
  } else {
    StartWriting();
  }
}

void PackedCache::StartWriting() {
  const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
  std::error_code error;
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  if (error) return GiveUp(error.message());
  writer_ = std::make_unique<Writer>(path_);
  if (!writer_->error().empty()) GiveUp(writer_->error());
}

void PackedCache::GiveUp(const std::string& why) {
  outcome_ = path_ + " cannot be written: " + why;
  writer_.reset();
}

std::optional<std::string> PackedCache::FindFacts(std::string_view name) const {
  if (!reader_) return std::nullopt;
  const Entry* entry = reader_->Find(name);
  if (entry == nullptr) return std::nullopt;
  return entry->facts;
}

void PackedCache::Read(std::string_view name, std::span<const std::span<std::byte>> pieces) const {
  reader_->Read(name, pieces);
}

void PackedCache::Keep(std::string_view name, std::string_view facts,
                       std::span<const std::span<std::byte>> pieces) {
  if (!writer_) return;
  writer_->Keep(name, facts, pieces);
  if (!writer_->error().empty()) GiveUp(writer_->error());
}

void PackedCache::StartAnew() {
  reader_.reset();
  reason_ = "the old file is damaged";
  StartWriting();
}

void PackedCache::Finish() {
  if (!writer_) return;
  if (!writer_->Finish(identity_)) return GiveUp(writer_->error());
  outcome_ = "written to " + path_ + " (" + reason_ + ")";
  writer_.reset();
}

std::string PackedCachePath(const std::string& option, const std::string& model_path) {
  if (option.empty() || option == "off") return {};
  if (option == "beside") return model_path + ".packed";
  if (std::filesystem::exists(option) && !std::filesystem::is_directory(option)) {
    throw ModelError("packed_cache must be off, beside or a folder, and \"" + option +
                     "\" is a file.");
  }
  if (option.find('/') == std::string::npos && !std::filesystem::exists(option)) {
    throw ModelError("packed_cache must be off, beside or a folder, and there is no folder \"" +
                     option + "\"; a new one has a slash in its name, as ./" + option + ".");
  }
  // Models of one name in several folders have a cache each.
  const std::filesystem::path model = std::filesystem::absolute(model_path).lexically_normal();
  const std::string whole = model.string();
  char tag[17];
  std::snprintf(tag, sizeof tag, "%016llx",
                static_cast<unsigned long long>(Checksum(std::as_bytes(std::span(whole)))));
  return (std::filesystem::path(option) / (model.filename().string() + "-" + tag + ".packed"))
      .string();
}

std::string PackedCacheIdentity(const gguf::File& file, const fabric::Device& device,
                                const std::string& settings) {
  std::string identity = "pack " + std::to_string(kPackVersion) + "; " + device.LayoutRule() +
                         "; " + settings + "; i2s " +
                         std::to_string(static_cast<int>(file.options().i2s_layout));
  for (const std::string& path : file.paths()) {
    struct stat facts = {};
    ::stat(path.c_str(), &facts);
    identity += "; " + std::to_string(facts.st_size) + " bytes of " +
                std::to_string(facts.st_mtim.tv_sec) + "." + std::to_string(facts.st_mtim.tv_nsec);
  }
  uint64_t sample = 0;
  for (const gguf::TensorInfo& info : file.tensors()) {
    const auto bytes = file.TensorBytes(info);
    sample =
        fabric::sparse::Mix(sample ^ Checksum(bytes.first(std::min(kSampleBytes, bytes.size()))));
    sample = fabric::sparse::Mix(sample ^ Checksum(std::as_bytes(std::span(info.name))));
  }
  return identity + "; sample " + std::to_string(sample);
}

}  // namespace engine
