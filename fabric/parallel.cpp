#include "fabric/parallel.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <atomic>

#include "fabric/worker_team.h"

namespace fabric {

void ParallelFor(size_t count, size_t grain, const std::function<void(size_t, size_t)>& body) {
  if (count == 0) return;
  // oneTBB sizes itself by the affinity mask alone; a container's limit is in its cgroup.
  static tbb::task_arena arena(AvailableCpus());
  // oneTBB hands work over and back in its library, which is not instrumented: this says the same
  // order again where ThreadSanitizer sees it. One addition for each part.
  std::atomic<size_t> handed_over{0};
  handed_over.store(1, std::memory_order_release);
  arena.execute([&] {
    tbb::parallel_for(tbb::blocked_range<size_t>(0, count, std::max<size_t>(grain, 1)),
                      [&](const tbb::blocked_range<size_t>& range) {
                        handed_over.load(std::memory_order_acquire);
                        body(range.begin(), range.end());
                        handed_over.fetch_add(1, std::memory_order_release);
                      });
  });
  handed_over.load(std::memory_order_acquire);
}

}  // namespace fabric
