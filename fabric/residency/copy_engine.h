#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <thread>

#include "fabric/residency/image_store.h"

namespace fabric::residency {

// Copies images into the pool on a thread of its own, piece by piece, beside whatever else runs.
// Somebody who has to wait for an image copies pieces of it as well.
//
// Threads: any thread may call anything; one at a time cares for one job.
// Errors:  Start() throws std::bad_alloc.
class CopyEngine {
 public:
  class Job;
  struct Seconds {
    double copying = 0;  // of the thread, and of those who helped it
    double waiting = 0;  // of callers in Finish()
  };

  // store outlives the engine.
  explicit CopyEngine(const ImageStore& store);
  // Jobs that have not begun are dropped.
  ~CopyEngine();
  CopyEngine(const CopyEngine&) = delete;
  CopyEngine& operator=(const CopyEngine&) = delete;

  // Begins to copy all of `image` to `to` ([image.bytes]); both stay until the job has ended.
  // urgent: before all that wait.
  std::shared_ptr<Job> Start(const StoredImage& image, std::span<uint8_t> to, bool urgent);
  // Takes back a job of which no piece has begun; false when one has.
  bool Cancel(const Job& job);
  bool Ended(const Job& job) const;
  // Returns when the job has ended; false when the image could not be read.
  bool Finish(Job& job);
  // The same for somebody who has time: helps nobody, and no submission waits.
  void Await(const Job& job) const;

  Seconds seconds() const;

 private:
  void CopyPiece(Job& job, std::unique_lock<std::mutex>* lock);
  void Run();

  const ImageStore& store_;
  mutable std::mutex mutex_;  // of what follows, and of jobs
  mutable std::condition_variable changed_;
  std::deque<std::shared_ptr<Job>> queue_;  // that have pieces nobody has begun
  Seconds seconds_;
  bool stopping_ = false;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace fabric::residency
