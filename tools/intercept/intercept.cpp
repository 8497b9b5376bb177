// Begin and end of the preloaded library, its settings, and what programs may say to it.

#include <fcntl.h>
#include <pthread.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <new>

#include "tools/intercept/runtime.h"
#include "tools/intercept/tfmbs_intercept.h"

namespace {

using intercept::arena;
using intercept::blas;
using intercept::counts;
using intercept::detector;
using intercept::detector_busy;
using intercept::FabricBlas;
using intercept::forked;
using intercept::Hooked;
using intercept::Inside;
using intercept::Log;
using intercept::ready;
using intercept::Resolve;
using intercept::RowScanDetector;
using intercept::settings;

// "64K", "1M", "2G"; `otherwise` for anything else.
size_t BytesFrom(const char* name, size_t otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) return otherwise;
  char* end = nullptr;
  errno = 0;
  const unsigned long long value = std::strtoull(text, &end, 10);
  int shift = 0;
  if (*end == 'K') shift = 10;
  if (*end == 'M') shift = 20;
  if (*end == 'G') shift = 30;
  const bool sound = errno == 0 && end != text && *(end + (shift != 0 ? 1 : 0)) == '\0' &&
                     value <= (SIZE_MAX >> shift);
  if (!sound) {
    Log("tfmbs_intercept: %s is a number of bytes such as 64K or 1G, not \"%s\"; %zu is used\n",
        name, text, otherwise);
    return otherwise;
  }
  return static_cast<size_t>(value) << shift;
}

bool IsSet(const char* name) {
  const char* text = std::getenv(name);
  return text != nullptr && std::strcmp(text, "0") != 0 && *text != '\0';
}

double NumberFrom(const char* name, double least, double most, double otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) return otherwise;
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end != text && *end == '\0' && value >= least && value <= most) return value;
  Log("tfmbs_intercept: %s is a number from %g to %g, not \"%s\"; %g is used\n", name, least, most,
      text, otherwise);
  return otherwise;
}

void AfterForkInChild() {
  arena.Unlock();
  detector_busy.clear();
  forked = true;
}

__attribute__((constructor)) void Begin() {
  const Inside inside;
  Resolve();
  if (const char* path = std::getenv("TFMBS_LOG"); path != nullptr) {
    const int file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file >= 0) settings.log = file;
  }
  settings.threshold = std::max<size_t>(1, BytesFrom("TFMBS_THRESHOLD", settings.threshold));
  settings.copy_threshold = BytesFrom("TFMBS_COPY_THRESHOLD", settings.copy_threshold);
  settings.validate = IsSet("TFMBS_VALIDATE");
  settings.verbose = IsSet("TFMBS_VERBOSE");
  const size_t pool = BytesFrom("TFMBS_POOL", size_t{1} << 30);
  if (!arena.Reserve(pool)) Log("tfmbs_intercept: no address space for %zu bytes\n", pool);
  detector = new (std::nothrow) RowScanDetector;
  blas = new (std::nothrow)
      FabricBlas({.planes = static_cast<uint32_t>(NumberFrom("TFMBS_PLANES", 1, 8, 8)),
                  .max_error = NumberFrom("TFMBS_MAX_ERROR", 0, 1, 0.02),
                  .uses = static_cast<uint32_t>(NumberFrom("TFMBS_USES", 1, 1e6, 2)),
                  .device = std::getenv("TFMBS_DEVICE")});
  if (detector == nullptr || blas == nullptr) return;
  pthread_atfork([] { arena.Lock(); }, [] { arena.Unlock(); }, AfterForkInChild);
  ready.store(true, std::memory_order_release);
}

__attribute__((destructor)) void End() {
  if (!ready.load() || forked.load()) return;
  const Inside inside;
  tfmbs_intercept_stats s;
  tfmbs_intercept_get_stats(&s);
  Log("tfmbs_intercept: memory: %llu blocks and %llu files on the Fabric, %llu did not fit; "
      "copies: %llu of %llu bytes; repeated row scans: %llu\n",
      static_cast<unsigned long long>(s.fabric_allocations),
      static_cast<unsigned long long>(s.fabric_files), static_cast<unsigned long long>(s.spilled),
      static_cast<unsigned long long>(s.copies), static_cast<unsigned long long>(s.copied_bytes),
      static_cast<unsigned long long>(s.row_scans));
  Log("tfmbs_intercept: products: %llu on the Fabric, %llu on the host; %llu matrices "
      "ternarised; %llu results compared, %llu beyond their bound, the worst at %.3f of it\n",
      static_cast<unsigned long long>(s.fabric_products),
      static_cast<unsigned long long>(s.host_products),
      static_cast<unsigned long long>(s.ternarised), static_cast<unsigned long long>(s.validated),
      static_cast<unsigned long long>(s.beyond_bound), s.worst_of_bound);
}

}  // namespace

EXPORT int tfmbs_intercept_register(const float* matrix, uint32_t rows, uint32_t cols,
                                    uint64_t row_stride, uint64_t col_stride) {
  if (!Hooked() || forked.load()) return -1;
  const Inside inside;
  try {
    return blas->Register({matrix, rows, cols, row_stride, col_stride}) ? 0 : -1;
  } catch (const std::bad_alloc&) {
    return -1;
  }
}

EXPORT int tfmbs_intercept_unregister(const float* matrix) {
  if (!Hooked() || forked.load()) return -1;
  const Inside inside;
  return blas->Unregister(matrix) ? 0 : -1;
}

EXPORT void tfmbs_intercept_get_stats(tfmbs_intercept_stats* stats) {
  const Inside inside;
  *stats = {.fabric_allocations = counts.allocations,
            .fabric_files = counts.files,
            .fabric_bytes = arena.used_bytes(),
            .spilled = counts.spilled,
            .copies = counts.copies,
            .copied_bytes = counts.copied_bytes,
            .row_scans = counts.row_scans,
            .fabric_products = counts.on_fabric,
            .host_products = counts.on_host,
            .ternarised = blas == nullptr || forked.load() ? 0 : blas->ternarised(),
            .validated = counts.validated,
            .beyond_bound = counts.beyond,
            .worst_of_bound = static_cast<double>(counts.worst_in_millionths) / 1e6};
}
