#include "fabric/residency/copy_engine.h"

#include <algorithm>
#include <chrono>
#include <iterator>

#include "fabric/seconds_since.h"

namespace fabric::residency {
namespace {

// Small enough that two share one matrix evenly, large enough that the lock costs nothing.
constexpr size_t kPieceBytes = size_t{256} << 10;

using Clock = std::chrono::steady_clock;

}  // namespace

class CopyEngine::Job {
 public:
  Job(const StoredImage& image, std::span<uint8_t> to)
      : image(image), to(to), pieces((image.bytes + kPieceBytes - 1) / kPieceBytes) {}

  bool ended() const { return done == pieces; }

  const StoredImage& image;
  const std::span<uint8_t> to;
  const size_t pieces;
  size_t begun = 0;
  size_t done = 0;
  bool failed = false;
};

CopyEngine::CopyEngine(const ImageStore& store) : store_(store), thread_([this] { Run(); }) {}

CopyEngine::~CopyEngine() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::shared_ptr<CopyEngine::Job> CopyEngine::Start(const StoredImage& image, std::span<uint8_t> to,
                                                   bool urgent) {
  auto job = std::make_shared<Job>(image, to);
  {
    const std::lock_guard lock(mutex_);
    queue_.insert(urgent ? queue_.begin() : queue_.end(), job);
  }
  changed_.notify_all();
  return job;
}

bool CopyEngine::Cancel(const Job& job) {
  const std::lock_guard lock(mutex_);
  if (job.begun > 0) return false;
  std::erase_if(queue_, [&](const auto& waiting) { return waiting.get() == &job; });
  return true;
}

bool CopyEngine::Ended(const Job& job) const {
  const std::lock_guard lock(mutex_);
  return job.ended();
}

bool CopyEngine::Finish(Job& job) {
  std::unique_lock lock(mutex_);
  if (job.ended()) return !job.failed;
  const Clock::time_point start = Clock::now();
  // The thread is to help with this one before it goes on with others.
  const auto waiting = std::find_if(queue_.begin(), queue_.end(),
                                    [&](const auto& queued) { return queued.get() == &job; });
  if (waiting != queue_.end()) std::rotate(queue_.begin(), waiting, std::next(waiting));
  while (job.begun < job.pieces) CopyPiece(job, &lock);
  changed_.wait(lock, [&] { return job.ended(); });
  seconds_.waiting += SecondsSince(start);
  return !job.failed;
}

void CopyEngine::Await(const Job& job) const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return job.ended(); });
}

// REQUIRES: a piece that has not begun; the lock, which is held again at the end.
void CopyEngine::CopyPiece(Job& job, std::unique_lock<std::mutex>* lock) {
  const size_t begin = job.begun++ * kPieceBytes;
  if (job.begun == job.pieces) {
    std::erase_if(queue_, [&](const auto& waiting) { return waiting.get() == &job; });
  }
  lock->unlock();
  const Clock::time_point start = Clock::now();
  const bool read = store_.Read(
      job.image, begin, job.to.subspan(begin, std::min(kPieceBytes, job.to.size() - begin)));
  const double seconds = SecondsSince(start);
  lock->lock();
  seconds_.copying += seconds;
  job.failed |= !read;
  ++job.done;
  if (job.ended()) changed_.notify_all();
}

void CopyEngine::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const std::shared_ptr<Job> job = queue_.front();  // kept while its piece is copied
    CopyPiece(*job, &lock);
  }
}

CopyEngine::Seconds CopyEngine::seconds() const {
  const std::lock_guard lock(mutex_);
  return seconds_;
}

}  // namespace fabric::residency
