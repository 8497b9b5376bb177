#pragma once

#include <cstddef>
#include <functional>
#include <memory>

namespace fabric {

// Threads that stay: the caller and size() - 1 workers run each task together. Workers spin briefly
// for the next task and then sleep, so an idle server uses no CPU and a core taken by another
// process slows a step by that core's share, not by a scheduler quantum.
//
// Threads: Run() and ParallelFor() from any thread; jobs of several pieces run one after the other.
//          Worker numbers are unique within a job only. They do not nest.
// Errors:  tasks must not throw.
class WorkerTeam {
 public:
  // threads: 0 = the CPUs this process may use (affinity and cgroup limit).
  explicit WorkerTeam(int threads);
  ~WorkerTeam();
  WorkerTeam(const WorkerTeam&) = delete;
  WorkerTeam& operator=(const WorkerTeam&) = delete;

  int size() const;

  // Calls task(worker) once per worker, 0 <= worker < size(); 0 is the caller.
  void Run(const std::function<void(int)>& task);

  // Calls task(worker, begin, end) over [0, count) in pieces of at most `grain`. Each worker begins
  // with a share of consecutive pieces; whoever is done takes pieces from the ends of the others'.
  void ParallelFor(size_t count, size_t grain,
                   const std::function<void(int, size_t, size_t)>& task);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// CPUs that this process may use: sched_getaffinity limited by cgroup v2's cpu.max, at least 1.
int AvailableCpus();

}  // namespace fabric
