#include "fabric/residency/image_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

namespace fabric::residency {
namespace {

// Images begin at pages, so that a hole of one leaves nothing of it behind.
constexpr uint64_t kPage = 4096;

// Without a name from the first, where the file system can do that, else from the second moment.
int OpenNameless(const std::string& directory) {
  const int file = open(directory.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file >= 0) return file;
  std::string path = directory + "/tern-pool-XXXXXX";
  const int named = mkostemp(path.data(), O_CLOEXEC);
  if (named >= 0) unlink(path.c_str());
  return named;
}

bool WriteAll(int file, const uint8_t* from, size_t bytes, uint64_t offset) {
  while (bytes > 0) {
    const ssize_t written = pwrite(file, from, bytes, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    from += written;
    offset += static_cast<uint64_t>(written);
    bytes -= static_cast<size_t>(written);
  }
  return true;
}

}  // namespace

ImageStore::ImageStore(const std::string& directory) {
  if (directory.empty()) return;
  file_ = OpenNameless(directory);
  if (file_ >= 0) return;
  throw std::runtime_error("The folder \"" + directory +
                           "\" of --fabric-store cannot take a file: " + std::strerror(errno) +
                           ".");
}

ImageStore::~ImageStore() {
  if (file_ >= 0) close(file_);
}

Status ImageStore::Put(const TernaryMatrix& matrix, StoredImage* image) {
  StoredImage stored;
  stored.bytes = matrix.image_bytes();
  stored.memory = AlignedBuffer<uint8_t>(stored.bytes);
  matrix.CopyImage(stored.memory.data());
  if (in_file()) {
    if (!WriteAll(file_, stored.memory.data(), stored.bytes, end_)) return Status::kErrNoMem;
    stored.offset = end_;
    stored.memory = {};
    end_ += (stored.bytes + kPage - 1) / kPage * kPage;
  }
  *image = std::move(stored);
  return Status::kOk;
}

void ImageStore::Drop(StoredImage* image) noexcept {
  if (in_file() && image->bytes > 0) {
    // A file system that cannot make holes keeps the bytes until the end.
    static_cast<void>(fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                static_cast<off_t>(image->offset),
                                static_cast<off_t>((image->bytes + kPage - 1) / kPage * kPage)));
  }
  *image = {};
}

bool ImageStore::Read(const StoredImage& image, size_t begin,
                      std::span<uint8_t> to) const noexcept {
  if (!in_file()) {
    std::memcpy(to.data(), image.memory.data() + begin, to.size());
    return true;
  }
  size_t done = 0;
  while (done < to.size()) {
    const ssize_t got = pread(file_, to.data() + done, to.size() - done,
                              static_cast<off_t>(image.offset + begin + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

}  // namespace fabric::residency
