#pragma once

#include <cstddef>
#include <functional>

namespace fabric {

// Calls body(begin, end) over [0, count) in pieces of at least `grain` (the last may be shorter),
// on the CPUs that this process may use. For loading and packing; the token path has WorkerTeam.
//
// Errors: an exception of a body stops the loop and is rethrown here.
void ParallelFor(size_t count, size_t grain, const std::function<void(size_t, size_t)>& body);

}  // namespace fabric
