#include "fabric/parallel.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>

#include "fabric/worker_team.h"

namespace fabric {

void ParallelFor(size_t count, size_t grain, const std::function<void(size_t, size_t)>& body) {
  if (count == 0) return;
  // oneTBB sizes itself by the affinity mask alone; a container's limit is in its cgroup.
  static tbb::task_arena arena(AvailableCpus());
  arena.execute([&] {
    tbb::parallel_for(
        tbb::blocked_range<size_t>(0, count, std::max<size_t>(grain, 1)),
        [&](const tbb::blocked_range<size_t>& range) { body(range.begin(), range.end()); });
  });
}

}  // namespace fabric
